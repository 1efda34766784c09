//! A real NATS server with JetStream for tests, which can be killed and started again over its data on disk.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Result, bail};

use crate::daemon::{Daemon, certificates};
use crate::server::free_port;

/// The largest message that the server takes, so that a test can exceed it.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The server that the tests of one process share. Started on first use, gone with the process.
pub fn shared() -> Result<&'static Nats> {
    static OWN: OnceLock<Result<Nats, String>> = OnceLock::new();
    match OWN.get_or_init(|| Nats::start().map_err(|e| format!("{e:#}"))) {
        Ok(server) => Ok(server),
        Err(why) => bail!("cannot start NATS for tests: {why}"),
    }
}

/// One server, on free ports of the loopback.
#[derive(Debug)]
pub struct Nats {
    daemon: Daemon,
    monitoring: u16,
}

impl Nats {
    /// # Errors
    /// Names the command that installs the server when it is missing.
    pub fn start() -> Result<Self> {
        Self::with("")
    }

    /// A server whose configuration has more lines. `{home}` in them is its folder, which holds certificates.
    pub fn with(settings: &str) -> Result<Self> {
        let server = Self { daemon: Daemon::new("nats-server", free_port()?)?, monitoring: free_port()? };
        let home = server.daemon.home();
        if settings.contains("{home}") {
            certificates(home)?;
        }
        let settings = settings.replace("{home}", &home.display().to_string());
        let (port, monitoring) = (server.daemon.port(), server.monitoring);
        let config = format!(
            "listen: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitoring}\"\nmax_payload: {MESSAGE_BYTES_MAX}\n\
             jetstream {{ store_dir: \"{}/data\" }}\n{settings}\n",
            home.display()
        );
        std::fs::write(home.join("nats.conf"), config)?;
        server.restart()?;
        Ok(server)
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.daemon.port())
    }

    /// With credentials: `user:password`, or a token.
    pub fn url_of(&self, credentials: &str) -> String {
        format!("nats://{credentials}@127.0.0.1:{}", self.daemon.port())
    }

    pub fn tls_url(&self) -> String {
        format!("tls://localhost:{}", self.daemon.port())
    }

    /// Where its monitoring pages are.
    pub fn monitoring(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitoring)
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
        let config = self.daemon.home().join("nats.conf").display().to_string();
        self.daemon.start(&["-c".to_owned(), config])
    }

    /// SIGSTOP: it answers nothing, and its connections stay.
    pub fn hold(&self) -> Result<()> {
        self.daemon.hold()
    }

    pub fn let_go(&self) -> Result<()> {
        self.daemon.let_go()
    }
}
