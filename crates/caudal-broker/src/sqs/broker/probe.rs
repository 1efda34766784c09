//! What SNS and SQS say about themselves, and what their word is worth.

use caudal_core::message::Durability;
use caudal_core::ports::Probe;

use super::address;
use super::failure::Failure;
use super::place::{Plan, Queue};
use super::topology::Topology;
use crate::sqs::names::QueueRef;

/// AWS names no version. What it says: a queue is distributed over servers that store each message redundantly, and both
/// services use the Availability Zones of a region so that one of them may fail (SQS and SNS developer guides, "Resilience").
/// That is the loss of a machine or a zone. It does not say that a message is on disk when a publish is answered, which is
/// what `power` would need.
const WHY_FAILOVER: &str = "AWS stores each message on several servers of a region; it does not promise that it is on disk before \
                            it is confirmed, so nothing above failover can be claimed";

pub(crate) async fn probe(topology: &Topology, places: Vec<(Plan, Vec<String>)>) -> Result<Probe, Failure> {
    let mut is_aws = topology.aws.endpoint.as_deref().is_none_or(address::is_aws);
    let mut settings = Vec::new();
    if places.is_empty() {
        // Any answer about a queue that need not exist is one.
        found(topology, &QueueRef::Name("caudal".to_owned(), None)).await?;
    }
    for (plan, subscriptions) in places {
        for subscription in subscriptions {
            let wanted = plan.queue(&subscription);
            match found(topology, &wanted).await? {
                Some(queue) => {
                    // The address may be one that the environment gives to a single service; a queue's own URL tells.
                    is_aws = is_aws && address::is_aws(&queue.url);
                    settings.extend(limits(&queue));
                }
                None => settings.push(format!("queue {} does not exist yet", wanted.name())),
            }
        }
    }
    let region = &topology.aws.region;
    let (product, durability, why) = match is_aws {
        true => (format!("Amazon SNS and SQS in {region}"), Durability::Failover, WHY_FAILOVER.to_owned()),
        false => {
            let endpoint = topology.aws.endpoint.as_deref().unwrap_or("an endpoint of its own");
            let why =
                format!("{endpoint} is not AWS but speaks its language, and does not tell what it keeps, and where");
            (format!("SNS and SQS at {endpoint}"), Durability::Unknown, why)
        }
    };
    settings.insert(0, why);
    Ok(Probe { product, durability, reasons: settings })
}

async fn found(topology: &Topology, queue: &QueueRef) -> Result<Option<Queue>, Failure> {
    match topology.find_queue(queue).await {
        Ok(queue) => Ok(Some(queue)),
        Err(Failure::Missing(_)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// What bounds the promise of one queue.
fn limits(queue: &Queue) -> Vec<String> {
    let arn = &queue.arn;
    let mut reasons = Vec::new();
    if let Some(seconds) = queue.retention_seconds {
        let (days, hours) = (seconds / 86_400, seconds % 86_400 / 3600);
        reasons.push(format!("{arn} deletes what was not consumed within {days} days and {hours} hours"));
    }
    if queue.redrive.is_none() {
        reasons.push(format!(
            "{arn} has no redrive policy, so what no worker can settle comes again until it is deleted by age"
        ));
    }
    reasons
}
