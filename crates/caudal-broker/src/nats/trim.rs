//! Removes from a stream that we made what every consumer has acked, so that it holds the backlog and not the past.
//!
//! Only up to where all stood a while ago: after a crash the server may remember a consumer as standing further back than it
//! did, and then finds the messages in between still there instead of missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use caudal_core::error::BrokerError;
use serde_json::json;

use super::link::Link;
use super::place::TopicStream;

const TRIM_EVERY: Duration = Duration::from_secs(30);

pub(super) struct Trim {
    link: Arc<Link>,
    stream: Arc<TopicStream>,
    last: Instant,
    /// Up to where every consumer had acked then.
    floor: Arc<AtomicU64>,
}

impl Trim {
    pub(super) fn new(link: &Arc<Link>, stream: &Arc<TopicStream>) -> Self {
        Self { link: link.clone(), stream: stream.clone(), last: Instant::now(), floor: Arc::default() }
    }

    /// Beside the subscription's work, which must not wait for it.
    pub(super) fn when_due(&mut self) {
        if !self.stream.ours || self.last.elapsed() < TRIM_EVERY {
            return;
        }
        self.last = Instant::now();
        let (link, stream, floor) = (self.link.clone(), self.stream.clone(), self.floor.clone());
        tokio::spawn(async move {
            if let Err(error) = link.trim(&stream.stream, &floor).await {
                tracing::debug!(stream = %stream.stream, %error, "acked messages were not removed");
            }
        });
    }
}

impl Link {
    /// Removes what was acked by all when `floor` was noted, and notes how far that is now.
    pub(super) async fn trim(&self, stream: &str, floor: &AtomicU64) -> Result<(), BrokerError> {
        let Some(acked) = self.acked_by_all(stream).await? else { return Ok(()) };
        let before = floor.swap(acked, Ordering::Relaxed);
        if before == 0 || before > acked {
            return Ok(());
        }
        let purge = json!({ "seq": before + 1 });
        let purged = self.ask(&format!("STREAM.PURGE.{stream}"), &purge).await?;
        purged.map(drop).map_err(|refusal| refusal.explain("remove acked messages"))
    }

    /// The stream sequence up to which every consumer has acked; `None` without consumers.
    async fn acked_by_all(&self, stream: &str) -> Result<Option<u64>, BrokerError> {
        let mut floor = None;
        let mut offset = 0;
        loop {
            let answer = self.ask(&format!("CONSUMER.LIST.{stream}"), &json!({ "offset": offset })).await?;
            let answer = answer.map_err(|refusal| refusal.explain("list consumers"))?;
            let Some(consumers) = answer["consumers"].as_array().filter(|all| !all.is_empty()) else { break };
            for consumer in consumers {
                let acked = consumer["ack_floor"]["stream_seq"].as_u64().unwrap_or(0);
                floor = Some(floor.map_or(acked, |floor: u64| floor.min(acked)));
            }
            offset += consumers.len() as u64;
            if offset >= answer["total"].as_u64().unwrap_or(0) {
                break;
            }
        }
        Ok(floor)
    }
}

#[cfg(test)]
mod tests {
    use caudal_core::ports::{Broker, Subscription};
    use caudal_testkit::broker::{Reader, messages, topic};

    use super::*;
    use crate::nats::NatsBroker;
    use crate::remote::RemoteConfig;

    async fn first(link: &Link) -> u64 {
        let info = link.stream_info("caudal-trimmed").await.expect("an answer").expect("the stream");
        info["state"]["first_seq"].as_u64().expect("a number")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_all_have_acked_goes_one_round_later() {
        let server = caudal_testkit::nats::Nats::start().expect("a server");
        let mut config = RemoteConfig::new(server.url());
        config.subscriptions.push("audit".to_owned());
        let nats = NatsBroker::open(config).await.expect("the broker opens");
        let link = nats.link().await.expect("a connection");
        let broker: Arc<dyn Broker> = Arc::new(nats);
        let topic = topic("trimmed");
        broker.publish(&topic, messages(0..10)).await.expect("publish works");
        let mut store = Reader::new(&broker, &topic, "store", &Default::default()).await;
        let mut audit = Reader::new(&broker, &topic, "audit", &Default::default()).await;
        store.take(8).await;
        let kept = audit.receive(5).await;
        audit.settle(&kept[..4]).await;
        let floor = AtomicU64::new(0);
        let trim = || async {
            // Acks are taken a moment after they are sent.
            tokio::time::sleep(Duration::from_millis(100)).await;
            link.trim("caudal-trimmed", &floor).await.expect("it is trimmed");
            first(&link).await
        };
        assert_eq!(trim().await, 1, "noted");
        assert_eq!(trim().await, 5, "the slower of both holds the rest");
        audit.settle(&kept[4..]).await;
        audit.take(5).await;
        store.take(2).await;
        assert_eq!(trim().await, 5, "noted again");
        assert_eq!(trim().await, 11);
        broker.publish(&topic, messages(10..12)).await.expect("publish works");
        let deliveries = store.receive(2).await;
        assert!(deliveries.iter().all(|delivery| delivery.missing == 0), "trimmed is not missing");
        let mut late = broker.subscribe(&topic, "late", Arc::new(caudal_testkit::broker::Ledger::default())).await;
        let late: &mut Box<dyn Subscription> = late.as_mut().expect("subscribe works");
        let deliveries = late.receive(2, usize::MAX).await.expect("receive works");
        assert!(deliveries.iter().all(|delivery| delivery.missing == 0), "nor to a subscription made later");
    }
}
