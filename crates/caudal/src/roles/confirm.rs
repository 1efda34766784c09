//! `caudal confirm`: where confirmations stand, and an operator's hand on them.

mod cost;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use caudal_engine::confirm::OnceReport;
use caudal_engine::confirm::drill::{self, Drill, Finding};
use serde_json::{Value, json};

use super::client::{connect, print, print_table, query_string};
use super::{enqueue, moving, serve};
use crate::cli::{ConfigArgs, ConfirmCommand, ServerArgs};
use crate::compose::{self, Apart};
use crate::config::{self, Loaded};

pub(crate) async fn run(command: ConfirmCommand) -> Result<ExitCode> {
    match command {
        ConfirmCommand::Status { server } => status(&server).await,
        ConfirmCommand::List { terms, server } => list(terms, &server).await,
        ConfirmCommand::Show { id, server } => show(&id, &server).await,
        ConfirmCommand::Pause { topic, lane, reason, server } => {
            post(&server, "/v1/confirmations/pause", &json!({ "topic": topic, "lane": lane, "reason": reason })).await
        }
        ConfirmCommand::Resume { topic, lane, server } => {
            post(&server, "/v1/confirmations/resume", &json!({ "topic": topic, "lane": lane })).await
        }
        ConfirmCommand::Redrive { what, dry_run, server } => redrive(&what, dry_run, &server).await,
        ConfirmCommand::Void { id, reason, server } => {
            post(&server, &format!("/v1/confirmations/{id}/void"), &json!({ "reason": reason })).await
        }
        ConfirmCommand::Resolve { id, r#as, reason, server } => {
            let body = json!({ "as": r#as.name(), "reason": reason });
            post(&server, &format!("/v1/confirmations/{id}/resolve"), &body).await
        }
        ConfirmCommand::Enqueue(args) => enqueue::run(&args).await,
        ConfirmCommand::Move(args) => moving::run(&args).await,
        ConfirmCommand::Verify { config, json } => verify(&config, json).await,
        ConfirmCommand::Chaos { topic, record, yes, config, json } => chaos(&topic, &record, yes, &config, json).await,
        ConfirmCommand::Cost(args) => cost::run(&args).await,
        ConfirmCommand::Once { config, limit, linger, json } => {
            once(&config, config::span(&limit)?, linger.as_deref().map(config::span).transpose()?, json).await
        }
    }
}

async fn status(server: &ServerArgs) -> Result<ExitCode> {
    let answer = connect(server)?.get("/v1/confirmations/lanes").await?.json()?;
    if server.json {
        println!("{answer}");
        return Ok(ExitCode::SUCCESS);
    }
    let lanes = answer["lanes"].as_array().map(Vec::as_slice).unwrap_or_default();
    if lanes.is_empty() {
        println!("nothing is confirmed here: no topic has a [topics.<name>.confirm] section");
        return Ok(ExitCode::SUCCESS);
    }
    let names = [
        "topic",
        "lane",
        "enqueued",
        "pending",
        "leased",
        "calling",
        "retry",
        "doubt",
        "held",
        "dead",
        "confirmed",
        "rejected",
        "void",
    ];
    let row = |lane: &Value| {
        let mut row: serde_json::Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), lane[*name].clone())).collect();
        row.insert(
            "oldest".into(),
            lane.get("oldest_pending_seconds").map_or(Value::Null, |age| format!("{age} s").into()),
        );
        row.insert("paused".into(), lane.get("paused").cloned().unwrap_or_default());
        Value::Object(row)
    };
    print_table(&lanes.iter().map(row).collect::<Vec<_>>());
    for lane in lanes.iter().filter(|lane| lane["contradictions"].as_u64().unwrap_or_default() > 0) {
        println!(
            "\n{} contradictions in {}/{}: the endpoint says different things of one transaction",
            lane["contradictions"],
            lane["topic"].as_str().unwrap_or_default(),
            lane["lane"].as_str().unwrap_or_default()
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(mut terms: Vec<String>, server: &ServerArgs) -> Result<ExitCode> {
    let given = |name: &str| terms.iter().any(|term| term.starts_with(name));
    let defaults = [
        ("select=", "select=id:_id,topic,lane,state,attempts,since,due,code,detail"),
        ("order=", "order=since.asc"),
        ("limit=", "limit=100"),
    ];
    let missing: Vec<String> =
        defaults.iter().filter(|(name, _)| !given(name)).map(|(_, default)| (*default).to_owned()).collect();
    terms.extend(missing);
    let rows = connect(server)?.get(&format!("/v1/confirmations?{}", query_string(&terms))).await?.json()?;
    match (server.json, rows.as_array()) {
        (false, Some(rows)) => print_table(rows),
        _ => println!("{rows}"),
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(id: &str, server: &ServerArgs) -> Result<ExitCode> {
    let mut found = connect(server)?.get(&format!("/v1/confirmations/{id}")).await?.json()?;
    if server.json {
        println!("{found}");
        return Ok(ExitCode::SUCCESS);
    }
    let history = found.as_object_mut().and_then(|found| found.remove("history"));
    print(server, &found);
    if let Some(rows) = history.as_ref().and_then(Value::as_array).filter(|rows| !rows.is_empty()) {
        println!();
        let row = |tried: &Value| json!({ "attempt": tried["attempt"], "at": tried["at"], "state": tried["state"], "code": tried["code"], "detail": tried["detail"] });
        print_table(&rows.iter().map(row).collect::<Vec<_>>());
    }
    Ok(ExitCode::SUCCESS)
}

async fn post(server: &ServerArgs, path: &str, body: &Value) -> Result<ExitCode> {
    let answer = connect(server)?.post(path, "application/json", body.to_string()).await?;
    print(server, &answer.json()?);
    Ok(ExitCode::SUCCESS)
}

async fn redrive(what: &[String], dry_run: bool, server: &ServerArgs) -> Result<ExitCode> {
    let one = what.len() == 1 && !what[0].contains('=') && !dry_run;
    let path = if one {
        format!("/v1/confirmations/{}/redrive", what[0])
    } else {
        let mut terms = what.to_vec();
        terms.extend(dry_run.then(|| "dry_run=true".to_owned()));
        format!("/v1/confirmations/redrive?{}", query_string(&terms))
    };
    let answer = connect(server)?.post(&path, "application/json", "").await?;
    print(server, &answer.json()?);
    Ok(ExitCode::SUCCESS)
}

/// Looks into the store itself, so that it works while nothing else runs.
async fn verify(args: &ConfigArgs, as_json: bool) -> Result<ExitCode> {
    let loaded = config::load(args.config.as_deref())?;
    let audits = match Apart::open(&loaded).await? {
        Some(apart) => apart.store.port().verify().await?,
        None => {
            let composed = compose::compose_store(&loaded)?;
            composed.engine.prepare().await?;
            composed.engine.confirmations.verify().await?
        }
    };
    let sound = audits.iter().all(|audit| audit.is_sound());
    if as_json {
        println!("{}", json!({ "sound": sound, "lanes": audits }));
    } else {
        for audit in &audits {
            println!(
                "{}/{}: {} enqueued = {} with an outcome + {} open",
                audit.topic, audit.lane, audit.enqueued, audit.outcomes, audit.open
            );
            let kinds = [
                ("lost: a record that is pending nowhere and has no outcome", &audit.lost),
                ("in two places at once", &audit.twice),
                ("an outcome without a record", &audit.stray),
                ("the endpoint said two different things", &audit.contradicted),
            ];
            for (what, ids) in kinds.into_iter().filter(|(_, ids)| !ids.is_empty()) {
                println!("  {what}:");
                ids.iter().for_each(|id| println!("    {id}"));
            }
        }
        println!(
            "{}",
            if sound { "every transaction is accounted for" } else { "NOT every transaction is accounted for" }
        );
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// For those who keep a schedule: confirms what is there, and ends.
async fn once(args: &ConfigArgs, limit: Duration, linger: Option<Duration>, as_json: bool) -> Result<ExitCode> {
    let mut loaded = config::load(args.config.as_deref())?;
    // Nobody has to be told by, or of, a process that is about to end.
    loaded.settings.confirm.wake = false;
    loaded.settings.confirm.idle_beat_ms = loaded.settings.confirm.idle_beat_ms.min(200);
    serve::start_logging(&loaded)?;
    let linger = linger.unwrap_or_default();
    let report = match Apart::open(&loaded).await? {
        Some(apart) => apart.start(&loaded, None).await?.finish(limit, linger).await,
        None => once_in_sql(&loaded, limit, linger).await?,
    };
    if as_json {
        println!("{}", json!(report));
    } else {
        println!(
            "{} confirmed, {} rejected, {} left for later, {} left for a person",
            report.confirmed, report.rejected, report.deferred, report.aside
        );
        if report.cut_short {
            println!("the time was over before the work was: run it again");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn once_in_sql(loaded: &Loaded, limit: Duration, linger: Duration) -> Result<OnceReport> {
    let composed = compose::compose_store(loaded)?;
    let confirmings =
        compose::Confirmings::of(loaded, true, &composed.engine.topics, &composed.confirm_metrics).await?;
    if confirmings.is_empty() {
        bail!("nothing is to be confirmed: there is no [topics.<name>.confirm] or [adopt.<name>] section");
    }
    composed.engine.prepare().await?;
    confirmings.start(&composed.engine).await?;
    Ok(composed.engine.finish_confirming(limit, linger).await)
}

/// Drills an endpoint whose effects do not matter.
async fn chaos(topic: &str, record: &Path, yes: bool, args: &ConfigArgs, as_json: bool) -> Result<ExitCode> {
    let loaded = config::load(args.config.as_deref())?;
    let composed = compose::compose_store(&loaded)?;
    let confirmings =
        compose::Confirmings::of(&loaded, true, &composed.engine.topics, &composed.confirm_metrics).await?;
    let target = confirmings.target(topic).with_context(|| format!("topic {topic:?} has no confirm section"))?;
    let text = match record == Path::new("-") {
        true => std::io::read_to_string(std::io::stdin())?,
        false => std::fs::read_to_string(record).with_context(|| format!("cannot read {}", record.display()))?,
    };
    let Ok(serde_json::Value::Object(_)) = serde_json::from_str(&text) else {
        bail!("{} is not one JSON object", record.display())
    };
    if !yes {
        bail!(
            "this asks {} for about thirty confirmations that it will really do; if it is a staging endpoint, say so with --yes",
            target.confirmer.target()
        );
    }
    let drills = drill::run(&target, text.into()).await;
    let failed = drills.iter().any(|drill| drill.finding == Finding::Failed);
    if as_json {
        println!("{}", json!({ "endpoint": target.confirmer.target(), "passed": !failed, "drills": drills }));
    } else {
        let row = |drill: &Drill| json!({ "drill": drill.name, "finding": drill.finding, "what is tried": drill.tries, "answers": drill.detail });
        print_table(&drills.iter().map(row).collect::<Vec<_>>());
        let keys = drills.iter().flat_map(|drill| &drill.keys);
        println!("\nLook these keys up in the endpoint's own books: each may be there once at most.");
        keys.for_each(|key| println!("  {key}"));
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
