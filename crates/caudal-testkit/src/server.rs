//! The real program as a child process: started on data of one's own, killed, started again.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::api::Api;

/// How long a start may take before the test gives up. Tests hold starts to narrower bounds themselves.
const START_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// One Caudal on a port and a folder of its own. Killed when dropped.
#[derive(Debug)]
pub struct Server {
    binary: PathBuf,
    home: TempDir,
    port: u16,
    store: String,
    broker: String,
    topics: String,
    roles: String,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Server {
    /// A server that is not started yet: SQLite and the embedded topic. `binary` is `env!("CARGO_BIN_EXE_caudal")`.
    pub fn new(binary: &str) -> Result<Self> {
        Ok(Self {
            binary: binary.into(),
            home: tempfile::Builder::new().prefix("caudal-test").tempdir()?,
            port: free_port()?,
            store: "sqlite:caudal.db".to_owned(),
            broker: "embedded:".to_owned(),
            topics: String::new(),
            roles: "api,worker".to_owned(),
            environment: Vec::new(),
            child: None,
        })
    }

    pub fn store(mut self, url: impl Into<String>) -> Self {
        self.store = url.into();
        self
    }

    pub fn broker(mut self, url: impl Into<String>) -> Self {
        self.broker = url.into();
        self
    }

    /// Only some of the roles. Without `api` nothing tells when it is ready: [`spawn`](Self::spawn) it.
    pub fn roles(mut self, roles: &str) -> Self {
        self.roles = roles.to_owned();
        self
    }

    /// Adds a topic. `settings` are lines for its section of `caudal.toml`.
    pub fn topic(mut self, name: &str, schema: Option<&str>, settings: &str) -> Self {
        self.set_topic(name, schema, settings);
        self
    }

    /// Adds a topic, or gives it another schema, from the next start on.
    pub fn set_topic(&mut self, name: &str, schema: Option<&str>, settings: &str) {
        let section = format!("[topics.\"{name}\"]\n");
        if !self.topics.contains(&section) {
            self.topics.push_str(&section);
            if schema.is_some() {
                self.topics.push_str(&format!("schema = \"{name}.schema.json\"\n"));
            }
            self.topics.push_str(&format!("{settings}\n"));
        }
        if let Some(schema) = schema {
            std::fs::write(self.home.path().join(format!("{name}.schema.json")), schema)
                .expect("a schema can be written");
        }
    }

    /// Sets an environment variable from the next start on.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.set_env(name, value);
        self
    }

    pub fn set_env(&mut self, name: &str, value: impl Into<String>) {
        self.unset_env(name);
        self.environment.push((name.to_owned(), value.into()));
    }

    pub fn unset_env(&mut self, name: &str) {
        self.environment.retain(|(known, _)| known != name);
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn api(&self) -> Api {
        Api::new(self.url()).expect("an HTTP client can be made")
    }

    /// What it wrote to standard error, over all starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    fn tail_of_log(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// The program with this server's configuration and nothing else of ours in its environment.
    pub fn command(&self, args: &[&str]) -> Result<Command> {
        let config = self.home.path().join("caudal.toml");
        std::fs::write(&config, &self.topics)?;
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CAUDAL_") || name == "DATABASE_URL") {
            command.env_remove(name);
        }
        command
            .args(args)
            .current_dir(self.home.path())
            .env("CAUDAL_CONFIG", config)
            .env("CAUDAL_DATA_DIR", self.data_dir())
            .env("CAUDAL_HTTP__LISTEN", format!("127.0.0.1:{}", self.port))
            .env("CAUDAL_STORE__URL", &self.store)
            .env("CAUDAL_BROKER__URL", &self.broker)
            .env("CAUDAL_URL", self.url())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Runs one of the program's other commands to its end, against this server.
    pub fn run(&self, args: &[&str]) -> Result<std::process::Output> {
        Ok(self.command(args)?.output()?)
    }

    /// Starts the process without waiting for it.
    pub fn spawn(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "it runs already");
        let log = File::options().append(true).create(true).open(self.home.path().join("log"))?;
        let mut command = self.command(&["serve", "--role", &self.roles])?;
        command.stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("starting caudal")?);
        Ok(())
    }

    /// Starts it and returns how long it took until it was ready.
    pub async fn start(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.spawn()?;
        self.ready(begun).await
    }

    async fn ready(&mut self, begun: Instant) -> Result<Duration> {
        let api = self.api();
        loop {
            if let Ok(reply) = api.get("/readyz").await
                && reply.status == 200
            {
                return Ok(begun.elapsed());
            }
            if let Some(status) = self.child.as_mut().context("not started")?.try_wait()? {
                self.child = None;
                bail!("it ended with {status} instead of getting ready:\n{}", self.tail_of_log());
            }
            ensure!(begun.elapsed() < START_WITHIN, "not ready within {START_WITHIN:?}:\n{}", self.tail_of_log());
            tokio::time::sleep(POLL).await;
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("not started")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Waits for it to end by itself; `None` when it still runs after `patience`.
    pub async fn wait(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().context("not started")?.try_wait()? {
                self.child = None;
                return Ok(Some(status));
            }
            if begun.elapsed() > patience {
                return Ok(None);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Puts it to sleep: it notices nothing until it is woken.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("not started")?;
        let pid = Pid::from_raw(child.id() as i32).context("a process has an id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// SIGTERM, then waits for the end.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let ended = self.wait(START_WITHIN).await?;
        ended.with_context(|| format!("it still runs {START_WITHIN:?} after SIGTERM:\n{}", self.tail_of_log()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            let _ = self.kill();
        }
        if std::thread::panicking() {
            eprintln!("--- the end of the log of {} ---\n{}", self.url(), self.tail_of_log());
        }
    }
}

/// A port below those that the system gives to clients: a client that tries to reach a server which is down could otherwise
/// be given the server's own port and connect to itself.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 1_000) as u16 * 20;
    for _ in 0..2_000 {
        let port = 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port from 10000 to 29999")
}
