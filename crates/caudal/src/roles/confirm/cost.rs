//! `caudal confirm cost`: what the measured load would cost a month, by deployment.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use caudal_core::confirm::cost::{Assumptions, Bill, Load, Prices, bills};
use caudal_core::confirm::ports::Arrivals;
use caudal_core::time::Instant;
use caudal_engine::clock;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::client::print_table;
use crate::cli::CostArgs;
use crate::{compose, config};

const BUILT_IN: &str = include_str!("prices-2026-11.toml");
const HOUR_MICROS: i64 = 3_600_000_000;
/// Ten years: more hours than that are a mistake in a file.
const HOURS_MAX: i64 = 10 * 366 * 24;

pub(super) async fn run(args: &CostArgs) -> Result<ExitCode> {
    let list = PriceList::read(args.prices.as_deref())?;
    let measured = match &args.curve {
        Some(file) => from_file(file)?,
        None => from_store(args).await?,
    };
    let load = Load {
        hours: measured.hours,
        calls_per_transaction: args.calls.or(measured.calls_per_transaction).unwrap_or(1.0),
        call_seconds: config::span(&args.call_time).context("--call-time")?.as_secs_f64(),
    };
    let bills = bills(&load, &list.prices()?, &list.assumptions)?;
    match args.json {
        true => println!("{}", as_json(&load, &bills, &list)),
        false => show(&load, &bills, &list, args.calls.is_none() && measured.calls_per_transaction.is_none()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Arrivals by hour, and what it took to settle them, where that is known.
struct Measured {
    hours: Vec<u64>,
    calls_per_transaction: Option<f64>,
}

async fn from_store(args: &CostArgs) -> Result<Measured> {
    let loaded = config::load(args.config.config.as_deref())?;
    let composed = compose::compose_store(&loaded)?;
    composed.engine.prepare().await?;
    let this_hour = clock::now().unix_micros().div_euclid(HOUR_MICROS);
    let mut arrivals = composed.engine.store.arrivals(args.days.saturating_mul(24)).await?;
    // It is not over yet.
    arrivals.retain(|arrived| arrived.hour.unix_micros().div_euclid(HOUR_MICROS) < this_hour);
    ensure!(
        !arrivals.is_empty(),
        "nothing that is to be confirmed arrived in whole hours of the last {} days: look back further with --days, or give a curve with --curve",
        args.days
    );
    let (settled, calls) =
        arrivals.iter().fold((0, 0), |(settled, calls), hour| (settled + hour.settled, calls + hour.calls));
    let calls_per_transaction = (settled > 0).then(|| calls as f64 / settled as f64);
    Ok(Measured { hours: up_to(&arrivals, this_hour - 1)?, calls_per_transaction })
}

/// One number an hour, from the first one with an arrival; hours without any are 0.
fn up_to(arrivals: &[Arrivals], last_hour: i64) -> Result<Vec<u64>> {
    let counts =
        arrivals.iter().map(|arrived| (arrived.hour.unix_micros().div_euclid(HOUR_MICROS), arrived.transactions));
    filled(&counts.collect(), last_hour)
}

fn filled(counts: &BTreeMap<i64, u64>, last_hour: i64) -> Result<Vec<u64>> {
    let Some((first, _)) = counts.first_key_value() else { bail!("there is no hour in it") };
    let hours = last_hour - first + 1;
    ensure!((1..=HOURS_MAX).contains(&hours), "it spans {hours} hours; up to {HOURS_MAX} can be counted");
    Ok((*first..=last_hour).map(|hour| counts.get(&hour).copied().unwrap_or_default()).collect())
}

/// Lines of `hour,count`; an hour is the time at which it begins (RFC 3339), or a number. A heading may come first.
fn from_file(file: &Path) -> Result<Measured> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let counts = curve(&text).with_context(|| file.display().to_string())?;
    let last = counts.last_key_value().map_or(0, |(hour, _)| *hour);
    Ok(Measured {
        hours: filled(&counts, last).with_context(|| file.display().to_string())?,
        calls_per_transaction: None,
    })
}

fn curve(text: &str) -> Result<BTreeMap<i64, u64>> {
    let mut counts = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let read = || {
            let (hour, count) = line.split_once(',')?;
            let hour = hour.trim();
            let at = |instant: Instant| instant.unix_micros().div_euclid(HOUR_MICROS);
            Some((
                hour.parse::<i64>().ok().or_else(|| Instant::parse(hour).map(at))?,
                count.trim().parse::<u64>().ok()?,
            ))
        };
        match read() {
            Some((hour, _)) if counts.contains_key(&hour) => bail!("line {}: this hour is there twice", number + 1),
            Some((hour, count)) => drop(counts.insert(hour, count)),
            None if number == 0 => {}
            None => bail!("line {}: {line:?} is no hour,count such as 2026-11-23T08:00:00Z,1200", number + 1),
        }
    }
    Ok(counts)
}

/// Prices with where they come from, and what is assumed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceList {
    region: String,
    dated: String,
    prices: BTreeMap<String, Price>,
    #[serde(default)]
    assumptions: Assumptions,
}

/// A list that replaces some of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    region: Option<String>,
    dated: Option<String>,
    #[serde(default)]
    prices: BTreeMap<String, Price>,
    #[serde(default)]
    assumptions: Assumptions,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Price {
    usd: f64,
    units: f64,
    unit: String,
    source: String,
    /// The day on which the source was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read: Option<String>,
    /// The year that it is remembered from, where it was not read anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from_memory: Option<u16>,
}

impl PriceList {
    fn read(changes: Option<&Path>) -> Result<Self> {
        let mut list: Self = toml::from_str(BUILT_IN).context("the prices that are built in")?;
        let Some(file) = changes else { return Ok(list) };
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let changes: Changes = toml::from_str(&text).with_context(|| file.display().to_string())?;
        if let Some(unknown) = changes.prices.keys().find(|name| !list.prices.contains_key(*name)) {
            let known: Vec<&str> = list.prices.keys().map(String::as_str).collect();
            bail!("{}: there is no price {unknown:?}; there are {}", file.display(), known.join(", "));
        }
        list.prices.extend(changes.prices);
        list.region = changes.region.unwrap_or(list.region);
        list.dated = changes.dated.unwrap_or(list.dated);
        list.assumptions = changes.assumptions;
        Ok(list)
    }

    /// For one unit of each.
    fn prices(&self) -> Result<Prices> {
        let mut each = serde_json::Map::new();
        for (name, price) in &self.prices {
            let usd = price.usd / price.units;
            ensure!(usd >= 0.0 && usd.is_finite(), "the price {name} is {} for {} units", price.usd, price.units);
            each.insert(name.clone(), usd.into());
        }
        serde_json::from_value(Value::Object(each)).context("the list of prices")
    }
}

fn as_json(load: &Load, bills: &[Bill], list: &PriceList) -> Value {
    json!({
        "load": {
            "hours": load.hours.len(),
            "transactions": load.hours.iter().sum::<u64>(),
            "transactions_per_month": load.transactions_per_month(),
            "calls_per_transaction": load.calls_per_transaction,
            "call_seconds": load.call_seconds,
        },
        "deployments": bills,
        "assumptions": list.assumptions,
        "prices": { "region": list.region, "dated": list.dated, "each": list.prices },
    })
}

fn show(load: &Load, bills: &[Bill], list: &PriceList, is_guess: bool) {
    let (hours, sum) = (load.hours.len(), load.hours.iter().sum::<u64>());
    println!("{sum} transactions in {hours} hours; {:.0} a month of 730 hours", load.transactions_per_month());
    let guess = if is_guess { " (assumed: it was not counted, and --calls does not say)" } else { "" };
    println!("{:.2} calls a transaction{guess}, {} s a call\n", load.calls_per_transaction, load.call_seconds);
    let usd = |amount: f64| format!("{amount:.2}");
    let row = |bill: &Bill| json!({ "deployment": bill.deployment, "$ a million": usd(bill.usd_per_million), "$ a month": usd(bill.usd_per_month) });
    print_table(&bills.iter().map(row).collect::<Vec<_>>());
    for bill in bills {
        println!("\n{}: {}", bill.deployment, bill.what);
        for line in &bill.lines {
            println!("  {:>10} $  {:.2} {}", usd(line.usd_per_month), line.amount, line.of);
        }
    }
    println!("\nassumed, and to be set under [assumptions] in a file given with --prices:");
    if let Ok(Value::Object(assumed)) = serde_json::to_value(list.assumptions) {
        assumed.iter().for_each(|(name, value)| println!("  {name} = {value}"));
    }
    println!("\nprices of {} as of {}, without free allowances, network, logs and backups:", list.region, list.dated);
    for price in list.prices.values() {
        let known = match (&price.read, price.from_memory) {
            (Some(day), _) => format!("read {day}"),
            (None, Some(year)) => format!("NOT VERIFIED, from memory of {year}"),
            (None, None) => "of your own".to_owned(),
        };
        println!("  {} $ for {} {}: {} ({known})", price.usd, price.units, price.unit, price.source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prices_that_are_built_in_are_complete_and_say_where_they_are_from() {
        let list = PriceList::read(None).expect("a list");
        list.prices().expect("one of each");
        for (name, price) in &list.prices {
            assert!(price.source.starts_with("https://"), "{name}");
            assert!(price.read.is_some() != price.from_memory.is_some(), "{name} was read, or remembered");
        }
    }

    #[test]
    fn a_curve_is_lines_of_hours_and_counts_with_gaps_filled() {
        let counts = curve("hour,count\n2026-11-23T08:00:00Z,5\n\n2026-11-23T11:30:00+00:00, 7\n").expect("a curve");
        let last = *counts.last_key_value().expect("an hour").0;
        assert_eq!(filled(&counts, last).expect("hours"), [5, 0, 0, 7]);
        assert_eq!(filled(&curve("3,1\n1,2").expect("a curve"), 3).expect("hours"), [2, 0, 1]);
        for (bad, expected) in
            [("hour,count\nx,1", "line 2"), ("1,2\n1,3", "twice"), ("1,2\n2,-1", "line 2"), ("1,2\n2", "line 2")]
        {
            let said = format!("{:#}", curve(bad).expect_err(bad));
            assert!(said.contains(expected), "{said}");
        }
        let years = curve("0,1\n99999999,1").expect("a curve");
        assert!(filled(&years, 99_999_999).is_err(), "no memory for eleven thousand years");
    }
}
