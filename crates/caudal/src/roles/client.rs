//! What the commands that talk to a server share.

use std::io::IsTerminal;

use anyhow::Result;
use caudal_probe::Client;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::cli::ServerArgs;

pub(crate) fn connect(server: &ServerArgs) -> Result<Client> {
    Ok(Client::new(&server.url, server.key.clone())?)
}

/// A bar on a terminal; silent elsewhere. Without a length it counts.
pub(crate) fn progress(length: Option<u64>, what: &str) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(length, target).with_message(what.to_owned());
    let template = match length {
        Some(_) => "  {msg} [{bar:30}] {human_pos}/{human_len} {per_sec} {eta}",
        None => "  {msg} {human_pos} {per_sec}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Prints an answer: as it came, or field by field.
pub(crate) fn print(server: &ServerArgs, value: &Value) {
    if server.json {
        println!("{value}");
        return;
    }
    match value.as_object() {
        Some(object) => {
            let width = object.keys().map(String::len).max().unwrap_or_default();
            for (name, value) in object.iter().filter(|(_, v)| !v.is_null()) {
                println!("{name:width$}  {}", plain(value));
            }
        }
        None => println!("{value}"),
    }
}

/// A value as people read it: strings without quotes.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Joins terms of the read grammar into a query string, encoding what a URL cannot hold.
pub(crate) fn query_string(terms: &[String]) -> String {
    let mut out = String::new();
    for term in terms {
        if !out.is_empty() {
            out.push('&');
        }
        for byte in term.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => out.push(byte as char),
                b'-' | b'_' | b'.' | b'~' | b'=' | b'(' | b')' | b',' | b'*' | b':' | b'!' => out.push(byte as char),
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    out
}

/// An aligned table of rows that all have the same columns.
pub(crate) fn print_table(rows: &[Value]) {
    let Some(columns) = rows.first().and_then(Value::as_object) else {
        println!("(no rows)");
        return;
    };
    let names: Vec<&String> = columns.keys().collect();
    let cell = |row: &Value, name: &str| -> String {
        let text = plain(&row[name]).replace(['\n', '\r', '\t'], " ");
        match text.chars().count() > CELL_MAX {
            true => text.chars().take(CELL_MAX - 1).chain(['…']).collect(),
            false => text,
        }
    };
    let cells: Vec<Vec<String>> = rows.iter().map(|row| names.iter().map(|name| cell(row, name)).collect()).collect();
    let width = |i: usize| cells.iter().map(|row| row[i].chars().count()).chain([names[i].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let line = |values: Vec<&str>| {
        let padded: Vec<String> = values.iter().zip(&widths).map(|(v, w)| format!("{v:w$}")).collect();
        println!("{}", padded.join("  ").trim_end());
    };
    line(names.iter().map(|n| n.as_str()).collect());
    line(widths.iter().map(|w| &RULE[..(*w).min(RULE.len())]).collect());
    cells.iter().for_each(|row| line(row.iter().map(String::as_str).collect()));
}

const CELL_MAX: usize = 48;
const RULE: &str = "------------------------------------------------------------------------";
