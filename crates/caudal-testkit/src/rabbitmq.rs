//! A real RabbitMQ for tests: a node of its own on free ports of the loopback, with its own port mapper, cookie and data,
//! which can be killed and started again. Its data is on disk, because durability is among the subjects.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::daemon::certificates;

/// Not the wrapper in /usr/sbin, which changes the user and reads the machine's own settings.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";
/// A start takes about six seconds on an idle machine.
const START_WITHIN: Duration = Duration::from_secs(120);
/// The largest message that the server takes, so that a test can exceed it.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The server that the tests of one process share. Started on first use, gone with the process.
pub fn shared() -> Result<&'static RabbitMq> {
    static OWN: OnceLock<Result<RabbitMq, String>> = OnceLock::new();
    match OWN.get_or_init(|| RabbitMq::start().map_err(|e| format!("{e:#}"))) {
        Ok(server) => Ok(server),
        Err(why) => bail!("cannot start RabbitMQ for tests: {why}"),
    }
}

/// What a producer does that never heard of Caudal: publishes with another client, and waits until it is confirmed.
#[cfg(feature = "rabbitmq")]
pub async fn publish_foreign(
    url: &str,
    exchange: &str,
    routing_key: &str,
    properties: lapin::BasicProperties,
    body: &[u8],
) -> Result<()> {
    let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(Default::default()).await?;
    let options = lapin::options::BasicPublishOptions { mandatory: true, ..Default::default() };
    let sent = channel.basic_publish(exchange.into(), routing_key.into(), options, body, properties).await?;
    let confirmation = sent.await?;
    ensure!(confirmation.is_ack() && confirmation.take_message().is_none(), "no queue took it");
    Ok(connection.close(200, "".into()).await?)
}

#[cfg(feature = "rabbitmq")]
pub use lapin;

/// One node. Killed and removed on drop, or when the process ends however it ends.
#[derive(Debug)]
pub struct RabbitMq {
    home: PathBuf,
    ports: Ports,
    mapper: Mutex<Child>,
    server: Mutex<Option<Child>>,
    warden: Warden,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    amqp: u16,
    amqps: u16,
    distribution: u16,
    mapper: u16,
}

impl RabbitMq {
    /// # Errors
    /// Names the command that installs the server when it is missing.
    pub fn start() -> Result<Self> {
        ensure!(Path::new(PROGRAMS).exists(), "{PROGRAMS} is missing: apt-get install rabbitmq-server");
        let home = tempfile::Builder::new().prefix("caudal-rabbitmq").tempdir()?.keep();
        let warden = Warden::new(&home)?;
        let ports = Ports::free()?;
        certificates(&home)?;
        std::fs::write(home.join("plugins"), "[].")?;
        std::fs::write(home.join("rabbitmq.conf"), settings(&home, ports))?;
        let mut mapper = Command::new("/usr/bin/epmd");
        mapper.args(["-port", &ports.mapper.to_string(), "-address", "127.0.0.1"]);
        let mapper = Mutex::new(child(&mut mapper, &home.join("epmd.log"))?);
        let node = Self { home, ports, mapper, server: Mutex::new(None), warden };
        node.restart()?;
        Ok(node)
    }

    /// The administrator's URL of the default virtual host.
    pub fn url(&self) -> String {
        self.url_of("guest:guest", "/")
    }

    /// A URL with other credentials (`user:password`) or another virtual host.
    pub fn url_of(&self, credentials: &str, vhost: &str) -> String {
        format!("amqp://{credentials}@127.0.0.1:{}/{}", self.ports.amqp, vhost.replace('/', "%2f"))
    }

    /// The administrator's URL over TLS. The certificate is for `localhost`, signed by [`authority`](Self::authority).
    pub fn tls_url(&self) -> String {
        format!("amqps://guest:guest@localhost:{}/%2f", self.ports.amqps)
    }

    /// The file of the authority that signed the server's certificate.
    pub fn authority(&self) -> PathBuf {
        self.home.join("ca.crt")
    }

    /// Runs `rabbitmqctl` and returns what it printed.
    pub fn control(&self, args: &[&str]) -> Result<String> {
        let output = self.program("rabbitmqctl").arg("-q").args(args).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "rabbitmqctl {args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        Ok(said)
    }

    /// Makes an account with permissions for the default virtual host: patterns of what it may configure, write and read.
    pub fn add_user(&self, name: &str, password: &str, permissions: [&str; 3]) -> Result<()> {
        self.control(&["add_user", name, password])?;
        let [configure, write, read] = permissions;
        self.control(&["set_permissions", name, configure, write, read]).map(drop)
    }

    /// SIGKILL: nothing is flushed, clients are cut off.
    pub fn kill(&self) {
        if let Some(mut server) = lock(&self.server).take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Holds it where it is: it answers nothing, and its connections stay.
    pub fn hold(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    pub fn let_go(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = lock(&self.server).as_ref().map(|server| server.id() as i32).and_then(Pid::from_raw);
        Ok(kill_process(pid.context("it does not run")?, signal)?)
    }

    /// Starts the node over the data it has, and waits until it takes connections.
    pub fn restart(&self) -> Result<()> {
        self.kill();
        let server = child(&mut self.program("rabbitmq-server"), &self.home.join("console.log"))?;
        std::fs::write(self.home.join("pids"), format!("{} {}", lock(&self.mapper).id(), server.id()))?;
        *lock(&self.server) = Some(server);
        self.wait_until_it_listens()
    }

    fn wait_until_it_listens(&self) -> Result<()> {
        let deadline = Instant::now() + START_WITHIN;
        while std::net::TcpStream::connect(("127.0.0.1", self.ports.amqp)).is_err() {
            let ended = lock(&self.server).as_mut().and_then(|server| server.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > deadline {
                bail!("RabbitMQ does not listen on port {} ({ended:?}): {}", self.ports.amqp, self.tail_of_log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn tail_of_log(&self) -> String {
        let log = std::fs::read_to_string(self.home.join("console.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// One of the server's programs, with everything that the machine's own node would use moved away.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(Path::new(PROGRAMS).join(name));
        let at = |name: &str| self.home.join(name);
        command
            .current_dir(&self.home)
            .env("HOME", &self.home) // the cookie
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.ports.mapper.to_string())
            .env("RABBITMQ_NODENAME", format!("caudal{}@localhost", self.ports.amqp))
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", at("none"))
            .env("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", at("none.config"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins"))
            .env("RABBITMQ_MNESIA_BASE", at("data"))
            .env("RABBITMQ_QUORUM_DIR", at("quorum"))
            .env("RABBITMQ_LOG_BASE", at("log"))
            .env("RABBITMQ_PID_FILE", at("pid"))
            // The script becomes the server instead of waiting beside it, so that a kill meets the server.
            .env("detached", "1");
        command
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.kill();
        let _ = lock(&self.mapper).kill();
        let _ = lock(&self.mapper).wait();
        // Their numbers may be others' by now.
        let _ = std::fs::remove_file(self.home.join("pids"));
        self.warden.end();
    }
}

impl Ports {
    fn free() -> Result<Self> {
        // All are held until all are known, so that they differ.
        let held: Vec<TcpListener> =
            (0..4).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
        let port = |index: usize| -> Result<u16> { Ok(held[index].local_addr()?.port()) };
        Ok(Self { amqp: port(0)?, amqps: port(1)?, distribution: port(2)?, mapper: port(3)? })
    }
}

fn settings(home: &Path, ports: Ports) -> String {
    let home = home.display();
    format!(
        "listeners.tcp.1 = 127.0.0.1:{}\nlisteners.ssl.1 = 127.0.0.1:{}\nssl_options.cacertfile = {home}/ca.crt\n\
         ssl_options.certfile = {home}/server.crt\nssl_options.keyfile = {home}/server.key\n\
         ssl_options.verify = verify_none\nssl_options.fail_if_no_peer_cert = false\n\
         max_message_size = {MESSAGE_BYTES_MAX}\nlog.file.level = warning\n",
        ports.amqp, ports.amqps
    )
}

/// Starts a server process whose output goes to a file: inherited pipes would keep whoever reads ours waiting.
fn child(command: &mut Command, log: &Path) -> Result<Child> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // Its own group: an interrupt of the test run is for the warden to act upon.
    command.process_group(0).spawn().with_context(|| format!("starting {command:?}"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A shell that waits for us to end: its input closes with our process, however that dies. Then it kills what is left and
/// removes the files.
#[derive(Debug)]
struct Warden(Option<Child>);

impl Warden {
    fn new(home: &Path) -> Result<Self> {
        let script = format!("read _; kill -9 $(cat '{0}/pids'); sleep 0.1; rm -rf '{0}'", home.display());
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(script).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(Some(shell.process_group(0).spawn()?)))
    }

    fn end(&mut self) {
        if let Some(mut shell) = self.0.take() {
            drop(shell.stdin.take());
            let _ = shell.wait();
        }
    }
}
