//! A disk that is really full, without root: the process's own file size limit stops allocation, and a write half way.

use std::path::Path;
use std::process::Command;

use caudal_broker::embedded::{EmbeddedBroker, EmbeddedConfig};
use caudal_core::error::BrokerError;
use caudal_core::message::Message;
use caudal_core::ports::{Broker, Publish};
use caudal_testkit::broker::{message, messages, receive, topic};
use rustix::process::{Resource, Rlimit, setrlimit};

/// Under the size of the segment, so that its last part cannot be written.
const FILE_BYTES_MAX: u64 = 6000;

fn config() -> EmbeddedConfig {
    EmbeddedConfig { segment_bytes: 8192, ..EmbeddedConfig::default() }
}

fn sized(number: u64, bytes: usize) -> Vec<Message> {
    vec![Message { body: vec![b'1'; bytes].into(), ..message(number) }]
}

/// Does nothing unless the test below started it as a child.
#[tokio::test]
async fn child() {
    let Ok(dir) = std::env::var("CAUDAL_TEST_LIMITED_DIR") else { return };
    setrlimit(Resource::Fsize, Rlimit { current: Some(FILE_BYTES_MAX), maximum: None }).expect("the limit is set");
    let broker = EmbeddedBroker::open(&dir, config()).await.expect("it opens");
    let publish = async |messages| broker.publish(&topic("t"), messages).await;
    publish(sized(1, 2000)).await.expect("there is room");
    let partly_written = publish(sized(2, 5000)).await;
    assert!(matches!(partly_written, Err(BrokerError::Full(_))), "{partly_written:?}");
    let not_allocated = publish(sized(3, 100)).await;
    assert!(matches!(not_allocated, Err(BrokerError::Full(_))), "{not_allocated:?}");
    let mut subscription = broker.open_subscription(&topic("t"), "store").await.expect("subscribe works");
    assert_eq!(receive(&mut subscription, 2).await.len(), 2, "reads go on");
    broker.close().await.expect("close works");
    std::process::exit(0);
}

fn run_limited(dir: &Path) -> bool {
    // Over the limit the system sends a signal, unless it is ignored; then the call fails, as on a full disk.
    let mut command = Command::new("sh");
    command.args(["-c", r#"trap '' XFSZ; exec "$0" "$@""#]).arg(std::env::current_exe().expect("a path"));
    command.args(["--exact", "limit::child", "--nocapture"]).env("CAUDAL_TEST_LIMITED_DIR", dir);
    command.stdout(std::process::Stdio::null()).status().expect("the child starts").success()
}

#[tokio::test]
async fn a_disk_that_is_really_full_loses_nothing_and_is_told() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let broker = EmbeddedBroker::open(dir.path(), config()).await.expect("it opens");
    broker.publish(&topic("t"), messages(0..1)).await.expect("publish works");
    broker.close().await.expect("close works");
    assert!(run_limited(dir.path()));
    let broker = EmbeddedBroker::open(dir.path(), config()).await.expect("it opens when there is space");
    broker.publish(&topic("t"), sized(2, 5000)).await.expect("there is room again");
    broker.publish(&topic("t"), sized(3, 9000)).await.expect("there is room again");
    let mut subscription = broker.open_subscription(&topic("t"), "store").await.expect("subscribe works");
    let all: Vec<_> = receive(&mut subscription, 4).await.into_iter().map(|delivery| delivery.message).collect();
    assert_eq!(all, [messages(0..1), sized(1, 2000), sized(2, 5000), sized(3, 9000)].concat());
}
