//! Processes that work over the same file and are killed, and what must be right however they died: every transaction has one outcome
//! or is open in one place, and an outcome that a process was told of stands.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use caudal_core::confirm::ports::{Beat, Claim, Confirm, Finish, LaneSpec, Marked, Records};
use caudal_core::confirm::{Fact, LaneId, Mark, Rank};
use caudal_core::error::StoreError;
use caudal_core::ports::{Append, Lanes, OnBadRow};
use caudal_store::sqlite::SqliteStore;
use caudal_testkit::chance::Chance;
use caudal_testkit::confirm::{Doing, Harness, claim, confirmed, fact, finish, ids, outcomes, retry, worker};
use caudal_testkit::store::{batch, small, topic};
use uuid::Uuid;

use crate::harness::{Sql, open, store_in};

const SIGKILL: i32 = 9;
const TTL: Duration = Duration::from_millis(150);

fn spec() -> LaneSpec {
    let records = Records::Topic(small("payments", false));
    LaneSpec { topic: topic("payments"), name: "default".into(), records }
}

/// Runs this test binary again as a worker over the store's file. What it was told is in the file `said`, line by line, which a
/// kill leaves alone.
fn start(h: &Sql, name: &str, seed: u64) -> Child {
    Command::new(std::env::current_exe().expect("this binary has a path"))
        .args(["--exact", "crash::child", "--nocapture"])
        .env("CAUDAL_TEST_FILE", h.path())
        .env("CAUDAL_TEST_WORKER", name)
        .env("CAUDAL_SEED", seed.to_string())
        .stdout(Stdio::null())
        .spawn()
        .expect("the child starts")
}

/// Does nothing unless a test started it as a child; then it works until it is killed.
#[test]
fn child() {
    let Ok(file) = std::env::var("CAUDAL_TEST_FILE") else { return };
    let name = std::env::var("CAUDAL_TEST_WORKER").expect("a name");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(work(Path::new(&file), &name));
}

async fn work(file: &Path, name: &str) {
    let store = store_in(file, name);
    let lane = store.ensure_lanes(&[spec()]).await.expect("lanes")[0];
    let (mut chance, _) = Chance::from_environment();
    let said = OpenOptions::new().append(true).create(true).open(file.with_extension(format!("{name}.said")));
    let mut said = said.expect("a file");
    // Two tasks, so that there are commits of several calls.
    let other = (store.clone(), Chance::new(chance.next_u64()), said.try_clone().expect("a file"), name.to_owned());
    tokio::spawn(async move {
        let (store, mut chance, mut said, name) = other;
        loop {
            round(&store, lane, &name, &mut chance, &mut said).await;
        }
    });
    loop {
        round(&store, lane, name, &mut chance, &mut said).await;
    }
}

async fn round(store: &Arc<SqliteStore>, lane: LaneId, name: &str, chance: &mut Chance, said: &mut File) {
    // Another process may have the file for longer than one waits: that is said, and changes nothing.
    match one_round(store, lane, name, chance, said).await {
        Ok(()) | Err(StoreError::Unavailable(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

async fn one_round(
    store: &Arc<SqliteStore>,
    lane: LaneId,
    name: &str,
    chance: &mut Chance,
    said: &mut File,
) -> Result<(), StoreError> {
    if chance.one_in(3) {
        let new: Vec<(Uuid, i64)> = ids(chance.between(1, 40) as usize).into_iter().zip(0..).collect();
        let mut more = batch(&small("payments", false), OnBadRow::Report, &new);
        more.lanes = Lanes::All(lane);
        store.append(more.into()).await?;
        new.iter().for_each(|(id, _)| say(said, "stored", *id));
    }
    store.beat(&Beat { worker: worker(name), ttl: TTL, lanes: vec![lane], promote_max: 50, thorough: true }).await?;
    let rank = *chance.pick(&Rank::ALL);
    let asked = Claim { rank, items_max: 20, ttl: TTL, worker: worker(name), ..claim(lane) };
    let Some(taken) = store.claim(&asked).await? else { return Ok(()) };
    if !store.begin_calls(&taken.lease, TTL).await? {
        return Ok(());
    }
    let mark = |_: &_| match chance.between(0, 6) {
        0..4 => confirmed(),
        4 => fact(Fact::Rejected),
        _ => retry(Duration::ZERO, true),
    };
    let marks: Vec<Mark> = taken.items.iter().map(mark).collect();
    let marked = taken.items.into_iter().zip(marks).map(|(item, mark)| Marked { item, mark }).collect();
    let end = Finish { lease: taken.lease, marks: marked, ends: true };
    let settled = store.settle(std::slice::from_ref(&end)).await?;
    // Two that say different things of one transaction contradict each other, and only the first is right.
    if settled.contradictions == 0 {
        for marked in &end.marks {
            if let Mark::Fact { fact, .. } = marked.mark {
                say(said, fact.state().name(), marked.item.id);
            }
        }
    }
    Ok(())
}

/// One write a line, so that tasks do not mix theirs.
fn say(said: &mut File, word: &str, id: Uuid) {
    said.write_all(format!("{word} {id}\n").as_bytes()).expect("the file takes it");
}

/// The lines that are whole.
fn said(h: &Sql, name: &str) -> Vec<(String, Uuid)> {
    let text = std::fs::read_to_string(h.path().with_extension(format!("{name}.said"))).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let line = |line: &str| {
        let (word, id) = line.split_once(' ').expect("two words");
        (word.to_owned(), Uuid::try_parse(id).expect("an id"))
    };
    whole.lines().map(line).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_workers_lose_and_double_nothing() {
    let kills: u64 = std::env::var("CAUDAL_SOAK").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let (mut chance, seed) = Chance::from_environment();
    println!("CAUDAL_SEED={seed}");
    let h = open().await;
    let lane = h.lane("default").await;
    let store = h.store();
    let mut workers: Vec<(&str, Child)> =
        ["a", "b"].map(|name| (name, start(&h, name, chance.next_u64()))).into_iter().collect();
    for kill in 0..kills {
        // The moment is the subject of the test, not a wait for something.
        tokio::time::sleep(Duration::from_millis(chance.between(20, 400))).await;
        let at = chance.between(0, 2) as usize;
        let (name, child) = &mut workers[at];
        child.kill().expect("kill");
        let status = child.wait().expect("it ends");
        assert_eq!(status.signal(), Some(SIGKILL), "it ended by itself: {status}");
        // While the other one goes on.
        store.assert_sound().await;
        *child = start(&h, name, chance.next_u64() ^ kill);
    }
    for (_, mut child) in workers {
        child.kill().expect("kill");
        child.wait().expect("it ends");
    }
    store.assert_sound().await;
    let told: Vec<(String, Uuid)> = [said(&h, "a"), said(&h, "b")].concat();
    let stored: Vec<Uuid> = told.iter().filter(|(word, _)| word == "stored").map(|(_, id)| *id).collect();
    let mut facts: HashMap<Uuid, &str> = HashMap::new();
    for (word, id) in told.iter().filter(|(word, _)| word != "stored") {
        assert_eq!(*facts.entry(*id).or_insert(word), word, "{id} was said to be both");
    }
    for id in &stored {
        store.look(*id).await;
    }
    for (id, word) in &facts {
        assert_eq!(store.look(*id).await.state.name(), *word, "what was settled stands");
    }
    drain(&h, lane).await;
    let now = store.status("default").await;
    assert_eq!(outcomes(&now), now.enqueued, "{now:?}");
    println!("{kills} kills: {} stored, {} facts told, {now:?}", stored.len(), facts.len());
    assert!(facts.len() as u64 > kills, "the workers did next to nothing");
}

/// Confirms what is left.
async fn drain(h: &Sql, lane: LaneId) {
    let store = h.store();
    let draining = async {
        loop {
            store.beat_as("drain", &[lane]).await;
            for rank in Rank::ALL {
                while let Some(batch) = store.claim_as(Claim { rank, ..claim(lane) }).await {
                    store.finish(finish(&batch, &confirmed())).await;
                }
            }
            if caudal_testkit::confirm::open(&store.status("default").await) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), draining).await.expect("all leases lapse");
    store.assert_sound().await;
}
