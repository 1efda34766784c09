//! What a call costs: this crate's client beside hyper-util's and reqwest's, against an endpoint of its own process.
//!
//! ```text
//! cargo build --profile quick -p caudal-testkit --example endpoint && target/quick/examples/endpoint 127.0.0.1:9999 &
//! cargo run --profile quick -p caudal-confirm --example clients -- 127.0.0.1:9999 [seconds [calls under way]]
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use caudal_confirm::http::{HttpConfig, HttpConfirmer};
use caudal_core::confirm::Item;
use caudal_core::confirm::answer::Answer;
use caudal_core::confirm::ports::{Call, Confirmer};
use caudal_core::time::Instant as StoreTime;
use caudal_core::topic::TopicName;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use uuid::Uuid;

const BODY_BYTES_MAX: usize = 64 * 1024;
const TIMEOUT: Duration = Duration::from_secs(30);

struct Legacy(Client<HttpConnector, Full<Bytes>>, String);
struct Reqwest(reqwest::Client, String);

#[async_trait]
impl Confirmer for Legacy {
    async fn call(&self, call: Call<'_>) -> Answer {
        let request = http::Request::post(&self.1)
            .header("content-type", "application/json")
            .header("idempotency-key", call.key.to_string())
            .body(Full::new(call.item.record.clone()))
            .expect("a request");
        let exchange = async {
            let (head, body) = self.0.request(request).await.map_err(|e| e.to_string())?.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|e| e.to_string())?.to_bytes();
            Ok::<_, String>(Answer::Status { code: head.status.as_u16(), retry_after: None, body })
        };
        tokio::time::timeout(TIMEOUT, exchange).await.expect("in time").unwrap_or_else(Answer::Unknown)
    }

    async fn probe(&self, _: Call<'_>) -> Answer {
        unreachable!("nothing is asked")
    }

    fn target(&self) -> &str {
        "hyper-util"
    }
}

#[async_trait]
impl Confirmer for Reqwest {
    async fn call(&self, call: Call<'_>) -> Answer {
        let request = self.0.post(&self.1).header("content-type", "application/json");
        let request = request.header("idempotency-key", call.key.to_string()).body(call.item.record.clone());
        let exchange = async {
            let answer = request.send().await.map_err(|e| e.to_string())?;
            let code = answer.status().as_u16();
            let body = answer.bytes().await.map_err(|e| e.to_string())?;
            Ok::<_, String>(Answer::Status { code, retry_after: None, body })
        };
        exchange.await.unwrap_or_else(Answer::Unknown)
    }

    async fn probe(&self, _: Call<'_>) -> Answer {
        unreachable!("nothing is asked")
    }

    fn target(&self) -> &str {
        "reqwest"
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().expect("the endpoint's address");
    let seconds = arguments.next().map_or(5, |text| text.parse().expect("seconds"));
    let under_way = arguments.next().map_or(64, |text| text.parse().expect("calls under way"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let url = format!("http://{address}/payments");
    runtime.block_on(async {
        let connector = HttpConnector::new();
        let own = HttpConfirmer::open(&HttpConfig::new(&url)).expect("a confirmer");
        let legacy = Legacy(Client::builder(TokioExecutor::new()).build(connector), url.clone());
        let reqwest = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().expect("a client");
        let clients: [(&str, Arc<dyn Confirmer>); 3] = [
            ("caudal-confirm", Arc::new(own)),
            ("hyper-util", Arc::new(legacy)),
            ("reqwest", Arc::new(Reqwest(reqwest, url))),
        ];
        for round in 0..2 {
            for (name, client) in &clients {
                measure(round, name, client, Duration::from_secs(seconds), under_way).await;
            }
        }
    });
}

async fn measure(round: u32, name: &str, client: &Arc<dyn Confirmer>, time: Duration, under_way: usize) {
    let calls = Arc::new(AtomicU64::new(0));
    let (began, cpu) = (Instant::now(), processor_time());
    let tasks: Vec<_> = (0..under_way)
        .map(|_| {
            let (client, calls) = (client.clone(), calls.clone());
            tokio::spawn(async move {
                let topic = TopicName::parse("payments").expect("a name");
                let at = StoreTime(0);
                let record = Bytes::from(format!("{{\"note\":\"{}\"}}", "x".repeat(188)));
                let mut item = Item {
                    id: Uuid::nil(),
                    attempts: 0,
                    crashes: 0,
                    doubt: false,
                    since: at,
                    first_sent: None,
                    claimed: at,
                    record,
                };
                while began.elapsed() < time {
                    item.id = Uuid::now_v7();
                    let call = Call { topic: &topic, item: &item, key: item.id, attempt: 1 };
                    assert_eq!(client.call(call).await.code(), Some(200));
                    calls.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no call failed");
    }
    let (calls, took) = (calls.load(Relaxed) as f64, began.elapsed().as_secs_f64());
    let each = (processor_time() - cpu) * 1e6 / calls;
    println!("round {round}  {name:15} {:8.0} calls/s  {each:5.1} µs of processor a call", calls / took);
}

/// Seconds that this process has computed.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    // utime and stime, in hundredths of a second.
    (ticks(11) + ticks(12)) / 100.0
}
