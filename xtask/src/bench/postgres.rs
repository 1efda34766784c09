//! A PostgreSQL of the benchmark's own, with durability on.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::process::{Service, free_port, need, timed};
use crate::output_of;

/// What differs from PostgreSQL's defaults. Buffers and log that fit the machine and the table, and no checkpoint in the
/// middle of a measurement: each is preceded by one instead.
pub(super) const SETTINGS: &str = "\
shared_buffers = 1GB
max_wal_size = 8GB
checkpoint_timeout = 30min
fsync = on
synchronous_commit = on
max_connections = 200
listen_addresses = '127.0.0.1'
";

#[derive(Debug)]
pub(super) struct Postgres {
    port: u16,
    _service: Service,
}

impl Postgres {
    pub(super) fn start(work: &Path) -> Result<Self> {
        need("psql", "postgresql-client-15")?;
        need("setpriv", "util-linux")?;
        let bin = programs()?;
        let home = work.join("postgres");
        std::fs::create_dir_all(&home)?;
        let root = rustix::process::geteuid().is_root();
        if root {
            output_of(Command::new("chown").arg("postgres").arg(&home))?;
        }
        let data = home.join("data");
        let mut initdb = match root {
            true => Command::new("runuser"),
            false => Command::new("env"),
        };
        if root {
            initdb.args(["-u", "postgres", "--"]);
        }
        initdb.current_dir("/").arg(bin.join("initdb")).arg("-D").arg(&data);
        output_of(initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]))?;
        let port = free_port()?;
        let own = format!("port = {port}\nunix_socket_directories = ''\n{SETTINGS}");
        let config = data.join("postgresql.conf");
        let text = std::fs::read_to_string(&config)?;
        std::fs::write(&config, format!("{text}\n{own}"))?;
        let mut command = Command::new(bin.join("postgres"));
        command.arg("-D").arg(&data);
        let user = root.then_some("postgres");
        // SIGINT is PostgreSQL's fast shutdown.
        let mut service = Service::start_as(user, "PostgreSQL", &command, &work.join("postgres.log"), Signal::INT)?;
        let ready = || {
            psql(port)
                .args(["-c", "select 1"])
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .status()
                .is_ok_and(|s| s.success())
        };
        service.wait(Duration::from_secs(60), ready).context("see postgres.log")?;
        Ok(Self { port, _service: service })
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// A database of its own.
    pub(super) fn database(&self, name: &str) -> Result<Database<'_>> {
        self.sql(&format!("create database {name}"))?;
        Ok(Database { server: self, name: name.to_owned() })
    }

    /// Settings that a reload takes over.
    pub(super) fn set(&self, settings: &[(&str, &str)]) -> Result<()> {
        for (name, value) in settings {
            self.sql(&format!("alter system set {name} = '{value}'"))?;
        }
        self.sql("select pg_reload_conf()").map(drop)
    }

    /// Back to what the server was started with.
    pub(super) fn reset(&self) -> Result<()> {
        self.sql("alter system reset all")?;
        self.sql("select pg_reload_conf()").map(drop)
    }

    /// `psql` before its `-c` or `-f`.
    pub(super) fn psql(&self) -> Command {
        psql(self.port)
    }

    pub(super) fn pgbench(&self) -> Command {
        let mut command = Command::new("pgbench");
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &self.port.to_string()]);
        command
    }

    pub(super) fn sql(&self, sql: &str) -> Result<String> {
        Ok(output_of(self.psql().args(["-c", sql]))?.trim().to_owned())
    }

    /// Runs one command of `psql` and returns how long the whole program took.
    pub(super) fn timed(&self, command: &str) -> Result<f64> {
        Ok(timed(self.psql().args(["-c", command]))?.1)
    }

    /// Before each measurement: what the last one left is on disk.
    pub(super) fn settle(&self) -> Result<()> {
        self.sql("checkpoint").map(drop)
    }
}

/// Dropped with this, whoever is still connected to it.
#[derive(Debug)]
pub(super) struct Database<'a> {
    pub(super) server: &'a Postgres,
    name: String,
}

impl Database<'_> {
    pub(super) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}", self.server.port, self.name)
    }

    pub(super) fn psql(&self) -> Command {
        let mut command = psql(self.server.port);
        command.args(["-d", &self.name]);
        command
    }

    pub(super) fn sql(&self, sql: &str) -> Result<String> {
        Ok(output_of(self.psql().args(["-c", sql]))?.trim().to_owned())
    }

    /// A query of one number.
    pub(super) fn number(&self, sql: &str) -> Result<f64> {
        let text = self.sql(sql)?;
        text.parse().with_context(|| format!("{sql}: {text:?} is no number"))
    }

    pub(super) fn pgbench(&self) -> Command {
        let mut command = self.server.pgbench();
        command.env("PGDATABASE", &self.name);
        command
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        let _ = self.server.sql(&format!("drop database {} with (force)", self.name));
    }
}

fn psql(port: u16) -> Command {
    let mut command = Command::new("psql");
    command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string()]);
    command.stdin(Stdio::null());
    command
}

/// Where `initdb` and `postgres` are: the newest that Debian has.
fn programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        versions.map(|v| v.path().join("bin")).filter(|bin| bin.join("initdb").is_file()).collect();
    found.sort();
    found.pop().context("PostgreSQL is missing: apt-get install postgresql-15")
}

pub(super) fn version() -> Result<String> {
    let text = output_of(Command::new(programs()?.join("postgres")).arg("--version"))?;
    Ok(format!("PostgreSQL {}", text.split_whitespace().nth(2).unwrap_or_default()))
}
