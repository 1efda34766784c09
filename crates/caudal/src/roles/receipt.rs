//! `caudal receipt`: where is my message?

use std::process::ExitCode;

use anyhow::Result;

use super::client::{connect, print};
use crate::cli::ReceiptArgs;

pub(crate) async fn run(args: ReceiptArgs) -> Result<ExitCode> {
    let answer = connect(&args.server)?.get(&format!("/v1/receipts/{}", args.transaction_id)).await?;
    print(&args.server, &answer.json()?);
    Ok(ExitCode::SUCCESS)
}
