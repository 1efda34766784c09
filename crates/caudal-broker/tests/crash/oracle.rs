//! Says whether the log kept its promises, going by what its users were told.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use caudal_broker::embedded::EmbeddedBroker;
use caudal_core::message::Message;
use caudal_core::ports::Broker;
use caudal_testkit::broker::{message, next, receive, topic};

use super::child::{EACH, config};

/// The number that a message was made from.
pub(crate) fn number(message: &Message) -> u64 {
    let body = std::str::from_utf8(&message.body).expect("the body is text");
    let digits = body.trim_start_matches("{\"number\":").split(',').next().expect("a number");
    digits.parse().expect("a number")
}

fn lines(dir: &Path, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Numbers in the order of their offsets, which start at zero and have no hole.
pub(crate) fn stored(dir: &Path) -> Vec<u64> {
    let mut numbers = Vec::new();
    for line in lines(dir, "stored") {
        let (offset, number) = line.split_once(' ').expect("an offset and a number");
        assert_eq!(offset.parse(), Ok(numbers.len() as u64), "the subscriber saw every offset once, in order");
        numbers.push(number.parse().expect("a number"));
    }
    numbers
}

pub(crate) fn acked(dir: &Path) -> Vec<u64> {
    lines(dir, "acked").iter().map(|line| line.parse().expect("a number")).collect()
}

pub(crate) fn errors(dir: &Path) -> Vec<String> {
    lines(dir, "errors")
}

/// Opens the log and compares. What it says is the first promise that was broken.
pub(crate) async fn check(dir: &Path) -> Result<(), String> {
    let stored = stored(dir);
    let acked = acked(dir);
    let broker = EmbeddedBroker::open(dir.join("log"), config()).await.map_err(|error| error.to_string())?;
    let (next, log) = match broker.log_state(&topic("t")) {
        Ok(state) => {
            if state.first > stored.len() as u64 {
                return Err(format!("offsets from {} are gone, only {} were stored", state.first, stored.len()));
            }
            let mut subscription = broker.open_subscription(&topic("t"), "store").await.expect("subscribe works");
            let deliveries = receive(&mut subscription, (state.next - state.first) as usize).await;
            let log = deliveries.into_iter().map(|delivery| (next(&delivery) - 1, delivery.message)).collect();
            (state.next, log)
        }
        Err(_) => (0, HashMap::new()),
    };
    let result = compare(&stored, &acked, next, &log);
    broker.close().await.expect("close works");
    result
}

fn compare(stored: &[u64], acked: &[u64], next: u64, log: &HashMap<u64, Message>) -> Result<(), String> {
    let mut history: HashMap<u64, u64> = (0..).zip(stored.iter().copied()).collect();
    if next < stored.len() as u64 {
        return Err(format!("the log ends at {next}, but offset {} was served", stored.len() - 1));
    }
    for (offset, kept) in log {
        let number = number(kept);
        if *kept != message(number) {
            return Err(format!("message {number} is not what was published"));
        }
        if let Some(other) = history.insert(*offset, number).filter(|other| *other != number) {
            return Err(format!("offset {offset} was served as message {other} and is message {number} now"));
        }
    }
    let numbers: HashSet<u64> = history.values().copied().collect();
    if numbers.len() != history.len() {
        return Err("a message is there twice".to_owned());
    }
    if let Some(lost) = acked.iter().find(|number| !numbers.contains(number)) {
        return Err(format!("message {lost} was acked and is lost"));
    }
    let mut last: HashMap<u64, u64> = HashMap::new();
    for offset in 0..history.len() as u64 {
        let number = *history.get(&offset).ok_or_else(|| format!("offset {offset} was skipped"))?;
        if last.insert(number / EACH, number).is_some_and(|before| before > number) {
            return Err(format!("message {number} lies behind a later one of its publisher"));
        }
    }
    Ok(())
}
