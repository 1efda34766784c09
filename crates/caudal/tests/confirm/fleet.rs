//! A server that takes transactions in, workers that confirm them, the endpoint, and the oracle.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use caudal_core::confirm::Keys;
use caudal_core::topic::TopicName;
use caudal_testkit::api::Api;
use caudal_testkit::endpoint::{Behaviour, Endpoint};
use caudal_testkit::server::Server;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const TOPIC: &str = "payments";
/// Transactions looked at together.
const PAGE: usize = 100_000;
/// How long work that must end is waited for.
const PATIENCE: Duration = Duration::from_secs(90);

/// Where one case keeps its data.
pub(crate) struct Store {
    pub(crate) url: String,
    _home: Option<TempDir>,
    #[cfg(feature = "dynamodb")]
    pub(crate) table: Option<crate::table::Table>,
}

impl Store {
    pub(crate) async fn postgres() -> Self {
        Self::of(caudal_testkit::postgres::database().await.unwrap())
    }

    pub(crate) fn of(url: String) -> Self {
        Self {
            url,
            _home: None,
            #[cfg(feature = "dynamodb")]
            table: None,
        }
    }

    #[cfg(feature = "dynamodb")]
    pub(crate) async fn dynamodb() -> Self {
        let table = crate::table::Table::new().await;
        Self { table: Some(table), ..Self::of("sqlite:/nowhere/at/all.db".to_owned()) }
    }

    /// In a file of its own, so that several processes can share it.
    pub(crate) fn sqlite() -> Self {
        let home = tempfile::Builder::new().prefix("caudal-confirm").tempdir().unwrap();
        let store = Self::sqlite_in(home.path());
        Self { _home: Some(home), ..store }
    }

    pub(crate) fn sqlite_in(dir: &Path) -> Self {
        Self::of(format!("sqlite:{}", dir.join("shared.db").display()))
    }
}

impl Store {
    /// The table of its own that confirmations have, if they have one.
    pub(crate) fn apart(&self) -> Option<&str> {
        #[cfg(feature = "dynamodb")]
        if let Some(table) = &self.table {
            return Some(&table.url);
        }
        None
    }

    fn schema(&self) -> Option<&'static str> {
        #[cfg(feature = "dynamodb")]
        if self.table.is_some() {
            return Some(crate::table::SCHEMA);
        }
        None
    }

    /// Lines of the topic's section before those of its confirmation.
    fn key(&self) -> &'static str {
        if self.apart().is_some() { "key = [\"payment\"]\n" } else { "" }
    }

    /// A setting as it is where every request takes its time.
    fn patient(&self, line: &str) -> String {
        match line {
            "lease = \"1s\"" if self.apart().is_some() => "lease = \"3s\"".to_owned(),
            line => line.to_owned(),
        }
    }

    /// Answers questions, and where it can takes transactions in.
    fn server(&self, settings: &str) -> Server {
        let server = Server::new(&binary()).unwrap().broker("none:").roles("api,worker");
        let server = server.env("CAUDAL_LOG__LEVEL", "warn");
        match self.apart() {
            Some(url) => server.env("CAUDAL_CONFIRM__STORE", url),
            None => server.store(&self.url).topic(TOPIC, None, settings),
        }
    }
}

/// A million transactions are for a release build: `CAUDAL_TEST_BINARY`.
fn binary() -> String {
    std::env::var("CAUDAL_TEST_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_caudal").to_owned())
}

pub(crate) struct Fleet {
    pub(crate) endpoint: Endpoint,
    /// Takes transactions in and answers questions; confirms nothing.
    pub(crate) server: Server,
    pub(crate) workers: Vec<Server>,
    settings: String,
    environment: Vec<(String, String)>,
    pub(crate) store: Store,
    enqueued: std::sync::atomic::AtomicUsize,
}

impl Fleet {
    /// `settings`: lines for the topic's `confirm` section, the endpoint's URLs left out. No worker runs yet.
    pub(crate) async fn start(store: Store, behaviour: Behaviour, settings: &str) -> Self {
        let endpoint = Endpoint::start(behaviour).await.unwrap();
        let defaults = "rejected = [\"422\"]\nlease = \"1s\"\nbackoff = \"20ms\"\nbackoff_max = \"200ms\"\ntimeout = \"500ms\"\n\
                        breaker_pause = \"50ms\"\nbreaker_pause_max = \"200ms\"\n";
        let given: Vec<&str> = settings.lines().filter_map(|line| line.split('=').next()).map(str::trim).collect();
        let kept = defaults.lines().filter(|line| !given.contains(&line.split('=').next().unwrap().trim()));
        let kept: Vec<String> = kept.map(|line| store.patient(line)).collect();
        let settings = format!("url = \"{}\"\n{settings}\n{}", endpoint.url("/payments"), kept.join("\n"));
        let settings = settings.replace("${endpoint}", &endpoint.url(""));
        Self::calling(store, endpoint, &settings).await
    }

    /// One that calls what `settings`, the whole of the section, say. The endpoint stays unused.
    pub(crate) async fn calling(store: Store, endpoint: Endpoint, settings: &str) -> Self {
        let settings = format!("{}[topics.\"{TOPIC}\".confirm]\n{settings}", store.key());
        let mut server = store.server(&settings);
        server.start().await.unwrap();
        let enqueued = Default::default();
        Self { endpoint, server, workers: Vec::new(), settings, environment: Vec::new(), store, enqueued }
    }

    /// Sets an environment variable of the workers that are started from now on.
    pub(crate) fn worker_env(&mut self, name: &str, value: impl Into<String>) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.into()));
    }

    pub(crate) fn clear_worker_env(&mut self) {
        self.environment.clear();
    }

    /// A worker as it is configured, not started.
    pub(crate) fn configured(&self) -> Server {
        let mut worker = Server::new(&binary()).unwrap().store(&self.store.url).broker("none:");
        worker = worker.topic(TOPIC, self.store.schema(), &self.settings).roles("confirm");
        worker.set_env("CAUDAL_CONFIRM__IDLE_BEAT_MS", "200");
        if let Some(url) = self.store.apart() {
            worker.set_env("CAUDAL_CONFIRM__STORE", url);
        }
        worker.set_env("CAUDAL_LOG__LEVEL", "warn");
        for (name, value) in &self.environment {
            worker.set_env(name, value);
        }
        worker
    }

    /// Starts another worker.
    pub(crate) fn worker(&mut self) -> &mut Server {
        let mut worker = self.configured();
        worker.spawn().unwrap();
        self.workers.push(worker);
        self.workers.last_mut().unwrap()
    }

    pub(crate) fn api(&self) -> Api {
        self.server.api()
    }

    /// Stores this many transactions; returns their ids, of many only some.
    pub(crate) async fn enqueue(&self, count: usize) -> Vec<Uuid> {
        #[cfg(feature = "dynamodb")]
        if self.store.table.is_some() {
            return self.enqueue_apart(count);
        }
        let mut ids = Vec::with_capacity(count);
        for from in (0..count).step_by(5_000) {
            let lines: String =
                (from..count.min(from + 5_000)).map(|n| json!({ "payment": n }).to_string() + "\n").collect();
            let headers = [("content-type", "application/x-ndjson"), ("prefer", "wait=30")];
            let answer = self.api().post(&format!("/v1/topics/{TOPIC}/messages"), &headers, lines).await.unwrap();
            assert!((200..300).contains(&answer.status), "{}", answer.text());
            let body = answer.json();
            let records = body["records"].as_array().unwrap();
            ids.extend(
                records.iter().map(|verdict| verdict["transaction_id"].as_str().unwrap().parse::<Uuid>().unwrap()),
            );
        }
        ids
    }

    /// By the command, because nothing that is published becomes pending there.
    #[cfg(feature = "dynamodb")]
    fn enqueue_apart(&self, count: usize) -> Vec<Uuid> {
        use std::sync::atomic::Ordering;
        let from = self.enqueued.fetch_add(count, Ordering::Relaxed);
        let (lines, ids): (Vec<_>, Vec<_>) = (from..from + count).map(crate::table::Table::payment).unzip();
        let file = self.server.home().join(format!("from-{from}.ndjson"));
        std::fs::write(&file, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        let output = self.configured().run(&["confirm", "enqueue", TOPIC, &file.display().to_string()]).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        ids
    }

    /// As many transactions as this store does in the time that others take for `count`; a hundred at least.
    pub(crate) fn few(&self, count: usize) -> usize {
        if self.store.apart().is_some() { (count / 20).max(100).min(count) } else { count }
    }

    /// Whether confirmations have a table of their own, with shards.
    pub(crate) fn is_apart(&self) -> bool {
        self.store.apart().is_some()
    }

    /// Long enough for a lease to lapse twice over.
    pub(crate) fn lapse(&self) -> Duration {
        Duration::from_secs(if self.store.apart().is_some() { 7 } else { 3 })
    }

    /// What is suspect goes one by one, and each costs an emulator some twenty requests.
    fn patience(&self) -> Duration {
        if self.is_apart() { PATIENCE * 3 } else { PATIENCE }
    }

    fn look(&self) -> Duration {
        #[cfg(feature = "dynamodb")]
        if self.store.table.is_some() {
            return crate::table::LOOK;
        }
        Duration::from_millis(20)
    }

    #[cfg(feature = "dynamodb")]
    pub(crate) fn table(&self) -> &crate::table::Table {
        self.store.table.as_ref().unwrap()
    }

    /// The lane's numbers.
    pub(crate) async fn lane(&self) -> Value {
        let answer = self.api().get("/v1/confirmations/lanes").await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["lanes"][0].clone()
    }

    /// How many transactions are in these states.
    pub(crate) async fn count(&self, states: &[&str]) -> u64 {
        let lane = self.lane().await;
        states.iter().map(|state| lane[*state].as_u64().unwrap()).sum()
    }

    /// Waits until so many transactions are in these states.
    pub(crate) async fn reach(&self, states: &[&str], count: u64) {
        let begun = Instant::now();
        while self.count(states).await < count {
            assert!(begun.elapsed() < PATIENCE, "not {count} in {states:?}: {:#}", self.lane().await);
            tokio::time::sleep(self.look()).await;
        }
    }

    /// Waits until no worker has anything to do.
    pub(crate) async fn settled(&self) {
        self.settled_within(self.patience()).await;
    }

    async fn settled_within(&self, patience: Duration) {
        let begun = Instant::now();
        loop {
            if self.count(&["pending", "leased", "calling", "retry", "doubt"]).await == 0 {
                return;
            }
            assert!(begun.elapsed() < patience, "not settled: {:#}", self.lane().await);
            tokio::time::sleep(self.look().max(Duration::from_millis(50))).await;
        }
    }

    /// What the store says of each transaction.
    pub(crate) async fn states(&self) -> BTreeMap<Uuid, Value> {
        self.states_after(Uuid::nil()).await
    }

    /// What it says of the next so many; of all that come behind, where they are few.
    async fn states_after(&self, last: Uuid) -> BTreeMap<Uuid, Value> {
        #[cfg(feature = "dynamodb")]
        if let Some(table) = &self.store.table {
            return table.rows().await.into_iter().filter(|(id, _)| *id > last).collect();
        }
        let path = format!(
            "/v1/confirmations?select=_id,state,attempts,crashes,maybe_done,code,detail,since,due&_id=gt.{last}&order=_id&limit={PAGE}"
        );
        let answer = self.api().get(&path).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let rows = answer.json();
        let rows = rows.as_array().unwrap();
        let states: BTreeMap<Uuid, Value> =
            rows.iter().map(|row| (row["_id"].as_str().unwrap().parse().unwrap(), row.clone())).collect();
        assert_eq!(states.len(), rows.len(), "a transaction stands in two places");
        states
    }

    /// What is wrong, if anything: the audit of the store, and the store against the endpoint's own books.
    pub(crate) async fn judge(&self) -> Result<(), String> {
        let audit = self.server.run(&["confirm", "verify", "--json"]).unwrap();
        if !audit.status.success() {
            return Err(format!(
                "verify: {}{}",
                String::from_utf8_lossy(&audit.stdout),
                String::from_utf8_lossy(&audit.stderr)
            ));
        }
        let mut page = self.states().await;
        while let Some(last) = page.last_key_value().map(|(id, _)| *id) {
            self.agree(page)?;
            page = self.states_after(last).await;
        }
        Ok(())
    }

    /// The store against the endpoint's own books.
    fn agree(&self, states: BTreeMap<Uuid, Value>) -> Result<(), String> {
        for (id, row) in states {
            let did = self.endpoint.effects(key_of(id));
            let (effects, declined) = did.map_or((0, false), |did| (did.effects, did.declined));
            let state = row["state"].as_str().unwrap();
            let agrees = match state {
                "confirmed" => effects == 1,
                "rejected" => effects == 0 && declined,
                "held" | "dead" if row["maybe_done"] == false => effects == 0,
                "void" | "pending" => effects == 0,
                _ => effects <= 1,
            };
            if !agrees {
                return Err(format!("{id} is {row}, and the endpoint did {did:?}"));
            }
        }
        Ok(())
    }

    /// Waits for quiet, then asks the oracle.
    pub(crate) async fn assert_clean(&self) {
        self.assert_clean_within(self.patience()).await;
    }

    pub(crate) async fn assert_clean_within(&self, patience: Duration) {
        self.settled_within(patience).await;
        if let Err(wrong) = self.judge().await {
            panic!("{wrong}");
        }
    }

    pub(crate) fn kill_workers(&mut self) {
        for worker in &mut self.workers {
            let _ = worker.kill();
        }
        self.workers.clear();
    }
}

/// What the endpoint knows a transaction by.
pub(crate) fn key_of(transaction: Uuid) -> Uuid {
    Keys::of(&TopicName::parse(TOPIC).unwrap(), "confirm").key(transaction)
}
