//! `caudal dead-letters`: what was set aside, and sending it back.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::client::{connect, print, print_table, query_string};
use crate::cli::{DeadLettersCommand, ServerArgs};

pub(crate) async fn run(command: DeadLettersCommand) -> Result<ExitCode> {
    match command {
        DeadLettersCommand::List { terms, server } => list(terms, &server).await,
        DeadLettersCommand::Show { id, server } => {
            let answer = connect(&server)?.get(&format!("/v1/dead-letters/{id}")).await?;
            print(&server, &answer.json()?);
            Ok(ExitCode::SUCCESS)
        }
        DeadLettersCommand::Repair { id, file, server } => repair(&id, &file, &server).await,
        DeadLettersCommand::Redrive { what, dry_run, server } => redrive(&what, dry_run, &server).await,
    }
}

async fn list(mut terms: Vec<String>, server: &ServerArgs) -> Result<ExitCode> {
    let given = |name: &str| terms.iter().any(|t| t.starts_with(name));
    let mut defaults = Vec::new();
    for (name, default) in [
        ("select=", "select=id:_id,topic,reason,pointer,detail,dead_at,state"),
        ("order=", "order=dead_at.asc"),
        ("state=", "state=eq.dead"),
        ("limit=", "limit=100"),
    ] {
        if !given(name) {
            defaults.push(default.to_owned());
        }
    }
    terms.extend(defaults);
    let answer = connect(server)?.get(&format!("/v1/dead-letters?{}", query_string(&terms))).await?;
    let rows = answer.json()?;
    match (server.json, rows.as_array()) {
        (false, Some(rows)) => print_table(rows),
        _ => println!("{rows}"),
    }
    Ok(ExitCode::SUCCESS)
}

async fn repair(id: &str, file: &Path, server: &ServerArgs) -> Result<ExitCode> {
    let payload = match file == Path::new("-") {
        true => std::io::read_to_string(std::io::stdin())?,
        false => std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?,
    };
    let path = format!("/v1/dead-letters/{id}/payload");
    let answer = connect(server)?.put(&path, "application/json", payload).await?;
    print(server, &answer.json()?);
    if !server.json {
        println!("now `caudal dead-letters redrive {id}`");
    }
    Ok(ExitCode::SUCCESS)
}

async fn redrive(what: &[String], dry_run: bool, server: &ServerArgs) -> Result<ExitCode> {
    let one = what.len() == 1 && !what[0].contains('=') && !dry_run;
    let path = if one {
        format!("/v1/dead-letters/{}/redrive", what[0])
    } else {
        let mut terms = what.to_vec();
        terms.extend(dry_run.then(|| "dry_run=true".to_owned()));
        format!("/v1/dead-letters/redrive?{}", query_string(&terms))
    };
    let answer = connect(server)?.post(&path, "application/json", "").await?;
    print(server, &answer.json()?);
    Ok(ExitCode::SUCCESS)
}
