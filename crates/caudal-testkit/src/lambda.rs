//! Functions of AWS Lambda without AWS: cargo-lambda's runtime emulator, and a runtime API of our own for what the emulator
//! cannot do (choose a deadline, tell when a function first asks for work).

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use crate::api::Api;
use crate::emulator::program;
use crate::server::free_port;

/// The name under which the emulator knows a function that it has not started itself.
const NAME: &str = "_";
const START_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// One function, run by an emulator of its own. Killed when dropped.
#[derive(Debug)]
pub struct Function {
    emulator: Child,
    process: Process,
    api: Api,
}

/// What an invocation came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Invoked {
    Answer(Value),
    /// An error of the function: its type and message.
    Error(String, String),
}

impl Invoked {
    /// The answer.
    ///
    /// # Panics
    /// When there is none.
    pub fn answer(self) -> Value {
        match self {
            Self::Answer(answer) => answer,
            Self::Error(kind, message) => panic!("the function failed: {kind}: {message}"),
        }
    }
}

impl Function {
    /// Starts a program as Lambda does: called `bootstrap`, without arguments, in a folder that holds `files`, with nothing of
    /// ours in its environment but `environment`.
    ///
    /// # Errors
    /// Names the command that installs the emulator when it is missing.
    pub async fn start(binary: &str, files: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("caudal-lambda").tempdir()?;
        let port = free_port()?;
        let emulator = emulator(home.path(), port)?;
        let endpoint = format!("http://127.0.0.1:{port}/.rt");
        let process = Process::new(binary, home, files, environment);
        let mut function = Self { emulator, process: process?, api: Api::new(format!("http://127.0.0.1:{port}"))? };
        function.await_emulator(port).await?;
        function.process.spawn(&endpoint)?;
        Ok(function)
    }

    async fn await_emulator(&mut self, port: u16) -> Result<()> {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if let Some(status) = self.emulator.try_wait()? {
                let log = std::fs::read_to_string(self.process.home.path().join("emulator.log"))?;
                bail!("the emulator ended with {status}: {log}");
            }
            ensure!(begun.elapsed() < START_WITHIN, "the emulator does not listen");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Invokes it with an event, as `aws lambda invoke` does.
    pub async fn invoke(&self, event: &Value) -> Result<Invoked> {
        let path = format!("/2015-03-31/functions/{NAME}/invocations");
        let reply = self.api.post(&path, &[("content-type", "application/json")], event.to_string()).await;
        let reply = reply.with_context(|| self.log())?;
        let body = reply.json();
        match body["errorType"].as_str() {
            Some(kind) => {
                let message = body["errorMessage"].as_str().unwrap_or_default();
                Ok(Invoked::Error(kind.to_owned(), message.to_owned()))
            }
            None => {
                ensure!(reply.status == 200, "{} {}\n{}", reply.status, reply.text(), self.log());
                Ok(Invoked::Answer(body))
            }
        }
    }

    /// Where an SDK finds it, as the function `_`.
    pub fn url(&self) -> &str {
        &self.api.url
    }

    /// HTTP requests, which the emulator turns into events as a function URL does.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// What it wrote to standard error.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Stops it from running, as Lambda does between invocations.
    pub fn freeze(&self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    pub fn thaw(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// SIGKILL.
    pub fn kill(&self) -> Result<()> {
        self.process.signal(Signal::KILL)
    }

    /// Whether the process runs, or is stopped and could go on.
    pub fn is_alive(&self) -> bool {
        self.process.is_alive()
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}

fn emulator(home: &Path, port: u16) -> Result<Child> {
    let program = program("CAUDAL_TEST_CARGO_LAMBDA", "lambda-1.9.2", "cargo-lambda")?;
    // It wants to be in a Cargo project, even where it has nothing to build.
    let project = home.join("project");
    std::fs::create_dir_all(project.join("src"))?;
    std::fs::write(project.join("src/main.rs"), "fn main() {}\n")?;
    std::fs::write(project.join("Cargo.toml"), "[package]\nname = \"none\"\nedition = \"2024\"\n[workspace]\n")?;
    let log = File::create(home.join("emulator.log"))?;
    let mut command = Command::new(&program);
    command
        .args(["lambda", "watch", "--only-lambda-apis", "--invoke-address", "127.0.0.1"])
        .args(["--invoke-port", &port.to_string()])
        .current_dir(project)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    command.spawn().with_context(|| format!("starting {}", program.display()))
}

/// A function's process.
#[derive(Debug)]
struct Process {
    command: Command,
    home: TempDir,
    child: Option<Child>,
}

impl Process {
    fn new(binary: &str, home: TempDir, files: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<Self> {
        let task = home.path().join("task");
        std::fs::create_dir(&task)?;
        for (name, text) in files {
            std::fs::write(task.join(name), text)?;
        }
        let bootstrap = task.join("bootstrap");
        std::os::unix::fs::symlink(binary, &bootstrap)?;
        let mut command = Command::new(bootstrap);
        command
            .env_clear()
            .env("AWS_LAMBDA_FUNCTION_NAME", NAME)
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
            .envs(environment.iter().copied())
            .current_dir(task)
            .stdin(Stdio::null());
        Ok(Self { command, home, child: None })
    }

    fn spawn(&mut self, endpoint: &str) -> Result<()> {
        let log = File::create(self.home.path().join("log"))?;
        self.command.env("AWS_LAMBDA_RUNTIME_API", endpoint).stdout(log.try_clone()?).stderr(log);
        self.child = Some(self.command.spawn()?);
        Ok(())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// What has ended and was not waited for is a zombie.
    fn is_alive(&self) -> bool {
        let Some(child) = &self.child else { return false };
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
        state.is_some_and(|state| !matches!(state, "Z" | "X"))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.as_ref().context("not started")?.id();
        Ok(kill_process(Pid::from_raw(id as i32).context("a process has an id")?, signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the log of the function ---\n{}", self.log());
        }
    }
}

/// Lambda's runtime API, played by the test itself: one function, one invocation after the other.
#[derive(Debug)]
pub struct RuntimeApi {
    requests: mpsc::Receiver<Request>,
    /// The function asked for work and waits.
    next: Request,
    process: Process,
    /// From the start of the process to its first request for work.
    pub init: Duration,
}

/// A request of the function, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) body: Vec<u8>,
    pub(crate) answer: oneshot::Sender<String>,
}

const NEXT: &str = "GET /2018-06-01/runtime/invocation/next ";

impl RuntimeApi {
    /// Starts a function and waits until it asks for work.
    pub async fn start(binary: &str, files: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("caudal-lambda").tempdir()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = listener.local_addr()?.to_string();
        let (to, mut requests) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(BufStream::new(connection), to.clone()));
            }
        });
        let mut process = Process::new(binary, home, files, environment)?;
        let begun = Instant::now();
        process.spawn(&endpoint)?;
        let next = request(&mut requests, START_WITHIN).await.with_context(|| process.log())?;
        ensure!(next.line.starts_with(NEXT), "the first request was {}", next.line);
        Ok(Self { requests, next, process, init: begun.elapsed() })
    }

    /// Hands it an event that must be answered `within` some time, and returns what it says.
    pub async fn invoke(&mut self, event: &Value, within: Duration) -> Result<Invoked> {
        let deadline = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)? + within;
        let event = event.to_string();
        let work = format!(
            "HTTP/1.1 200 OK\r\nLambda-Runtime-Aws-Request-Id: r-1\r\nLambda-Runtime-Deadline-Ms: {}\r\nContent-Type: \
             application/json\r\nContent-Length: {}\r\n\r\n{event}",
            deadline.as_millis(),
            event.len()
        );
        let (answer, _) = oneshot::channel();
        std::mem::replace(&mut self.next.answer, answer).send(work).map_err(|_| anyhow!("the function hung up"))?;
        let said = request(&mut self.requests, within + START_WITHIN).await.with_context(|| self.log())?;
        let body: Value = serde_json::from_slice(&said.body)?;
        let invoked = match said.line.split(' ').nth(1).and_then(|path| path.rsplit('/').next()) {
            Some("response") => Invoked::Answer(body),
            Some("error") => {
                let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
                Invoked::Error(text("errorType"), text("errorMessage"))
            }
            _ => bail!("the function said {}", said.line),
        };
        let _ = said.answer.send("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_owned());
        self.next = request(&mut self.requests, START_WITHIN).await.with_context(|| self.log())?;
        ensure!(self.next.line.starts_with(NEXT), "instead of asking for more it said {}", self.next.line);
        Ok(invoked)
    }

    pub fn log(&self) -> String {
        self.process.log()
    }
}

async fn request(requests: &mut mpsc::Receiver<Request>, within: Duration) -> Result<Request> {
    let received = tokio::time::timeout(within, requests.recv()).await.context("the function says nothing")?;
    received.context("the function's API ended")
}

/// One connection of the function; it may have several, one after the other in use.
pub(crate) async fn serve(mut connection: BufStream<TcpStream>, to: mpsc::Sender<Request>) -> Result<()> {
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let mut length = 0;
        let mut header = String::new();
        while connection.read_line(&mut header).await? > "\r\n".len() {
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
            header.clear();
        }
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await?;
        let (answer, answered) = oneshot::channel();
        to.send(Request { line, body, answer }).await?;
        connection.write_all(answered.await?.as_bytes()).await?;
        connection.flush().await?;
    }
}
