//! `caudal reconcile`: the books of every topic.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use super::client::{connect, print_table};
use crate::cli::ReconcileArgs;

pub(crate) async fn run(args: ReconcileArgs) -> Result<ExitCode> {
    let path = if args.count { "/v1/reconcile?count=exact" } else { "/v1/reconcile" };
    let books = connect(&args.server)?.get(path).await?.json()?;
    if args.server.json {
        println!("{books}");
    } else {
        let line = |t: &Value| {
            let d = &t["durable"];
            json!({
                "topic": t["topic"], "accepted": d["accepted"], "stored": d["stored"], "duplicate": d["duplicate"],
                "rejected": d["rejected"], "dead": d["dead"], "waiting": t["backlog"], "rows": t["rows"],
                "unaccounted": t["unaccounted"],
            })
        };
        let rows: Vec<Value> = books["topics"].as_array().into_iter().flatten().map(line).collect();
        print_table(&rows);
    }
    Ok(if books["unaccounted"] == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
