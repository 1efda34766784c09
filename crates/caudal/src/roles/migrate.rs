//! `caudal migrate`: the store's tables, brought to this release.

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::ConfigArgs;
use crate::compose::compose;
use crate::config;

pub(crate) async fn run(args: ConfigArgs) -> Result<ExitCode> {
    let mut loaded = config::load(args.config.as_deref())?;
    // Tables only: a topic that another process has open is left alone.
    loaded.settings.broker.url = crate::secret::SecretUrl::new("none:");
    let applied = compose(&loaded).await?.engine.prepare().await?;
    match applied.is_empty() {
        true => println!("nothing to do: the store is at this release"),
        false => applied.iter().for_each(|name| println!("applied {name}")),
    }
    Ok(ExitCode::SUCCESS)
}
