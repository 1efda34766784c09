//! moto: SNS, SQS and DynamoDB of AWS, emulated in memory. Exact, and slow: each request costs in proportion to what lies in the
//! queue, so keep fewer than a hundred messages in one. It checks no permissions and no signatures, and an index of a table is
//! never behind the table. It is started by `moto.py`, without which it loses and doubles messages, and lets two conditional
//! writes win, when several requests meet.

use std::net::TcpListener;
use std::sync::OnceLock;

use anyhow::{Result, bail};

use crate::daemon::Daemon;
use crate::emulator::{Road, program, wait_for};

const SCRIPT: &str = include_str!("moto.py");
/// `tests/requirements/moto.txt` pins it.
const ENVIRONMENT: &str = "moto-5.2.5";

/// The server that the tests of one process share. Started on first use, gone with the process.
pub fn shared() -> Result<&'static Moto> {
    static OWN: OnceLock<Result<Moto, String>> = OnceLock::new();
    match OWN.get_or_init(|| Moto::start().map_err(|e| format!("{e:#}"))) {
        Ok(server) => Ok(server),
        Err(why) => bail!("cannot start moto for tests: {why}"),
    }
}

/// One server. Killed on drop, or when the process ends however it ends.
#[derive(Debug)]
pub struct Moto {
    daemon: Daemon,
    /// Where it calls services of AWS, if not at itself.
    calls_at: Option<u16>,
}

impl Moto {
    /// # Errors
    /// Names the commands that install it when it is missing.
    pub fn start() -> Result<Self> {
        Self::start_with(None)
    }

    /// One whose state machines call functions at this port.
    pub(crate) fn calling_back(port: u16) -> Result<Self> {
        Self::start_with(Some(port))
    }

    fn start_with(calls_at: Option<u16>) -> Result<Self> {
        program("CAUDAL_TEST_MOTO", ENVIRONMENT, "moto_server")?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let moto = Self { daemon: Daemon::new("env", port)?, calls_at };
        moto.restart()?;
        Ok(moto)
    }

    /// Where AWS's clients find it.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.daemon.port())
    }

    /// What it wrote.
    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }

    /// A way there that can be cut, for an outage of AWS.
    pub fn road(&self) -> Result<Road> {
        Road::to(self.daemon.port())
    }

    /// SIGKILL. It forgets everything, queues and topics included.
    pub fn kill(&self) {
        self.daemon.kill();
    }

    /// Starts it again, empty, at the same port.
    pub fn restart(&self) -> Result<()> {
        let python = program("CAUDAL_TEST_MOTO", ENVIRONMENT, "moto_server")?.with_file_name("python");
        let (script, port) = (self.daemon.home().join("serve.py"), self.daemon.port());
        std::fs::write(&script, SCRIPT)?;
        let (python, script) = (python.display().to_string(), script.display().to_string());
        let calls_at = format!("MOTO_PORT={}", self.calls_at.unwrap_or(port));
        self.daemon.start(&[
            calls_at,
            python,
            script,
            "-H".into(),
            "127.0.0.1".into(),
            "-p".into(),
            port.to_string(),
        ])?;
        wait_for(port, "/moto-api/data.json")
    }
}
