//! `caudal publish`: a file or standard input into a topic, streamed.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::stream;
use indicatif::ProgressBar;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::client::{connect, print};
use crate::cli::{InputFormat, PublishArgs};

/// Bytes of one read.
const PIECE_BYTES: usize = 256 * 1024;

pub(crate) async fn run(args: PublishArgs) -> Result<ExitCode> {
    let client = connect(&args.server)?;
    let format = args.format.unwrap_or_else(|| by_name(&args.file));
    let media = match format {
        InputFormat::Ndjson => "application/x-ndjson",
        InputFormat::Json => "application/json",
        InputFormat::Csv => "text/csv",
    };
    let mut prefer = vec!["return=minimal"];
    prefer.extend(args.respond_async.then_some("respond-async"));
    prefer.extend(args.strict.then_some("handling=strict"));
    let mut headers = vec![("prefer", prefer.join(", "))];
    headers.extend(args.idempotency_key.as_ref().map(|key| ("idempotency-key", format!("\"{key}\""))));
    let (input, length) = open(&args.file).await?;
    let bar = bytes_bar(length, &args.topic);
    let body = match format {
        // One document is read whole anyway, and its size is then known in advance.
        InputFormat::Json => whole_body(read_all(input).await?),
        _ => streamed_body(input, bar.clone()),
    };
    let answer = client.publish(&args.topic, media, &headers, body).await;
    bar.finish_and_clear();
    let mut report = answer?.json()?;
    if let Some(object) = report.as_object_mut()
        && !args.server.json
    {
        object.retain(|name, value| {
            !(name.starts_with("records") && (value == 0 || value.as_array().is_some_and(Vec::is_empty)))
        });
        object.remove("records_omitted");
    }
    let dead = report["dead"].as_u64().unwrap_or_default();
    print(&args.server, &report);
    if dead > 0 {
        eprintln!("{dead} records were set aside; see `caudal dead-letters list topic=eq.{}`", args.topic);
        return Ok(ExitCode::from(4));
    }
    Ok(ExitCode::SUCCESS)
}

fn by_name(file: &Path) -> InputFormat {
    match file.extension().and_then(|e| e.to_str()) {
        Some("csv") => InputFormat::Csv,
        Some("json") => InputFormat::Json,
        _ => InputFormat::Ndjson,
    }
}

type Input = Box<dyn AsyncRead + Send + Unpin>;

async fn open(file: &Path) -> Result<(Input, Option<u64>)> {
    if file == Path::new("-") {
        return Ok((Box::new(tokio::io::stdin()), None));
    }
    let opened = File::open(file).await.with_context(|| format!("cannot read {}", file.display()))?;
    let length = opened.metadata().await?.len();
    Ok((Box::new(opened), Some(length)))
}

fn bytes_bar(length: Option<u64>, topic: &str) -> ProgressBar {
    use indicatif::ProgressStyle;
    let bar = super::client::progress(length, topic);
    let template = match length {
        Some(_) => "  {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        None => "  {msg} {bytes} {bytes_per_sec}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

async fn read_all(mut input: Input) -> Result<Bytes> {
    let mut whole = Vec::new();
    input.read_to_end(&mut whole).await?;
    Ok(whole.into())
}

fn whole_body(whole: Bytes) -> caudal_probe::Body {
    whole.into()
}

fn streamed_body(input: Input, bar: ProgressBar) -> caudal_probe::Body {
    let bar = Arc::new(bar);
    let pieces = stream::try_unfold((input, bar), |(mut input, bar)| async move {
        let mut piece = vec![0; PIECE_BYTES];
        let read = input.read(&mut piece).await?;
        if read == 0 {
            return Ok::<_, std::io::Error>(None);
        }
        piece.truncate(read);
        bar.inc(read as u64);
        Ok(Some((Bytes::from(piece), (input, bar))))
    });
    caudal_probe::Body::wrap_stream(pieces)
}
