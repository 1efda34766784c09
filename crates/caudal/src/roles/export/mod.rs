//! `caudal export`: what a topic has gained since the last export, as files.

pub(crate) mod schedule;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use caudal_core::plan::ReadPlan;
use caudal_core::schema::{STORED_AT, Table};
use caudal_engine::Engine;
use caudal_export::{Export, Format, Manifest, Outcome};

use super::client::progress;
use crate::cli::{ExportArgs, FileFormat};
use crate::compose::compose;
use crate::config::{self, Loaded};
use crate::settings;

/// A table scan may find nothing to hand out for as long as this.
const STATEMENT_TIMEOUT_MS_MIN: u64 = 600_000;

pub(crate) async fn run(args: ExportArgs) -> Result<ExitCode> {
    let mut loaded = config::load(args.config.config.as_deref())?;
    // Tables only: a topic that another process has open is left alone.
    loaded.settings.broker.url = crate::secret::SecretUrl::new("none:");
    let timeout = &mut loaded.settings.store.statement_timeout_ms;
    *timeout = STATEMENT_TIMEOUT_MS_MIN.max(*timeout);
    let engine = compose(&loaded).await?.engine;
    engine.prepare().await?;
    let Some(table) = engine.table(&args.topic) else {
        bail!(
            "topic {:?} does not exist; there are {}",
            args.topic,
            engine.topics.names().collect::<Vec<_>>().join(", ")
        )
    };
    let export = by_hand(&loaded, &args, table)?;
    let bar = progress(length(&engine, &export).await?, &format!("exporting {}", args.topic));
    let outcome = export.run(&*engine.store, &mut |rows| bar.inc(rows)).await;
    bar.finish_and_clear();
    match outcome.with_context(|| format!("exporting {} to {}", args.topic, export.url))? {
        Outcome::Exported(manifest) if args.json => println!("{}", serde_json::to_string(&manifest)?),
        Outcome::Exported(manifest) => println!("{}", said(&manifest, &export.url)),
        _ if args.json => println!("null"),
        _ => println!("nothing to do: every record of {} is in {}", args.topic, export.url),
    }
    Ok(ExitCode::SUCCESS)
}

/// What the command line asks for, completed by the topic's configuration.
fn by_hand(loaded: &Loaded, args: &ExportArgs, table: Arc<Table>) -> Result<Export> {
    let configured = loaded.settings.topics.get(&args.topic).and_then(|topic| topic.export.as_ref());
    let url = args.to.clone().or_else(|| configured.map(|export| loaded.export_url(export)));
    let day_of = args.day_of.clone().or_else(|| configured.map(|export| export.day_of.clone()));
    let format = args.format.or(configured.map(|export| export.format)).unwrap_or_default();
    Ok(Export {
        table,
        url: url
            .context("say where to: --to DIRECTORY or --to s3://bucket/prefix, or set topics.<topic>.export.url")?,
        format: file_format(format),
        day_of: day_of.unwrap_or_else(|| STORED_AT.to_owned()),
        every: None,
    })
}

/// What a topic's configuration asks for, its URL resolved.
fn by_clock(export: &settings::Export, table: Arc<Table>) -> Export {
    Export {
        table,
        url: export.url.clone(),
        format: file_format(export.format),
        day_of: export.day_of.clone(),
        every: Some(std::time::Duration::from_secs(export.every_seconds)),
    }
}

fn file_format(format: FileFormat) -> Format {
    match format {
        #[cfg(feature = "parquet")]
        FileFormat::Parquet => Format::Parquet,
        FileFormat::Csv => Format::Csv,
    }
}

/// How many rows there are to go, for a bar that somebody sees; counting them all is not for nobody.
async fn length(engine: &Engine, export: &Export) -> Result<Option<u64>> {
    if !std::io::stderr().is_terminal() {
        return Ok(None);
    }
    let all = engine.store.count(&ReadPlan::all(export.table.clone())).await?;
    Ok(Some(all.saturating_sub(export.rows_so_far().await?)))
}

fn said(manifest: &Manifest, url: &str) -> String {
    let Manifest { table, sequence, rows, bytes, files, .. } = manifest;
    let plural = |n: u64| if n == 1 { "" } else { "s" };
    format!(
        "exported {rows} row{} in {} file{}, {bytes} bytes\nmanifest  {}/{table}/_manifests/{sequence:08}.json",
        plural(*rows),
        files.len(),
        plural(files.len() as u64),
        url.trim_end_matches('/')
    )
}
