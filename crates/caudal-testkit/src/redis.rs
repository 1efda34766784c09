//! A real Redis for tests, which can be killed and started again over its data on disk.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};

use crate::daemon::{Daemon, certificates};
use crate::server::free_port;

/// The server that the tests of one process share. Started on first use, gone with the process.
pub fn shared() -> Result<&'static Redis> {
    static OWN: OnceLock<Result<Redis, String>> = OnceLock::new();
    match OWN.get_or_init(|| Redis::start().map_err(|e| format!("{e:#}"))) {
        Ok(server) => Ok(server),
        Err(why) => bail!("cannot start Redis for tests: {why}"),
    }
}

/// One server, on a free port of the loopback.
#[derive(Debug)]
pub struct Redis {
    daemon: Daemon,
}

impl Redis {
    /// A server that syncs its append-only file before it confirms.
    ///
    /// # Errors
    /// Names the command that installs the server when it is missing.
    pub fn start() -> Result<Self> {
        Self::with("")
    }

    /// A server whose configuration has more lines, which count more than what is set here. `{home}` in them is its
    /// folder, which holds certificates, and `{port}` its port.
    pub fn with(settings: &str) -> Result<Self> {
        let daemon = Daemon::new("redis-server", free_port()?)?;
        let (home, port) = (daemon.home().display().to_string(), daemon.port().to_string());
        if settings.contains("{home}") {
            certificates(daemon.home())?;
        }
        let settings = settings.replace("{home}", &home).replace("{port}", &port);
        let config = format!(
            "bind 127.0.0.1\nport {port}\ndir {home}\nappendonly yes\nappendfsync always\nsave \"\"\n{settings}\n"
        );
        std::fs::write(daemon.home().join("redis.conf"), config)?;
        let server = Self { daemon };
        server.restart()?;
        Ok(server)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.daemon.port())
    }

    /// With credentials: `user:password`.
    pub fn url_of(&self, credentials: &str) -> String {
        format!("redis://{credentials}@127.0.0.1:{}", self.daemon.port())
    }

    pub fn tls_url(&self) -> String {
        format!("rediss://localhost:{}", self.daemon.port())
    }

    /// What Redis's own client prints for a command.
    pub fn cli(&self, command: &[&str]) -> Result<String> {
        let port = self.daemon.port().to_string();
        let output = Command::new("redis-cli").args(["-e", "-p", &port]).args(command).output();
        let output = output.context("redis-cli is missing: apt-get install redis-tools")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "redis-cli {command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        Ok(said)
    }

    /// The file of the authority that signed its certificate, if it has one.
    pub fn authority(&self) -> PathBuf {
        self.daemon.home().join("ca.crt")
    }

    /// SIGKILL: nothing is flushed, clients are cut off.
    pub fn kill(&self) {
        self.daemon.kill();
    }

    /// Starts it over the data it has, after a kill if it runs.
    pub fn restart(&self) -> Result<()> {
        self.daemon.start(&[self.daemon.home().join("redis.conf").display().to_string()])
    }

    /// SIGSTOP: it answers nothing, and its connections stay.
    pub fn hold(&self) -> Result<()> {
        self.daemon.hold()
    }

    pub fn let_go(&self) -> Result<()> {
        self.daemon.let_go()
    }
}
