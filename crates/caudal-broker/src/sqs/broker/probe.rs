//! What SNS and SQS say about themselves, and what their word is worth.

use caudal_core::message::Durability;
use caudal_core::ports::Probe;

use super::address::Address;
use super::failure::Failure;
use super::place::{Plan, Queue};
use super::topology::Topology;
use crate::sqs::names::QueueRef;

/// AWS names no version. What it says: queues are "distributed on Amazon SQS servers", which store each message redundantly on
/// several of them, and both services spread over the Availability Zones of a region (SQS and SNS developer guides,
/// "Resilience"). That is the loss of a machine or a zone. It does not say that a message is on disk when a publish is
/// answered, which is what `power` would need.
const WHY_FAILOVER: &str = "AWS keeps each message on several servers and in several Availability Zones before it confirms; it does not promise that it is on disk, so a class above failover cannot be claimed";

pub(crate) async fn probe(
    topology: &Topology,
    address: &Address,
    places: Vec<(Plan, Vec<String>)>,
) -> Result<Probe, Failure> {
    let mut reasons = Vec::new();
    let (product, durability) = if topology.is_aws {
        reasons.push(WHY_FAILOVER.to_owned());
        (format!("Amazon SNS and SQS in {}", topology.aws.region), Durability::Failover)
    } else {
        let endpoint = address.endpoint.as_deref().unwrap_or_default();
        reasons.push(format!(
            "{endpoint} is not AWS but something that speaks its language, and does not tell what it keeps and where"
        ));
        (format!("an SNS and SQS endpoint at {endpoint}"), Durability::Unknown)
    };
    if places.is_empty() {
        reached(topology).await?;
    }
    for (plan, subscriptions) in places {
        for subscription in subscriptions {
            let wanted = plan.queue(&subscription);
            match topology.find_queue(&wanted).await {
                Ok(queue) => reasons.extend(settings(&queue)),
                Err(Failure::Missing(_)) => {
                    reasons.push(format!("queue {} does not exist yet", wanted.name()));
                }
                Err(failure) => return Err(failure),
            }
        }
    }
    Ok(Probe { product, durability, reasons })
}

/// Asks for a queue that need not exist: any answer about it is one.
async fn reached(topology: &Topology) -> Result<(), Failure> {
    match topology.find_queue(&QueueRef::Name("caudal".to_owned(), None)).await {
        Ok(_) | Err(Failure::Missing(_)) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// What bounds the promise of one queue.
fn settings(queue: &Queue) -> Vec<String> {
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
