//! Servers that are started, asked and stopped; programs that are run and timed.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// A server of ours: told to stop and waited for on drop.
#[derive(Debug)]
pub(super) struct Service {
    name: String,
    child: Child,
    stop: Signal,
}

impl Service {
    /// Starts `command` so that it ends with us, however we end. `stop` is the signal that it drains on.
    pub(super) fn start(name: &str, command: &Command, log: &Path, stop: Signal) -> Result<Self> {
        // setpriv execs: the child is the server itself, and the kernel tells it when we are gone.
        let mut tied = Command::new("setpriv");
        tied.args(["--pdeathsig", "KILL"]);
        Self::start_tied(name, tied.arg(command.get_program()).args(command.get_args()), command, log, stop)
    }

    fn start_tied(name: &str, tied: &mut Command, from: &Command, log: &Path, stop: Signal) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        for (key, value) in from.get_envs() {
            match value {
                Some(value) => tied.env(key, value),
                None => tied.env_remove(key),
            };
        }
        tied.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = tied.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, stop })
    }

    /// A server that must not run as root gets another user.
    pub(super) fn start_as(
        user: Option<&str>,
        name: &str,
        command: &Command,
        log: &Path,
        stop: Signal,
    ) -> Result<Self> {
        let Some(user) = user else { return Self::start(name, command, log, stop) };
        let mut tied = Command::new("setpriv");
        tied.args(["--reuid", user, "--regid", user, "--init-groups", "--pdeathsig", "INT"]);
        Self::start_tied(name, tied.arg(command.get_program()).args(command.get_args()), command, log, stop)
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails when the server has ended by itself.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended: {status}", self.name),
            None => Ok(()),
        }
    }

    /// Waits until `ready` says so.
    pub(super) fn wait(&mut self, bound: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let start = Instant::now();
        while !ready() {
            self.check()?;
            ensure!(start.elapsed() < bound, "{} does not answer after {bound:?}", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, self.stop);
        }
        for _ in 0..600 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// `GET`, with the status and the body; one connection a request.
pub(super) fn http_get(port: u16, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status line")?;
    Ok((status, body.to_owned()))
}

pub(super) fn answers(port: u16, path: &str) -> bool {
    matches!(http_get(port, path), Ok((200, _)))
}

/// Fails with the way to install a program that is not there.
pub(super) fn need(program: &str, package: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
        true => Ok(()),
        false => bail!("{program} is missing: apt-get install {package}"),
    }
}

/// Runs a program to its end with nothing to read; its output, and how long it took.
pub(super) fn timed(command: &mut Command) -> Result<(String, f64)> {
    command.stdin(Stdio::null());
    let start = Instant::now();
    let output = crate::output_of(command)?;
    Ok((output, start.elapsed().as_secs_f64()))
}
