//! `caudal tail`: new records of a topic as NDJSON.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use super::client::connect;
use crate::cli::TailArgs;

pub(crate) async fn run(args: TailArgs) -> Result<ExitCode> {
    let mut events = connect(&args.server)?.follow(&args.topic).await?;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0
        && let Some(record) = events.next().await?
    {
        writeln!(std::io::stdout(), "{record}")?;
        left -= 1;
    }
    Ok(ExitCode::SUCCESS)
}
