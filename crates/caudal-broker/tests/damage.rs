//! Torn tails and flipped bits at every place: what was acknowledged is served as it was written, or refused by name.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use caudal_broker::embedded::{EmbeddedBroker, EmbeddedConfig, OpenError, Verify};
use caudal_core::message::Message;
use caudal_core::ports::{Broker, Publish, Subscription};
use caudal_testkit::broker::{message, messages, receive, topic};

const SEGMENT_BYTES: u64 = 4096;

fn config() -> EmbeddedConfig {
    EmbeddedConfig { segment_bytes: SEGMENT_BYTES, ..EmbeddedConfig::default() }
}

async fn open(dir: &Path) -> Result<Arc<EmbeddedBroker>, OpenError> {
    Ok(Arc::new(EmbeddedBroker::open(dir, config()).await?))
}

async fn publish(broker: &EmbeddedBroker, numbers: std::ops::Range<u64>) {
    broker.publish(&topic("t"), messages(numbers)).await.expect("publish works");
}

/// Everything in the topic, in order.
async fn all(broker: &EmbeddedBroker) -> Vec<Message> {
    let count = broker.log_state(&topic("t")).expect("the topic is known").next;
    let mut subscription = broker.open_subscription(&topic("t"), "store").await.expect("subscribe works");
    receive(&mut subscription, count as usize).await.into_iter().map(|delivery| delivery.message).collect()
}

fn segment(dir: &Path, base: u64) -> PathBuf {
    dir.join("t").join(format!("{base:020}.log"))
}

fn synced(dir: &Path) -> PathBuf {
    dir.join("t/SYNCED")
}

/// A log of `numbers` in frames of one message, and what SYNCED said before the last one.
async fn log_of(dir: &Path, count: u64) -> Vec<u8> {
    let broker = open(dir).await.expect("it opens");
    let mut before_last = Vec::new();
    for number in 0..count {
        before_last = fs::read(synced(dir)).unwrap_or_default();
        publish(&broker, number..number + 1).await;
    }
    broker.close().await.expect("close works");
    before_last
}

/// Bytes up to the last that is not zero. The bodies end in `}`.
fn written(path: &Path) -> u64 {
    let bytes = fs::read(path).expect("the segment is there");
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    log_of(dir.path(), 3).await;
    let start = written(&segment(dir.path(), 0));
    let before_last = {
        let broker = open(dir.path()).await.expect("it opens");
        let before_last = fs::read(synced(dir.path())).expect("SYNCED is there");
        publish(&broker, 3..4).await;
        broker.close().await.expect("close works");
        before_last
    };
    let whole = fs::read(segment(dir.path(), 0)).expect("the segment is there");
    let end = written(&segment(dir.path(), 0));
    for keep in start..=end {
        for hole in [false, true] {
            // A torn write: a part at the start is there, or (pages go to disk in any order) only a part at the end.
            let mut torn = whole.clone();
            if hole {
                torn[start as usize..keep as usize].fill(0)
            } else {
                torn[keep as usize..].fill(0)
            }
            fs::write(segment(dir.path(), 0), &torn).expect("the test writes");
            fs::write(synced(dir.path()), &before_last).expect("the test writes");
            let is_whole = torn == whole;
            let broker = open(dir.path()).await.unwrap_or_else(|error| panic!("{keep} {hole}: {error}"));
            let kept = if is_whole { 4 } else { 3 };
            assert_eq!(all(&broker).await, messages(0..kept), "{keep} {hole}");
            publish(&broker, kept..kept + 2).await;
            broker.close().await.expect("close works");
            let broker = open(dir.path()).await.expect("it opens again");
            assert_eq!(all(&broker).await, messages(0..kept + 2), "{keep} {hole}");
            broker.close().await.expect("close works");
        }
    }
}

#[tokio::test]
async fn a_file_cut_at_any_byte_below_synced_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    log_of(dir.path(), 4).await;
    let whole = fs::read(segment(dir.path(), 0)).expect("the segment is there");
    let end = written(&segment(dir.path(), 0));
    for keep in 0..end {
        fs::write(segment(dir.path(), 0), &whole[..keep as usize]).expect("the test writes");
        let refused = open(dir.path()).await.err();
        assert!(matches!(refused, Some(OpenError::Damaged { .. })), "{keep}: {refused:?}");
    }
    fs::write(segment(dir.path(), 0), &whole[..end as usize]).expect("the test writes");
    let broker = open(dir.path()).await.expect("nothing that was synced is missing");
    assert_eq!(all(&broker).await, messages(0..4));
}

/// Flips one bit at every byte of a file and opens the log each time. `Ok` from the log must be the truth.
async fn flip_every_byte(dir: &Path, file: &Path, until: u64, truth: &[Message]) -> (u32, u32) {
    let (mut refused_open, mut refused_read) = (0, 0);
    for at in 0..until {
        let original = fs::read(file).expect("the file is there");
        let mut flipped = original.clone();
        flipped[at as usize] ^= 1 << (at % 8);
        fs::write(file, &flipped).expect("the test writes");
        match open(dir).await {
            Err(OpenError::Damaged { damage, .. }) => {
                assert_eq!(damage.path, file, "byte {at}: {damage}");
                assert_eq!(fs::read(file).expect("the file is there"), flipped, "a refused file is left as it is");
                refused_open += 1;
            }
            Err(error) => panic!("byte {at}: {error}"),
            Ok(broker) => {
                if read_until_damage(&broker, truth, file).await {
                    refused_read += 1;
                }
                broker.close().await.expect("close works");
            }
        }
        fs::write(file, &original).expect("the test writes");
    }
    (refused_open, refused_read)
}

/// Reads everything; what comes must be the truth, and an error must name the file. Says whether one came.
async fn read_until_damage(broker: &EmbeddedBroker, truth: &[Message], file: &Path) -> bool {
    let mut subscription = broker.open_subscription(&topic("t"), "store").await.expect("subscribe works");
    let mut got = 0;
    while got < truth.len() {
        match subscription.receive(1, usize::MAX).await {
            Ok(deliveries) => {
                assert_eq!(deliveries[0].message, truth[got], "damage was served");
                got += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains(&file.display().to_string()), "{error} names the file");
                return true;
            }
        }
    }
    false
}

#[tokio::test]
async fn a_flipped_bit_in_any_byte_is_noticed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    log_of(dir.path(), 4).await;
    let file = segment(dir.path(), 0);
    let end = written(&file);
    let (at_open, at_read) = flip_every_byte(dir.path(), &file, end, &messages(0..4)).await;
    assert_eq!(u64::from(at_open + at_read), end, "every flip is noticed");
    assert_eq!(at_read, 0, "the last segment is verified on open");
}

#[tokio::test]
async fn a_flipped_bit_in_an_earlier_segment_is_noticed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let broker = open(dir.path()).await.expect("it opens");
    let big = |number| Message { body: vec![b'1'; 1500].into(), ..message(number) };
    let truth: Vec<Message> = (0..4).map(big).collect();
    for message in &truth {
        broker.publish(&topic("t"), vec![message.clone()]).await.expect("publish works");
    }
    broker.close().await.expect("close works");
    assert!(segment(dir.path(), 2).exists(), "there are two segments");
    let file = segment(dir.path(), 0);
    let end = written(&file);
    let (at_open, at_read) = flip_every_byte(dir.path(), &file, end, &truth).await;
    assert_eq!(u64::from(at_open + at_read), end, "every flip is noticed");
    assert!(at_open > 0 && at_read > 0, "{at_open} at open, {at_read} at read");

    let file = fs::File::options().write(true).open(&file).expect("the segment is there");
    file.write_at(b"2", 500).expect("the test writes");
    let config = EmbeddedConfig { verify: Verify::Records, ..config() };
    EmbeddedBroker::open(dir.path(), config).await.expect_err("a full look finds it at once");
}

#[tokio::test]
async fn a_flipped_bit_in_meta_or_synced_is_noticed_or_harmless() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    log_of(dir.path(), 4).await;
    let meta = dir.path().join("t/META");
    let bytes = fs::metadata(&meta).expect("META is there").len();
    let (at_open, _) = flip_every_byte(dir.path(), &meta, bytes, &messages(0..4)).await;
    assert_eq!(u64::from(at_open), bytes, "every flip in META is refused");
    let refused = flip_every_byte(dir.path(), &synced(dir.path()), 64, &messages(0..4)).await;
    assert_eq!(refused, (0, 0), "a whole log needs no SYNCED");
}

#[tokio::test]
async fn damage_that_synced_does_not_cover_is_still_damage_when_frames_follow() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let before_first = {
        let broker = open(dir.path()).await.expect("it opens");
        broker.open_subscription(&topic("t"), "store").await.expect("it makes the topic");
        let synced = fs::read(synced(dir.path())).expect("SYNCED is there");
        // The writer's thread lets go of the directory when it ends; only `close` waits for that.
        broker.close().await.expect("close works");
        synced
    };
    log_of(dir.path(), 4).await;
    let file = segment(dir.path(), 0);
    let whole = fs::read(&file).expect("the segment is there");
    // As after power loss: SYNCED is as old as can be.
    fs::write(synced(dir.path()), &before_first).expect("the test writes");
    let broker = open(dir.path()).await.expect("it opens");
    assert_eq!(all(&broker).await, messages(0..4), "an old SYNCED loses nothing");
    broker.close().await.expect("close works");
    for at in [4, 40, 60, 200] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&file, &flipped).expect("the test writes");
        fs::write(synced(dir.path()), &before_first).expect("the test writes");
        let refused = open(dir.path()).await.expect_err("a frame follows the damage").to_string();
        assert!(refused.contains("a whole frame follows"), "{refused}");
    }
}

#[tokio::test]
async fn a_missing_file_is_refused_and_a_quarantine_frees_the_topic() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let broker = open(dir.path()).await.expect("it opens");
    for number in 0..200 {
        publish(&broker, number..number + 1).await;
    }
    let incarnation = broker.log_state(&topic("t")).expect("the topic is known").incarnation;
    broker.close().await.expect("close works");
    let mut segments: Vec<_> = fs::read_dir(dir.path().join("t")).expect("the topic is there").collect();
    segments.retain(|entry| entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some()));
    let mut segments: Vec<_> = segments.into_iter().map(|entry| entry.expect("an entry").path()).collect();
    segments.sort();
    assert!(segments.len() > 3);
    // The first may be gone, because retention may have taken it; no other.
    for gone in segments[1..].iter().chain([&dir.path().join("t/META")]) {
        let aside = dir.path().join("aside");
        fs::rename(gone, &aside).expect("the test moves it");
        let refused = open(dir.path()).await.expect_err("a file is missing").to_string();
        assert!(refused.contains("is damaged at byte") && refused.contains("_quarantine"), "{refused}");
        fs::rename(&aside, gone).expect("the test moves it back");
    }
    fs::remove_file(&segments[2]).expect("the test removes it");
    let aside = EmbeddedBroker::quarantine(dir.path(), &topic("t")).expect("it moves");
    assert!(aside.join("META").exists());
    let broker = open(dir.path()).await.expect("the topic is free");
    publish(&broker, 0..1).await;
    let state = broker.log_state(&topic("t")).expect("the topic is known");
    assert_ne!(state.incarnation, incarnation);
    assert_eq!((state.first, state.next), (0, 1));
}

#[tokio::test]
async fn a_second_opening_is_refused_at_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let broker = open(dir.path()).await.expect("it opens");
    let refused = tokio::time::timeout(Duration::from_secs(1), open(dir.path())).await.expect("at once");
    let refused = refused.expect_err("the directory is in use").to_string();
    assert!(refused.contains(&dir.path().display().to_string()), "{refused}");
    assert!(refused.contains(&std::process::id().to_string()), "{refused}");
    assert!(refused.contains("stop it"), "{refused}");
    assert!(EmbeddedBroker::quarantine(dir.path(), &topic("t")).is_err());
    broker.close().await.expect("close works");
    open(dir.path()).await.expect("the directory is free");
}
