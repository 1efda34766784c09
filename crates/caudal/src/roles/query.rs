//! `caudal query`: rows of a table, or of a statement in SQL, as a table, JSON, NDJSON, CSV, Parquet or Arrow.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Result, bail};
use caudal_probe::ClientError;

use super::client::{connect, print_table, query_string};
use crate::cli::{OutputFormat, QueryArgs};

/// Rows that a printed table holds at most: it is for eyes. The other formats stream everything.
const TABLE_ROWS_MAX: usize = 1_000;

pub(crate) async fn run(args: QueryArgs) -> Result<ExitCode> {
    let client = connect(&args.server)?;
    let format = match (args.format, args.server.json) {
        (Some(format), _) => format,
        (None, true) => OutputFormat::Json,
        (None, false) if std::io::stdout().is_terminal() => OutputFormat::Table,
        (None, false) => OutputFormat::Ndjson,
    };
    if matches!(format, OutputFormat::Parquet | OutputFormat::Arrow) && std::io::stdout().is_terminal() {
        bail!(
            "this format is not for a terminal: send it to a file or a program, as in `caudal query … > {}`",
            args.table.as_deref().unwrap_or("rows")
        );
    }
    let accept = match format {
        OutputFormat::Table | OutputFormat::Json => "application/json",
        OutputFormat::Ndjson => "application/x-ndjson",
        OutputFormat::Csv => "text/csv",
        OutputFormat::Parquet => "application/vnd.apache.parquet",
        OutputFormat::Arrow => "application/vnd.apache.arrow.stream",
    };
    let limit = (format == OutputFormat::Table).then_some(TABLE_ROWS_MAX + 1);
    let mut response = match &args.sql {
        Some(statement) => client.post_as(&sql_path(limit), "application/sql", text_of(statement)?, accept).await?,
        None => client.get_as(&table_path(&args, limit), accept).await?,
    };
    if format == OutputFormat::Table {
        let body = response.bytes().await.map_err(|e| ClientError::Broken(e.to_string()))?;
        let mut rows: Vec<serde_json::Value> = serde_json::from_slice(&body)?;
        let more = rows.len() > TABLE_ROWS_MAX;
        rows.truncate(TABLE_ROWS_MAX);
        print_table(&rows);
        if more {
            eprintln!("(more than {TABLE_ROWS_MAX} rows; ask for fewer, or take --format ndjson for all)");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    while let Some(piece) = response.chunk().await.map_err(|e| ClientError::Broken(e.to_string()))? {
        out.write_all(&piece)?;
    }
    if format == OutputFormat::Json {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Without a limit of the caller's own, as many rows as are printed and one more.
fn table_path(args: &QueryArgs, limit: Option<usize>) -> String {
    let mut terms = args.terms.clone();
    if let Some(limit) = limit
        && !terms.iter().any(|t| t.starts_with("limit="))
    {
        terms.push(format!("limit={limit}"));
    }
    format!("/rest/v1/{}?{}", args.table.as_deref().unwrap_or_default(), query_string(&terms))
}

fn sql_path(limit: Option<usize>) -> String {
    limit.map_or_else(|| "/v1/sql".to_owned(), |limit| format!("/v1/sql?limit={limit}"))
}

fn text_of(statement: &str) -> Result<String> {
    match statement {
        "-" => Ok(std::io::read_to_string(std::io::stdin())?),
        statement => Ok(statement.to_owned()),
    }
}
