//! The command confirmer, with the shell as the program.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::path::Path;
use std::time::Duration;

use caudal_confirm::command::{CommandConfig, CommandConfirmer};
use caudal_core::confirm::Item;
use caudal_core::confirm::answer::{Answer, Rules, Verdict};
use caudal_core::confirm::ports::{Call, Confirmer};
use caudal_core::time::Instant;
use caudal_core::topic::TopicName;
use rustix::process::{Pid, test_kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);

/// `sh -c script` with what follows as `$0`, `$1`, …
fn shell(script: &str, arguments: &[&str]) -> CommandConfig {
    let arguments = ["-c", script].iter().chain(arguments).map(|text| (*text).to_owned()).collect();
    CommandConfig { arguments, timeout: PATIENCE, ..CommandConfig::new("/bin/sh") }
}

async fn called(config: &CommandConfig, record: &Value) -> Answer {
    let confirmer = CommandConfirmer::open(config).unwrap();
    let (topic, at) = (TopicName::parse("payments").unwrap(), Instant(0));
    let item = Item {
        id: Uuid::from_u128(1),
        attempts: 0,
        crashes: 0,
        doubt: false,
        since: at,
        first_sent: None,
        claimed: at,
        record: record.to_string().into(),
    };
    confirmer.call(Call { topic: &topic, item: &item, key: Uuid::from_u128(9), attempt: 3 }).await
}

async fn ran(script: &str) -> Answer {
    called(&shell(script, &[]), &json!({"amount": 1})).await
}

#[track_caller]
fn said(answer: &Answer) -> (u16, String) {
    match answer {
        Answer::Status { code, body, .. } => (*code, String::from_utf8(body.to_vec()).unwrap()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_exit_code_is_the_status_and_the_output_the_body() {
    for (script, code, verdict) in [
        ("echo done", 0, Verdict::Fact(caudal_core::confirm::Fact::Confirmed)),
        ("echo done; exit 75", 75, Verdict::NotDone { retry_after: None }),
        ("echo done; exit 1", 1, Verdict::Hold),
        ("echo done; exit 255", 255, Verdict::Hold),
    ] {
        let answer = ran(script).await;
        assert_eq!(said(&answer), (code, "done\n".to_owned()));
        assert_eq!(Rules::command().judge(&answer), verdict, "{script}");
    }
    assert!(matches!(ran("kill -9 $$").await, Answer::Unknown(why) if why.contains("signal")));
}

#[tokio::test]
async fn the_program_gets_the_record_the_key_and_its_arguments() {
    let config = shell(
        "cat; echo; echo $CAUDAL_IDEMPOTENCY_KEY $CAUDAL_ATTEMPT $CAUDAL_TOPIC $TOKEN; echo \"$1|$2\"",
        &["sh", "--who=${who}", "${who} x"],
    );
    let config = CommandConfig { environment: vec![("TOKEN".into(), "t".into())], ..config };
    let record = json!({"who": "$(date) 'Ana'; ñ"});
    let (_, output) = said(&called(&config, &record).await);
    let expected =
        format!("{record}\n{} 3 payments t\n--who=$(date) 'Ana'; ñ|$(date) 'Ana'; ñ x\n", Uuid::from_u128(9));
    assert_eq!(output, expected, "no shell reads what a record brings");
    assert!(!format!("{config:?}").contains("TOKEN"));
}

/// There are passwords in them. The test runs itself with such a variable.
#[tokio::test]
async fn caudals_environment_is_not_handed_on() {
    const SECRET: &str = "CAUDAL_STORE__URL";
    if std::env::var_os(SECRET).is_none() {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "caudals_environment_is_not_handed_on"]).env(SECRET, "postgres://me:secret@db/");
        let output = again.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let environment = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
    let config = CommandConfig { environment, ..CommandConfig::new("env") };
    let (_, output) = said(&called(&config, &json!({})).await);
    let mut names: Vec<_> = output.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["CAUDAL_ATTEMPT", "CAUDAL_IDEMPOTENCY_KEY", "CAUDAL_TOPIC", "PATH"]);
}

#[tokio::test]
async fn a_record_that_is_not_read_and_output_without_end_do_no_harm() {
    let record = json!({"x": "y".repeat(1 << 20)});
    assert_eq!(said(&called(&shell("exit 0", &[]), &record).await), (0, String::new()));
    // Echoed while it is still being written.
    let config = CommandConfig { body_bytes_max: 4 << 20, ..shell("cat", &[]) };
    assert_eq!(said(&called(&config, &record).await), (0, record.to_string()));
    let (code, kept) = said(&ran("head -c 10000000 /dev/zero | tr '\\0' x; exit 3").await);
    assert_eq!((code, kept.len()), (3, 64 * 1024), "the rest is read and dropped, so that the program can end");
    assert_eq!(said(&ran("exec 1>&-; sleep 0.2; exit 4").await).0, 4);
}

/// What a program leaves running keeps its output open; the answer does not wait for that.
#[tokio::test]
async fn an_answer_does_not_wait_for_who_lives_on() {
    let folder = TempDir::new().unwrap();
    let pid = folder.path().join("pid");
    let script = format!("sleep 300 & echo $! > {}; echo said; exit 7", pid.display());
    assert_eq!(said(&ran(&script).await), (7, "said\n".to_owned()));
    let left = pid_in(&pid).await;
    assert!(test_kill_process(left).is_ok(), "it was not asked to end");
    rustix::process::kill_process(left, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn out_of_time_everything_that_was_started_is_killed() {
    let folder = TempDir::new().unwrap();
    let pid = folder.path().join("pid");
    let script = format!("sleep 300 & echo $! > {}; wait", pid.display());
    let config = CommandConfig { timeout: Duration::from_millis(500), ..shell(&script, &[]) };
    let answer = called(&config, &json!({})).await;
    assert!(matches!(&answer, Answer::Unknown(why) if why.contains("in time")), "{answer:?}");
    until_gone(pid_in(&pid).await).await;
}

#[tokio::test]
async fn a_call_that_is_dropped_leaves_nothing_running() {
    let folder = TempDir::new().unwrap();
    let pid = folder.path().join("pid");
    let config = shell(&format!("sleep 300 & echo $! > {}; wait", pid.display()), &[]);
    let task = tokio::spawn(async move { called(&config, &json!({})).await });
    let started = pid_in(&pid).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    until_gone(started).await;
}

async fn pid_in(file: &Path) -> Pid {
    let read = async {
        loop {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            match text.trim().parse().ok().filter(|_| text.ends_with('\n')).and_then(Pid::from_raw) {
                Some(pid) => return pid,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("it was started")
}

async fn until_gone(pid: Pid) {
    // Whoever adopts orphans here may be slow to collect them.
    let is_there = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
    };
    let wait = async {
        while is_there() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it was killed");
}

#[tokio::test]
async fn what_could_not_be_started_was_not_sent() {
    for program in ["/no/such/program", "/etc/passwd", "/tmp"] {
        let answer = called(&CommandConfig::new(program), &json!({})).await;
        assert!(matches!(&answer, Answer::NotSent(why) if why.contains(program)), "{answer:?}");
    }
}

#[tokio::test]
async fn a_record_that_does_not_fit_starts_nothing() {
    for (argument, record, expected) in [
        ("${missing}", json!({}), "the record has no missing"),
        ("${a}", json!({"a": {}}), "no text, number or boolean"),
        ("${a}", json!({"a": "--all"}), "taken for an option"),
        ("${a}", json!({"a": -5}), "taken for an option"),
        ("x${a}", json!({"a": "\u{0}"}), "NUL"),
    ] {
        let answer = called(&shell("exit 0", &["sh", argument]), &record).await;
        assert!(matches!(&answer, Answer::Blocked(why) if why.contains(expected)), "{argument}: {answer:?}");
    }
    assert_eq!(said(&called(&shell("echo $1", &["sh", "--a=${a}"]), &json!({"a": -5})).await).1, "--a=-5\n");
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    let good = || CommandConfig::new("/bin/true");
    for (config, expected) in [
        (CommandConfig::new(""), "no program"),
        (CommandConfig { arguments: vec!["${".into()], ..good() }, "does not close it"),
        (CommandConfig { arguments: vec!["\0".into()], ..good() }, "NUL"),
        (CommandConfig { probe: Some(vec!["${}".into()]), ..good() }, "without a name"),
        (CommandConfig { environment: vec![("A=B".into(), "x".into())], ..good() }, "no name"),
        (CommandConfig { timeout: Duration::ZERO, ..good() }, "needs time"),
    ] {
        let said = CommandConfirmer::open(&config).expect_err(expected);
        assert!(said.contains(expected), "{said}");
    }
}
