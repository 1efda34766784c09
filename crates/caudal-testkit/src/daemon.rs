//! A server program over a folder of its own: killed, held, started again, and gone with the process that started it.

use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

const START_WITHIN: Duration = Duration::from_secs(60);

/// Killed and removed on drop, or when the process ends however it ends.
#[derive(Debug)]
pub(crate) struct Daemon {
    program: PathBuf,
    home: PathBuf,
    port: u16,
    child: Mutex<Option<Child>>,
    warden: Option<Child>,
}

impl Daemon {
    /// A program that is not started yet, and a new folder on disk for it.
    ///
    /// # Errors
    /// Names the command that installs the program when it is missing: a suite that silently tests something else is no test.
    pub(crate) fn new(program: &str, port: u16) -> Result<Self> {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&folders).chain(["/usr/sbin".into(), "/usr/bin".into()]);
        let found = folders.map(|folder| folder.join(program)).find(|file| file.exists());
        let program = found.with_context(|| format!("{program} is missing: apt-get install {program}"))?;
        let home = tempfile::Builder::new().prefix("caudal-daemon").tempdir()?.keep();
        let warden = Some(warden(&home)?);
        Ok(Self { program, home, port, child: Mutex::new(None), warden })
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Starts it over the data it has, and waits until it takes connections.
    pub(crate) fn start(&self, args: &[String]) -> Result<()> {
        self.kill();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.home.join("log"))?;
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(&self.home).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Its own group: an interrupt of the test run is for the warden to act upon.
        let child = command.process_group(0).spawn().with_context(|| format!("starting {command:?}"))?;
        std::fs::write(self.home.join("pid"), child.id().to_string())?;
        *self.child() = Some(child);
        let deadline = Instant::now() + START_WITHIN;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.child().as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > deadline {
                bail!("{} does not listen on port {} ({ended:?}): {}", self.program.display(), self.port, self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// SIGKILL: nothing is flushed, clients are cut off.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Holds it where it is: it answers nothing, and its connections stay.
    /// Returns when it has stopped: the signal is delivered to one thread of it after another.
    pub(crate) fn hold(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let pid = self.child().as_ref().map(Child::id).context("it does not run")?;
        while !threads_have_stopped(pid)? {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    pub(crate) fn let_go(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.child().as_ref().map(|child| child.id() as i32).and_then(Pid::from_raw);
        Ok(kill_process(pid.context("it does not run")?, signal)?)
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn log(&self) -> String {
        let log = std::fs::read_to_string(self.home.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if let Some(mut warden) = self.warden.take() {
            drop(warden.stdin.take());
            let _ = warden.wait();
        }
    }
}

/// A shell that waits for us to end: its input closes with our process, however that dies. Then it kills what is left and
/// removes the files.
fn warden(home: &Path) -> Result<Child> {
    let script = format!("read _; kill -9 $(cat '{0}/pid'); sleep 0.1; rm -rf '{0}'", home.display());
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(script).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(shell.process_group(0).spawn()?)
}

/// Writes a certificate for `localhost` (`server.crt`, `server.key`) and the authority that signed it (`ca.crt`).
pub(crate) fn certificates(home: &Path) -> Result<()> {
    std::fs::write(home.join("names"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")?;
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let openssl = |args: &[&str]| -> Result<()> {
        let output = Command::new("openssl").current_dir(home).args(args).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    let authority =
        ["req", "-x509", "-days", "30", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.crt"];
    openssl(&[&authority, &new_key[..]].concat())?;
    openssl(
        &[&["req", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"], &new_key[..]].concat(),
    )?;
    let sign = ["x509", "-req", "-days", "30", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key"];
    openssl(&[&sign[..], &["-CAcreateserial", "-extfile", "names", "-out", "server.crt"]].concat())
}

/// Whether the kernel calls every thread of a process stopped (proc(5), `stat`).
fn threads_have_stopped(pid: u32) -> Result<bool> {
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = std::fs::read_to_string(thread?.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        if !matches!(state, Some('T' | 't') | None) {
            return Ok(false);
        }
    }
    Ok(true)
}
