//! The hostile confirmation endpoint as a process of its own: prints its address and lives until it is killed or its standard
//! input closes.
//!
//! ```text
//! endpoint [address [behaviour as JSON]]
//! ```

use std::io::Write;

use anyhow::{Context, Result};
use caudal_testkit::endpoint::{Behaviour, Endpoint};
use tokio::io::AsyncReadExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let behaviour = match arguments.next() {
        Some(text) => serde_json::from_str::<Behaviour>(&text).context("the behaviour")?,
        None => Behaviour::default(),
    };
    let endpoint = Endpoint::bind(&address, behaviour).await.with_context(|| format!("listening on {address}"))?;
    println!("{}", endpoint.address());
    std::io::stdout().flush()?;
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}
