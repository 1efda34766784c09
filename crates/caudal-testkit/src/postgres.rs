//! A real PostgreSQL for tests.
//!
//! The server named by `CAUDAL_TEST_POSTGRES` (a URL with a superuser) when that is set; otherwise one of our own, started
//! once a process and gone with it. Durability is among the subjects, so `fsync` stays on.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use tokio_postgres::NoTls;
use uuid::Uuid;

/// The URL of a database that nobody else uses, on the shared server.
pub async fn database() -> Result<String> {
    create_database(&shared_server()?).await
}

/// The URL of the shared server, for tests that need more than a database of it.
pub fn shared_server() -> Result<String> {
    static OWN: OnceLock<Result<Postgres, String>> = OnceLock::new();
    if let Ok(url) = std::env::var("CAUDAL_TEST_POSTGRES") {
        return Ok(url);
    }
    match OWN.get_or_init(|| Postgres::start().map_err(|e| format!("{e:#}"))) {
        Ok(server) => Ok(server.url()),
        Err(why) => bail!("cannot start PostgreSQL for tests: {why}"),
    }
}

/// Makes a database with a fresh name on a server and returns its URL.
pub async fn create_database(server: &str) -> Result<String> {
    let name = format!("t_{}", Uuid::now_v7().simple());
    execute(server, &format!("create database {name}")).await?;
    Ok(with_database(server, &name))
}

/// The URL with its database replaced.
pub fn with_database(url: &str, name: &str) -> String {
    let (url, query) = url.split_once('?').map_or((url, None), |(url, query)| (url, Some(query)));
    let authority = url.find("://").map_or(0, |at| at + 3);
    let base = url[authority..].find('/').map_or(url, |at| &url[..authority + at]);
    query.map_or_else(|| format!("{base}/{name}"), |query| format!("{base}/{name}?{query}"))
}

/// Runs SQL on a connection of its own.
pub async fn execute(url: &str, sql: &str) -> Result<()> {
    let client = client(url).await?;
    client.batch_execute(sql).await.with_context(|| format!("running {sql}"))
}

/// A plain connection, for what a test does behind the store's back.
pub async fn client(url: &str) -> Result<tokio_postgres::Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.with_context(|| format!("connecting to {url}"))?;
    tokio::spawn(connection);
    Ok(client)
}

/// A server of one's own, which can be crashed. Stopped and removed on drop, or when the process ends however it ends.
#[derive(Debug)]
pub struct Postgres {
    home: PathBuf,
    port: u16,
    warden: Warden,
}

impl Postgres {
    pub fn start() -> Result<Self> {
        let home = home("caudal-postgres")?;
        let port = free_port()?;
        let data = home.join("data");
        let initdb = binary("initdb")?;
        run(as_postgres(&initdb).arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        ]))?;
        let settings = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nmax_connections = 200\n",
            home.display()
        );
        let mut config = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf"))?;
        config.write_all(settings.as_bytes())?;
        let stop = format!("'{}' -D '{}' -m immediate stop", binary("pg_ctl")?.display(), data.display());
        let server = Self { warden: Warden::new(&stop, &home)?, home, port };
        server.start_again()?;
        Ok(server)
    }

    /// A superuser's URL.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Stops as a crash would: nothing is flushed, clients are cut off.
    pub fn stop_immediate(&self) -> Result<()> {
        self.control(&["-m", "immediate", "stop"])
    }

    pub fn start_again(&self) -> Result<()> {
        let log = self.home.join("log");
        self.control(&["-w", "-l", &log.to_string_lossy(), "start"])
    }

    /// Makes the server speak TLS, with a certificate for `localhost`; returns the file of the authority that signed it.
    pub fn use_tls(&self) -> Result<PathBuf> {
        let at = |name: &str| self.home.join(name).display().to_string();
        let (key, request, certificate) = (at("server.key"), at("server.csr"), at("server.crt"));
        let (ca_key, ca, names) = (at("ca.key"), at("ca.crt"), at("names"));
        std::fs::write(&names, "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")?;
        let openssl = binary("openssl")?;
        let new_key = ["-newkey", "rsa:2048", "-nodes"];
        let authority = ["req", "-x509", "-days", "30", "-subj", "/CN=test authority", "-keyout", &ca_key, "-out", &ca];
        run(as_postgres(&openssl).args(authority).args(new_key))?;
        run(as_postgres(&openssl)
            .args(["req", "-subj", "/CN=localhost", "-keyout", &key, "-out", &request])
            .args(new_key))?;
        run(as_postgres(&openssl)
            .args(["x509", "-req", "-days", "30", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial"])
            .args(["-extfile", &names, "-out", &certificate]))?;
        let settings = format!("ssl = on\nssl_cert_file = '{certificate}'\nssl_key_file = '{key}'\n");
        let config = self.home.join("data").join("postgresql.conf");
        std::fs::OpenOptions::new().append(true).open(config)?.write_all(settings.as_bytes())?;
        self.stop_immediate()?;
        self.start_again()?;
        Ok(ca.into())
    }

    fn control(&self, args: &[&str]) -> Result<()> {
        run(as_postgres(&binary("pg_ctl")?).arg("-D").arg(self.home.join("data")).arg("-s").args(args))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.warden.end();
    }
}

/// PgBouncer in transaction mode before a server.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    warden: Warden,
}

impl PgBouncer {
    /// # Errors
    /// Names the command that installs it when it is missing: a suite that silently tests something else is no test.
    pub fn start(server_port: u16) -> Result<Self> {
        let program = Path::new("/usr/sbin/pgbouncer");
        if !program.exists() {
            bail!("{} is missing: apt-get install pgbouncer", program.display());
        }
        let home = home("caudal-pgbouncer")?;
        let port = free_port()?;
        let file = home.join("pgbouncer.ini");
        let config = format!(
            "[databases]\n* = host=127.0.0.1 port={server_port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 12\n\
             max_client_conn = 200\nlogfile = {home}/log\npidfile = {home}/pid\nignore_startup_parameters = extra_float_digits\n",
            home = home.display()
        );
        std::fs::write(&file, config)?;
        run(as_postgres(program).arg("-d").arg("-q").arg(&file))?;
        let stop = format!("kill $(cat '{}/pid')", home.display());
        let bouncer = Self { warden: Warden::new(&stop, &home)?, port };
        bouncer.wait_until_it_listens()?;
        Ok(bouncer)
    }

    fn wait_until_it_listens(&self) -> Result<()> {
        for _ in 0..100 {
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        bail!("pgbouncer does not listen on port {}", self.port)
    }

    /// A URL through the pool.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.warden.end();
    }
}

/// A shell that waits for us to end: its input closes with our process, however that dies. Then it stops the server and
/// removes its files.
#[derive(Debug)]
struct Warden(Option<Child>);

impl Warden {
    fn new(stop: &str, home: &Path) -> Result<Self> {
        let script = format!("read _; {stop}; rm -rf '{}'", home.display());
        let mut shell = as_postgres(Path::new("/bin/sh"));
        shell.arg("-c").arg(script).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Its own group: an interrupt of the test run must not end it before its work.
        Ok(Self(Some(shell.process_group(0).spawn()?)))
    }

    fn end(&mut self) {
        if let Some(mut shell) = self.0.take() {
            drop(shell.stdin.take());
            let _ = shell.wait();
        }
    }
}

/// A new folder that the server's user owns.
fn home(prefix: &str) -> Result<PathBuf> {
    let home = tempfile::Builder::new().prefix(prefix).tempdir()?.keep();
    if is_root() {
        run(Command::new("chown").arg("postgres").arg(&home))?;
    }
    Ok(home)
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

/// PostgreSQL refuses to run as root.
fn as_postgres(program: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    // The working directory may not be readable for that user.
    command.current_dir("/");
    command
}

fn run(command: &mut Command) -> Result<()> {
    // Nothing inherited: a daemon that keeps our pipes open would keep whoever reads them waiting.
    let log = tempfile::NamedTempFile::new()?;
    let status = command.stdin(Stdio::null()).stdout(log.reopen()?).stderr(log.reopen()?).status()?;
    ensure!(status.success(), "{command:?}: {status}: {}", std::fs::read_to_string(log.path()).unwrap_or_default());
    Ok(())
}

/// A server program: on the PATH, or where Debian keeps the newest.
fn binary(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.exists()) {
        return Ok(found);
    }
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|dir| dir.flatten().map(|entry| entry.path().join("bin").join(name)).collect())
        .unwrap_or_default();
    versions.retain(|file| file.exists());
    versions.sort();
    versions.pop().with_context(|| format!("{name} is not installed: apt install postgresql"))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
