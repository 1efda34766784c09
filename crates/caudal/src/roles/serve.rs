//! `caudal serve`: chosen roles in the foreground, until a signal.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use caudal_core::error::StoreError;
use caudal_engine::Engine;
use caudal_http::sql::SqlConfig;
use caudal_http::{App, HttpConfig, ReadBounds, ServerConfig, router};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::vouch::vouch;
use crate::cli::{Role, ServeArgs};
use crate::compose::{self, Composed, compose};
use crate::config::{self, Loaded};
use crate::doors;
use crate::settings::LogFormat;

pub(crate) async fn run(args: ServeArgs) -> Result<ExitCode> {
    let loaded = config::load(args.config.config.as_deref())?;
    start_logging(&loaded)?;
    if loaded.settings.broker.url.expose().starts_with("embedded")
        && !(args.role.contains(&Role::Api) && args.role.contains(&Role::Worker))
    {
        bail!("the embedded topic lives in one process: run it with --role api,worker,confirm, or `caudal up`");
    }
    if args.role == [Role::Confirm]
        && let Some(apart) = compose::Apart::open(&loaded).await?
    {
        return confirm_only(&apart, &loaded).await;
    }
    let running = start(&loaded, &args.role).await?;
    if let Some(address) = running.address {
        tracing::info!(%address, "listening");
    }
    running.until_signal().await
}

/// Confirms what is in a store of its own, until a signal. There is no SQL store and nothing to listen for.
async fn confirm_only(apart: &compose::Apart, loaded: &Loaded) -> Result<ExitCode> {
    let confirming = apart.start(loaded, None).await?;
    tracing::info!(store = %loaded.settings.confirm.store, "confirming");
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("draining");
    confirming.drain().await;
    tracing::info!("drained");
    Ok(ExitCode::SUCCESS)
}

/// Logging to standard error, so that standard output stays data.
pub(crate) fn start_logging(loaded: &Loaded) -> Result<()> {
    use std::io::IsTerminal;
    let log = &loaded.settings.log;
    let filter = tracing_subscriber::EnvFilter::try_new(&log.level)
        .with_context(|| format!("log.level {:?} is not a level or filter", log.level))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).init(),
    }
    Ok(())
}

/// A process in service.
pub(crate) struct Running {
    pub(crate) engine: Arc<Engine>,
    pub(crate) address: Option<SocketAddr>,
    composed: Composed,
    server: Option<tokio::task::JoinHandle<()>>,
    setup: tokio::task::JoinHandle<Result<(), StoreError>>,
    stop: CancellationToken,
}

/// Starts the roles. Listens before the store answers: a topic can take messages while its store is away.
pub(crate) async fn start(loaded: &Loaded, roles: &[Role]) -> Result<Running> {
    compose::refuse_to_store(loaded)?;
    let mut composed = compose(loaded).await?;
    let engine = composed.engine.clone();
    vouch(&engine, loaded.settings.broker.durability.into()).await?;
    let stop = CancellationToken::new();
    let confirming =
        compose::Confirmings::of(loaded, roles.contains(&Role::Confirm), &engine.topics, &composed.confirm_metrics)
            .await?;
    let setup = match engine.prepare().await {
        Ok(applied) => {
            report_migrations(&applied);
            start_workers(&engine, roles);
            confirming.start(&engine).await?;
            tokio::spawn(std::future::pending())
        }
        Err(error) if error.is_transient() => {
            tracing::warn!(%error, "the store does not answer yet; going on without it");
            tokio::spawn(prepare_later(engine.clone(), roles.to_vec(), confirming))
        }
        Err(error) => return Err(error.into()),
    };
    #[cfg(feature = "export")]
    if roles.contains(&Role::Worker) {
        super::export::schedule::start(loaded, &engine, &mut composed.registry, &stop);
    }
    let (address, server) = match roles.contains(&Role::Api) {
        true => {
            engine.start_looking();
            engine.start_reloading();
            let registry = std::mem::take(&mut composed.registry);
            let app = App::new(engine.clone(), http_config(loaded)?, registry);
            let (address, server) = listen(loaded, app, stop.clone()).await?;
            (Some(address), Some(server))
        }
        false => (None, None),
    };
    Ok(Running { engine, address, composed, server, setup, stop })
}

fn report_migrations(applied: &[String]) {
    if !applied.is_empty() {
        tracing::info!(?applied, "the store was brought to this release");
    }
}

fn start_workers(engine: &Arc<Engine>, roles: &[Role]) {
    if roles.contains(&Role::Worker) {
        engine.start_workers();
        engine.start_retention();
    }
}

/// Ends with an error when the store answers and is not usable; otherwise never.
async fn prepare_later(
    engine: Arc<Engine>,
    roles: Vec<Role>,
    confirming: compose::Confirmings,
) -> Result<(), StoreError> {
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        match engine.prepare().await {
            Ok(applied) => {
                report_migrations(&applied);
                tracing::info!("the store answers");
                start_workers(&engine, &roles);
                confirming.start(&engine).await?;
                return std::future::pending().await;
            }
            Err(error) if error.is_transient() => tracing::debug!(%error, "waiting for the store"),
            Err(error) => return Err(error),
        }
    }
}

pub(super) fn http_config(loaded: &Loaded) -> Result<HttpConfig> {
    let http = &loaded.settings.http;
    let config = HttpConfig {
        body_bytes_max: http.body_bytes_max,
        wait_default: Duration::from_millis(http.wait_ms),
        record_cache_bytes: http.record_cache_bytes,
        compat_topic: http.compat_topic.clone(),
        read: ReadBounds {
            rows_max: loaded.settings.read.rows_max,
            bytes_max: loaded.settings.read.bytes_max,
            cost_max: loaded.settings.read.cost_max,
        },
        sql: SqlConfig {
            enabled: loaded.sql_enabled(),
            rows_max: loaded.settings.sql.rows_max,
            bytes_max: loaded.settings.sql.bytes_max,
        },
        ..HttpConfig::default()
    };
    doors::open(&loaded.settings, config)
}

async fn listen(
    loaded: &Loaded,
    app: Arc<App>,
    stop: CancellationToken,
) -> Result<(SocketAddr, tokio::task::JoinHandle<()>)> {
    let http = &loaded.settings.http;
    let listener = TcpListener::bind(&http.listen).await.with_context(|| {
        format!("cannot listen on {}; is something else there? Set http.listen or CAUDAL_HTTP__LISTEN", http.listen)
    })?;
    let address = listener.local_addr()?;
    let mut config = ServerConfig::new(loaded.access(address)?);
    config.connections_max = http.connections_max;
    let server = tokio::spawn(caudal_http::serve(listener, router(app), config, stop));
    Ok((address, server))
}

impl Running {
    /// Serves until SIGINT or SIGTERM, then drains; or until a part fails for good, then ends at once with a failure.
    pub(crate) async fn until_signal(self) -> Result<ExitCode> {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let broker_failed = self.composed.failed();
        let engine = self.engine.clone();
        let failed = async {
            tokio::select! {
                reason = broker_failed => reason,
                reason = engine.failed() => reason,
            }
        };
        let setup = self.setup;
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
            reason = failed => {
                tracing::error!(reason, "a part failed for good; nothing is acknowledged any more");
                // At once: what was acknowledged is on disk, and nothing else may be.
                std::process::exit(70);
            }
            broken = setup => {
                if let Ok(Err(error)) = broken {
                    return Err(error.into());
                }
            }
        }
        tracing::info!("draining");
        self.stop.cancel();
        // Live tails end with the engine, so that the server does not wait for them.
        let drained = self.engine.drain();
        match self.server {
            Some(server) => {
                let (served, ()) = tokio::join!(server, drained);
                served?;
            }
            None => drained.await,
        }
        if let Some(broker) = &self.engine.broker {
            broker.close().await?;
        }
        tracing::info!("drained");
        Ok(ExitCode::SUCCESS)
    }
}
