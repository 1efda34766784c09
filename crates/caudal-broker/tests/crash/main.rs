//! Kills a real process at every step of the log's life, takes away what was not synced, and asks the oracle.
//! Needs the feature `failpoints`.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed
#![cfg(feature = "failpoints")]

mod child;
mod limit;
mod oracle;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use caudal_broker::embedded::{EmbeddedBroker, power_loss::lose_unsynced};
use tempfile::TempDir;

const SIGKILL: i32 = 9;
/// Kills at one place: at its first passes.
const HITS_MAX: u64 = 6;

fn dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The same files somewhere else, for a second fate.
fn copy(dir: &Path) -> TempDir {
    let to = self::dir();
    let status = Command::new("cp").arg("-a").arg(dir.join(".")).arg(to.path()).status();
    assert!(status.expect("cp starts").success());
    to
}

/// What the process left must be right as it is, and with what was not synced gone.
async fn check_both(dir: &Path, what: &str) {
    let lost = copy(dir);
    lose_unsynced(&lost.path().join("log")).expect("the test writes");
    oracle::check(lost.path()).await.unwrap_or_else(|broken| panic!("{what}, power lost: {broken}"));
    oracle::check(dir).await.unwrap_or_else(|broken| panic!("{what}: {broken}"));
    // And life goes on after it.
    for dir in [lost.path(), dir] {
        assert!(child::run(dir, 1, &[]).success(), "{what}: the next process works");
        oracle::check(dir).await.unwrap_or_else(|broken| panic!("{what}, one process later: {broken}"));
    }
}

/// Every place that a whole run passes, and how often.
fn places() -> BTreeMap<String, u64> {
    let dir = dir();
    let list = dir.path().join("places");
    let list = list.to_str().expect("the path is text");
    assert!(child::run(dir.path(), 0, &[("CAUDAL_FAILPOINT_COUNT", list)]).success());
    let mut places = BTreeMap::new();
    for place in std::fs::read_to_string(list).expect("places were passed").lines() {
        *places.entry(place.to_owned()).or_default() += 1;
    }
    places
}

#[tokio::test]
async fn killed_at_every_place_it_loses_nothing_that_was_acked() {
    let places = places();
    for expected in [
        "write.before",
        "write.after",
        "fdatasync.after",
        "synced.after",
        "roll.before",
        "roll.after",
        "segment.after-create",
        "segment.after-fallocate",
        "segment.after-dir-sync",
        "meta.before-rename",
        "meta.after-rename",
        "unlink.before",
        "unlink.after",
        "unlink.after-dir-sync",
    ] {
        assert!(places.contains_key(expected), "{expected} was not passed: {places:?}");
    }
    let (mut kills, mut acked) = (0, 0);
    for (place, passes) in &places {
        for hit in 1..=HITS_MAX.min(*passes) {
            let dir = dir();
            let fate = format!("{place}:{hit}");
            let status = child::run(dir.path(), 0, &[("CAUDAL_FAILPOINT", &fate)]);
            // How often a place is passed depends on how publishers meet.
            assert!(status.success() || status.signal() == Some(SIGKILL), "{fate}: {status}");
            kills += u64::from(!status.success());
            acked += oracle::acked(dir.path()).len();
            check_both(dir.path(), &fate).await;
        }
    }
    println!("{kills} kills at {} places, {acked} messages acked before them, none lost", places.len());
    assert!(kills >= places.len() as u64 && acked > 100, "{kills} kills, {acked} acked");
}

#[tokio::test]
async fn killed_at_any_time_it_loses_nothing_that_was_acked() {
    let dir = dir();
    let mut kills = 0;
    for round in 0..20 {
        let acked_bytes = || std::fs::metadata(dir.path().join("acked")).map_or(0, |acked| acked.len());
        let before = acked_bytes();
        let mut process = child::command(dir.path(), round).spawn().expect("the child starts");
        for _ in 0..20_000 {
            if acked_bytes() > before {
                break;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        std::thread::sleep(Duration::from_micros(round * 977 % 9000));
        process.kill().expect("the child is killed");
        kills += u64::from(!process.wait().expect("the child ends").success());
        if round % 2 == 1 {
            lose_unsynced(&dir.path().join("log")).expect("the test writes");
        }
        oracle::check(dir.path()).await.unwrap_or_else(|broken| panic!("round {round}: {broken}"));
    }
    assert!(kills > 5, "{kills} kills");
}

#[tokio::test]
async fn killed_while_it_recovers_it_recovers() {
    for place in ["recover.after-cut:1", "recover.after-sync:1"] {
        let dir = dir();
        child::run(dir.path(), 0, &[("CAUDAL_FAILPOINT", "write.after:9")]);
        tear(&dir.path().join("log/t"), place.contains("cut"));
        let status = child::run(dir.path(), 0, &[("CAUDAL_FAILPOINT", place)]);
        assert_eq!(status.signal(), Some(SIGKILL), "{place}");
        check_both(dir.path(), place).await;
    }
}

/// Takes the last written byte away, so that the last frame is torn.
fn tear(topic: &Path, is_torn: bool) {
    let mut segments: Vec<_> =
        std::fs::read_dir(topic).expect("the topic is there").flatten().map(|e| e.path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    segments.sort();
    let last = segments.last().expect("a segment");
    let mut bytes = std::fs::read(last).expect("the segment is there");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("a frame");
    if is_torn {
        bytes[end] = 0;
        std::fs::write(last, bytes).expect("the test writes");
    }
}

/// The oracle must be able to see: the same checks on a log that answers before it writes.
#[tokio::test]
async fn the_oracle_notices_an_ack_before_fsync() {
    let mut noticed = 0;
    for (fate, is_power_lost) in [("write.before:5", false), ("write.before:5", true), ("write.after:5", true)] {
        let dir = dir();
        let status = child::run(dir.path(), 0, &[("CAUDAL_PLANT", "ack-before-fsync"), ("CAUDAL_FAILPOINT", fate)]);
        assert_eq!(status.signal(), Some(SIGKILL), "{fate}");
        if is_power_lost {
            lose_unsynced(&dir.path().join("log")).expect("the test writes");
        }
        let broken = oracle::check(dir.path()).await;
        assert!(broken.as_ref().is_err_and(|broken| broken.contains("was acked and is lost")), "{fate}: {broken:?}");
        noticed += 1;
    }
    assert_eq!(noticed, 3);
}

#[tokio::test]
async fn after_a_failed_fsync_nothing_is_acked() {
    for hit in ["1", "2", "7", "20"] {
        let dir = dir();
        let status = child::run(dir.path(), 0, &[("CAUDAL_FAILPOINT_FSYNC_EIO", hit)]);
        assert_eq!(status.code(), Some(child::FAILED), "fsync {hit}: the process learns of it");
        let errors = oracle::errors(dir.path());
        assert!(!errors.is_empty() && errors.iter().all(|error| error.starts_with("Fatal")), "{errors:?}");
        assert!(errors[0].contains("fdatasync of") && errors[0].contains(".log"), "{}", errors[0]);
        if hit == "1" {
            assert_eq!(oracle::acked(dir.path()), [0; 0], "nothing was acked before the first fsync");
        }
        check_both(dir.path(), &format!("fsync {hit}")).await;
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_survived() {
    for fate in ["write:1", "write:4", "write:9", "fallocate:1", "fallocate:2", "fallocate:4"] {
        let dir = dir();
        let status = child::run(dir.path(), 0, &[("CAUDAL_FAILPOINT_ENOSPC", fate)]);
        assert!(status.success(), "{fate}: {status}: it goes on when there is space");
        let errors = oracle::errors(dir.path());
        // The first segment may be made by the subscriber.
        assert!(!errors.is_empty() || fate == "fallocate:1", "{fate}: somebody was told");
        assert!(errors.iter().all(|error| error.starts_with("Full")), "{fate}: {errors:?}");
        assert_eq!(oracle::acked(dir.path()).len() as u64, child::PUBLISHERS * child::EACH, "{fate}");
        check_both(dir.path(), fate).await;
    }
}

#[tokio::test]
async fn a_second_process_is_refused_at_once() {
    let dir = dir();
    let _broker = EmbeddedBroker::open(dir.path().join("log"), child::config()).await.expect("it opens");
    let started = std::time::Instant::now();
    let status = child::run(dir.path(), 0, &[]);
    assert_eq!(status.code(), Some(child::IN_USE));
    assert!(started.elapsed() < Duration::from_secs(1));
    let told = oracle::errors(dir.path()).join("");
    assert!(told.contains("another Caudal process") && told.contains("stop it"), "{told}");
}
