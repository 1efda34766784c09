//! `caudal up`: everything in one process.

use std::process::ExitCode;

use anyhow::Result;

use super::{demo, serve};
use crate::cli::{Role, UpArgs};
use crate::config;

pub(crate) async fn run(args: UpArgs) -> Result<ExitCode> {
    let mut loaded = config::load(args.config.config.as_deref())?;
    if let Some(listen) = args.listen {
        loaded.settings.http.listen = listen;
    }
    if args.demo {
        demo::add_topics(&mut loaded.settings).await?;
        // The demo's own lines say what matters.
        if loaded.settings.log.level == "info" {
            loaded.settings.log.level = "warn".to_owned();
        }
    }
    serve::start_logging(&loaded)?;
    let running = serve::start(&loaded, &[Role::Api, Role::Worker, Role::Confirm]).await?;
    let Some(address) = running.address else { return Ok(ExitCode::FAILURE) };
    let url = format!("http://{address}");
    let topics: Vec<_> = running.engine.topics.names().collect();
    println!("Caudal listens on {url}");
    println!("  data    {}", loaded.settings.data_dir.display());
    println!("  store   {}", loaded.settings.store.url);
    println!("  broker  {}", loaded.settings.broker.url);
    println!("  topics  {}", topics.join(", "));
    if args.demo {
        demo::load(&url, args.key.clone()).await?;
        demo::watch_confirmations(&url, args.key.clone()).await?;
        demo::print_what_to_open(&url, args.key).await?;
    } else {
        println!("\nOpen {url} or try\n  curl {url}/v1/topics");
    }
    println!("\nStop with Ctrl-C.");
    running.until_signal().await
}
