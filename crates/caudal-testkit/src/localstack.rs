//! LocalStack in host mode: SNS and SQS of AWS, emulated in memory a second time by other people, and faster than moto. It
//! checks no permissions and no signatures.

use std::net::TcpListener;
use std::sync::OnceLock;

use anyhow::{Result, bail};

use crate::daemon::Daemon;
use crate::emulator::{Road, program, wait_for};

/// `tests/requirements/localstack.txt` pins it.
const ENVIRONMENT: &str = "localstack-4.9.2";

/// The server that the tests of one process share. Started on first use, gone with the process.
pub fn shared() -> Result<&'static LocalStack> {
    static OWN: OnceLock<Result<LocalStack, String>> = OnceLock::new();
    match OWN.get_or_init(|| LocalStack::start().map_err(|e| format!("{e:#}"))) {
        Ok(server) => Ok(server),
        Err(why) => bail!("cannot start LocalStack for tests: {why}"),
    }
}

/// One server. Killed and removed on drop, or when the process ends however it ends.
#[derive(Debug)]
pub struct LocalStack {
    daemon: Daemon,
}

impl LocalStack {
    /// # Errors
    /// Names the commands that install it when it is missing.
    pub fn start() -> Result<Self> {
        program("CAUDAL_TEST_LOCALSTACK", ENVIRONMENT, "python")?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let localstack = Self { daemon: Daemon::new("env", port)? };
        localstack.restart()?;
        Ok(localstack)
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
        let python = program("CAUDAL_TEST_LOCALSTACK", ENVIRONMENT, "python")?;
        let (home, port) = (self.daemon.home().display(), self.daemon.port());
        let settings = [
            format!("HOME={home}"),
            format!("FILESYSTEM_ROOT={home}/files"),
            format!("GATEWAY_LISTEN=127.0.0.1:{port}"),
            // The other one binds every address.
            "GATEWAY_SERVER=hypercorn".to_owned(),
            "SERVICES=sns,sqs".to_owned(),
            "EAGER_SERVICE_LOADING=1".to_owned(),
            // Nothing leaves the machine.
            "DISABLE_EVENTS=1".to_owned(),
            "SKIP_SSL_CERT_DOWNLOAD=1".to_owned(),
            "DNS_ADDRESS=0".to_owned(),
            "LS_LOG=warning".to_owned(),
        ];
        let run = [python.display().to_string(), "-m".into(), "localstack.runtime.main".into()];
        self.daemon.start(&[&settings[..], &run[..]].concat())?;
        wait_for(port, "/_localstack/health")
    }
}
