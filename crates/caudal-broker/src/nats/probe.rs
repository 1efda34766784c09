//! What a confirmation of this server is worth, from what JetStream and the server's monitoring page say.

use std::time::Duration;

use caudal_core::error::BrokerError;
use caudal_core::message::Durability;
use caudal_core::ports::Probe;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::link::Link;
use super::place::{TopicStream, text};

/// Bytes of a monitoring page that are read.
const PAGE_BYTES_MAX: u64 = 1024 * 1024;
const PAGE_WITHIN: Duration = Duration::from_secs(3);

/// How the server that a stream lives on writes to its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Syncing {
    Always,
    Every(Duration),
    /// Nobody told us, and why.
    NotSeen(String),
}

/// A server's monitoring page.
#[derive(Debug, Clone)]
struct Page {
    server: String,
    syncing: Syncing,
}

impl Link {
    pub(super) async fn probe(&self, streams: &[(&str, &TopicStream)]) -> Result<Probe, BrokerError> {
        let info = self.client.server_info();
        let product = match &info.cluster {
            Some(cluster) => format!("NATS {} (cluster {cluster})", info.version),
            None => format!("NATS {}", info.version),
        };
        let pages = self.pages().await;
        let mut worst = None;
        let mut reasons = Vec::new();
        for (topic, stream) in streams {
            let Some(info) = self.stream_info(&stream.stream).await? else { continue };
            let (durability, reason) = class(&info, &pages, &self.client.server_info().version);
            worst = Some(worst.map_or(durability, |worst: Durability| worst.min(durability)));
            reasons.push(format!("topic {topic}, stream {}: {reason}", stream.stream));
        }
        if reasons.is_empty() {
            reasons.push("no topic was asked about, and durability is a stream's".to_owned());
        }
        Ok(Probe { product, durability: worst.unwrap_or(Durability::Unknown), reasons })
    }

    async fn pages(&self) -> Result<Vec<Page>, String> {
        if self.address.monitoring.is_empty() {
            return Err(
                "JetStream does not tell how often it syncs its files; name the server's monitoring address with \
                        ?monitoring=http://HOST:8222 in the broker's URL"
                    .to_owned(),
            );
        }
        let mut pages = Vec::new();
        for address in &self.address.monitoring {
            let page = tokio::time::timeout(PAGE_WITHIN, page(address)).await;
            let page = page.map_err(|_| format!("http://{address}/varz does not answer"))?;
            pages.push(Page::of(&page.map_err(|error| format!("http://{address}/varz: {error}"))?));
        }
        Ok(pages)
    }
}

impl Page {
    fn of(page: &Value) -> Self {
        let config = &page["jetstream"]["config"];
        let syncing = match (config["sync_always"].as_bool(), config["sync_interval"].as_u64()) {
            (Some(true), _) => Syncing::Always,
            (_, Some(nanos)) => Syncing::Every(Duration::from_nanos(nanos)),
            _ => Syncing::NotSeen("the server's monitoring page does not tell how often it syncs".to_owned()),
        };
        Self { server: text(page, "server_name").to_owned(), syncing }
    }
}

/// The class of one stream, and why.
fn class(info: &Value, pages: &Result<Vec<Page>, String>, version: &str) -> (Durability, String) {
    let config = &info["config"];
    let replicas = config["num_replicas"].as_u64().unwrap_or(1);
    if text(config, "persist_mode") == "async" {
        return (
            Durability::Unknown,
            "it confirms messages before it writes them (persist_mode async); use the default persist_mode".to_owned(),
        );
    }
    if replicas >= 3 {
        return (
            Durability::Failover,
            format!("it has {replicas} replicas, and a majority has each confirmed message"),
        );
    }
    if text(config, "storage") != "file" {
        return (
            Durability::Unknown,
            "it is kept in memory and gone when the server ends; make it with --storage=file".to_owned(),
        );
    }
    let one = match replicas {
        1 => "it has no replica",
        _ => "with 2 replicas one machine's loss stops it",
    };
    match syncing(info, pages) {
        Syncing::Always if replicas == 1 => {
            (Durability::Power, "it is on disk before a message is confirmed (sync_interval: always)".to_owned())
        }
        Syncing::Always => (Durability::Process, format!("{one}; 3 replicas make it survive one")),
        Syncing::Every(interval) => (
            Durability::Process,
            format!(
                "{one}, and the server syncs its file every {interval:?}: a loss of power loses what was confirmed since; \
                 set sync_interval: always in the jetstream block, or give it 3 replicas"
            ),
        ),
        Syncing::NotSeen(_) if before_2_10(version) => (
            Durability::Process,
            format!(
                "{one}, and NATS {version} syncs its file only now and then, which cannot be set before 2.10: a loss of \
                 power loses what was confirmed since; give it 3 replicas, or use a newer server with sync_interval: always"
            ),
        ),
        Syncing::NotSeen(why) => {
            (Durability::Process, format!("{one}, and by default the server syncs its file every 2 minutes ({why})"))
        }
    }
}

/// How the server that holds the stream syncs.
fn syncing(info: &Value, pages: &Result<Vec<Page>, String>) -> Syncing {
    let pages = match pages {
        Ok(pages) => pages,
        Err(why) => return Syncing::NotSeen(why.clone()),
    };
    let holder = text(&info["cluster"], "leader");
    // A server alone has no name among others.
    let alone = holder.is_empty() && pages.len() == 1;
    match pages.iter().find(|page| alone || page.server == holder) {
        Some(page) => page.syncing.clone(),
        None => Syncing::NotSeen(format!("it lives on server {holder:?}, whose monitoring page was not named")),
    }
}

fn before_2_10(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u64>().unwrap_or(u64::MAX));
    let (major, minor) = (parts.next().unwrap_or(u64::MAX), parts.next().unwrap_or(u64::MAX));
    (major, minor) < (2, 10)
}

/// Fetches `/varz`. Monitoring has no TLS worth its own client here.
async fn page(address: &str) -> Result<Value, String> {
    let (host, path) =
        address.split_once('/').map_or((address, String::new()), |(host, path)| (host, format!("/{path}")));
    let said = async {
        let mut stream = TcpStream::connect(host).await?;
        let request = format!("GET {path}/varz HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(PAGE_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = said.await.map_err(|error| error.to_string())?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    match head.split(' ').nth(1) {
        Some("200") => serde_json::from_str(body).map_err(|error| error.to_string()),
        _ => Err(head.lines().next().unwrap_or_default().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn page(config: Value) -> Result<Vec<Page>, String> {
        Ok(vec![Page::of(&json!({ "server_name": "n1", "jetstream": { "config": config } }))])
    }

    fn of(stream: Value, pages: &Result<Vec<Page>, String>, version: &str) -> (Durability, String) {
        class(&stream, pages, version)
    }

    /// The two pages are as nats-server 2.9.10 and 2.10.27 give them.
    #[test]
    fn classes() {
        let file = json!({ "config": { "storage": "file", "num_replicas": 1 } });
        let unseen = Err("not named".to_owned());
        let always = page(json!({ "sync_interval": 120_000_000_000_u64, "sync_always": true }));
        let (durability, reason) = of(file.clone(), &always, "2.10.27");
        assert_eq!(durability, Durability::Power, "{reason}");
        for (pages, version, says) in [
            (page(json!({ "sync_interval": 120_000_000_000_u64 })), "2.10.27", "every 120s"),
            (page(json!({ "max_memory": 1 })), "2.9.10", "cannot be set before 2.10"),
            (unseen.clone(), "2.10.27", "not named"),
            (unseen.clone(), "2.9.10", "cannot be set before 2.10"),
        ] {
            let (durability, reason) = of(file.clone(), &pages, version);
            assert!(durability == Durability::Process && reason.contains(says), "{durability}: {reason}");
        }
        let memory = json!({ "config": { "storage": "memory", "num_replicas": 1 } });
        assert_eq!(of(memory, &always, "2.10.27").0, Durability::Unknown);
        let replicated = json!({ "config": { "storage": "file", "num_replicas": 3 } });
        assert_eq!(of(replicated, &unseen, "2.10.27").0, Durability::Failover);
        let careless = json!({ "config": { "storage": "file", "num_replicas": 3, "persist_mode": "async" } });
        assert_eq!(of(careless, &always, "2.12.0").0, Durability::Unknown);
        let elsewhere = json!({ "config": { "storage": "file", "num_replicas": 1 }, "cluster": { "leader": "n2" } });
        let (durability, reason) = of(elsewhere, &always, "2.10.27");
        assert!(durability == Durability::Process && reason.contains("\"n2\""), "{reason}");
    }
}
