//! `caudal confirm move`: transactions from the configured store to another one.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use caudal_core::confirm::LaneId;
use caudal_core::confirm::ports::{Beat, Confirmations};
use caudal_core::confirm::transfer::{Transferred, transfer};
use caudal_engine::metrics::Metrics;
use caudal_engine::topic::{Topic, Topics};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::client::progress;
use crate::cli::MoveArgs;
use crate::compose::{self, ConfirmStore};
use crate::config::{self, Loaded};
use crate::secret::SecretUrl;

/// Between two looks at leases that are to end.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) async fn run(args: &MoveArgs) -> Result<ExitCode> {
    let loaded = config::load(args.config.config.as_deref())?;
    let wait = config::span(&args.wait).context("--wait")?;
    let to = SecretUrl::new(&args.to);
    let topics = compose::topics(&loaded, &Metrics::register(&mut Registry::default()))?;
    let chosen = chosen(&loaded, &topics, args.topic.as_deref())?;
    let (store, from) = ConfirmStore::configured(&loaded).await?;
    if from.expose() == to.expose() {
        bail!("the transactions are in {from} already");
    }
    let here = End { port: store.port(), name: from.to_string(), store };
    let store = ConfirmStore::open(&loaded, &to).await?;
    let there = End { port: store.port(), name: to.to_string(), store };
    let mut lanes = Vec::new();
    for topic in &chosen {
        lanes.extend(pair(topic, &here, &there).await?);
    }
    all_are_configured(&here, &lanes).await?;
    let paused = format!("moved, or being moved, from {} to {}", here.name, there.name);
    for lane in &lanes {
        lane.pause(&here, &paused).await?;
        lane.pause(&there, &paused).await?;
    }
    for lane in &lanes {
        quiet(&here, lane.here, wait).await.with_context(|| lane.to_string())?;
        quiet(&there, lane.there, wait).await.with_context(|| lane.to_string())?;
    }
    let mut moved = Vec::with_capacity(lanes.len());
    for lane in &lanes {
        moved.push(
            lane.transfer(&here, &there).await.with_context(|| {
                format!("{lane}: both ends stay paused; repeating the command goes on where it ended")
            })?,
        );
    }
    let same = moved.iter().all(|moved| moved.differences.is_empty());
    if same && args.resume {
        for lane in &lanes {
            there.port.resume(&lane.topic.name, Some(&lane.name)).await?;
        }
    }
    match args.json {
        true => println!("{}", report(&here, &there, &lanes, &moved, same)),
        false => tell(&here, &there, &lanes, &moved, same && args.resume),
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The topics whose transactions move.
fn chosen<'t>(loaded: &Loaded, topics: &'t Topics, only: Option<&str>) -> Result<Vec<&'t Arc<Topic>>> {
    if let Some(name) = only.filter(|name| loaded.settings.adopt.contains_key(*name)) {
        bail!(
            "adopt.{name}: these transactions are rows of a table that another program writes; they stay where it is"
        );
    }
    let confirmed: Vec<_> = topics.iter().filter(|topic| topic.config.lanes.is_some()).collect();
    let chosen: Vec<_> =
        confirmed.iter().copied().filter(|topic| only.is_none_or(|only| topic.name.as_str() == only)).collect();
    if chosen.is_empty() {
        let names: Vec<_> = confirmed.iter().map(|topic| topic.name.as_str()).collect();
        bail!("there is no topic with a confirm section{}; these have one: [{}]", wanted(only), names.join(", "));
    }
    Ok(chosen)
}

fn wanted(only: Option<&str>) -> String {
    only.map(|name| format!(" and the name {name:?}")).unwrap_or_default()
}

/// A store, as one end of a move.
struct End {
    store: ConfirmStore,
    port: Arc<dyn Confirmations>,
    /// Without its password.
    name: String,
}

/// A lane of both.
struct Lane {
    topic: Arc<Topic>,
    name: String,
    here: LaneId,
    there: LaneId,
}

impl std::fmt::Display for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic.name, self.name)
    }
}

/// The topic's lanes, made known to both stores. First to the one that has them: there may be columns that no schema names.
async fn pair(topic: &Arc<Topic>, here: &End, there: &End) -> Result<Vec<Lane>> {
    let from = here.store.prepare_for(topic).await.with_context(|| here.name.clone())?;
    let to = there.store.prepare_for(topic).await.with_context(|| there.name.clone())?;
    let names = topic.config.lanes.iter().flat_map(|lanes| lanes.names.clone());
    let lane = |((name, here), there)| Lane { topic: topic.clone(), name, here, there };
    Ok(names.zip(from).zip(to).map(lane).collect())
}

/// A lane that was configured once, and still has transactions, would be left behind without a word.
async fn all_are_configured(here: &End, lanes: &[Lane]) -> Result<()> {
    let known: BTreeSet<(&str, &str)> =
        lanes.iter().map(|lane| (lane.topic.name.as_str(), lane.name.as_str())).collect();
    let topics: BTreeSet<&str> = known.iter().map(|(topic, _)| *topic).collect();
    for lane in here.port.lanes().await? {
        let (topic, name) = (lane.topic.as_str(), lane.lane.as_str());
        if topics.contains(topic) && lane.enqueued > 0 && !known.contains(&(topic, name)) {
            bail!(
                "lane {name} of {topic} has transactions and is not configured: name it in topics.{topic}.confirm.lanes"
            );
        }
    }
    Ok(())
}

/// Waits until nobody is calling. Beats meanwhile, so that what a dead worker left behind ends with its lease.
async fn quiet(end: &End, lane: LaneId, wait: Duration) -> Result<()> {
    let worker: Arc<str> = format!("{}:move", compose::instance()).into();
    let (begun, ttl) = (Instant::now(), Duration::from_secs(5));
    loop {
        let leases = end.port.standing(lane).await?.leases;
        if leases == 0 {
            return Ok(end.port.leave(&worker).await?);
        }
        if begun.elapsed() > wait {
            bail!(
                "{leases} batches are still under way in {}: its calls take longer than --wait, or a worker died and its lease lasts \
                 longer; the lane stays paused, so repeat the command",
                end.name
            );
        }
        end.port.beat(&Beat { worker: worker.clone(), ttl, lanes: vec![lane], promote_max: 1, thorough: true }).await?;
        tokio::time::sleep(LOOK).await;
    }
}

impl Lane {
    async fn pause(&self, end: &End, reason: &str) -> Result<()> {
        end.port.pause(&self.topic.name, Some(&self.name), reason).await.with_context(|| end.name.clone())?;
        Ok(())
    }

    async fn transfer(&self, here: &End, there: &End) -> Result<Transferred> {
        let all = here.port.lanes().await?;
        let own = all.iter().find(|lane| lane.topic == self.topic.name.as_str() && lane.lane == self.name);
        let bar = progress(own.map(|lane| lane.enqueued), &self.to_string());
        let done = transfer((&*here.port, self.here), (&*there.port, self.there), |rows| bar.set_position(rows)).await;
        bar.finish_and_clear();
        Ok(done?)
    }
}

fn report(here: &End, there: &End, lanes: &[Lane], moved: &[Transferred], same: bool) -> Value {
    let lane = |(lane, done): (&Lane, &Transferred)| {
        let differences = done.differences.iter().map(|(id, what)| json!({ "transaction_id": id, "in": what }));
        json!({
            "topic": lane.topic.name.as_str(), "lane": lane.name, "transactions": done.rows, "copied": done.copied,
            "renewed": done.renewed, "outcomes": done.outcomes, "differences": differences.collect::<Vec<_>>(),
        })
    };
    let lanes: Vec<Value> = lanes.iter().zip(moved).map(lane).collect();
    json!({ "from": here.name, "to": there.name, "same": same, "lanes": lanes })
}

fn tell(here: &End, there: &End, lanes: &[Lane], moved: &[Transferred], resumed: bool) {
    for (lane, done) in lanes.iter().zip(moved) {
        println!(
            "{lane}: {} transactions, {} with an outcome; {} copied, {} brought up to date, the others were there",
            done.rows, done.outcomes, done.copied, done.renewed
        );
        for (id, what) in &done.differences {
            println!("  {id} differs: {what}");
        }
    }
    if moved.iter().any(|done| !done.differences.is_empty()) {
        println!("NOT the same in {} as in {}: both stay paused until somebody has looked", there.name, here.name);
        return;
    }
    println!("every one of them is the same in {}; in {} they stay, paused", there.name, here.name);
    let setting = if there.name.starts_with("dynamodb:") { "confirm.store" } else { "store.url" };
    match resumed {
        true => println!("it goes on there: let {setting} be {}", there.name),
        false => println!("to go on there, let {setting} be {}, then `caudal confirm resume`", there.name),
    }
}
