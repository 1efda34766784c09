//! `caudal up --demo` as a newcomer meets it: every command that it prints works as it stands.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// The printed commands, continued lines joined.
fn commands(output: &[String]) -> Vec<String> {
    let joined = output.join("\n").replace("\\\n", " ");
    joined.lines().map(str::trim).filter(|line| line.starts_with("curl ")).map(str::to_owned).collect()
}

#[test]
fn what_the_demo_prints_works() {
    let home = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_caudal"))
        .args(["up", "--demo", "--listen", "127.0.0.1:0"])
        .current_dir(home.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = Vec::new();
    for line in BufReader::new(demo.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let last = line.starts_with("Stop with");
        output.push(line);
        if last {
            break;
        }
    }
    let result = std::panic::catch_unwind(|| {
        let text = output.join("\n");
        assert!(text.contains("flights: 3000 messages, 3000 stored"), "{text}");
        assert!(text.contains("confirmed by the demo's bank") && !text.contains("payments: 0 confirmed"), "{text}");
        let commands = commands(&output);
        assert!(commands.len() >= 8, "{text}");
        for command in &commands {
            try_out(command);
        }
    });
    demo.kill().unwrap();
    demo.wait().unwrap();
    result.unwrap();
}

/// Runs one printed command in a shell. Following a stream has no end of its own: it is given two seconds.
fn try_out(command: &str) {
    let endless = command.contains(" -N ");
    let command = command.replacen("curl ", "curl --silent --show-error --fail --max-time 2 ", 1);
    // A row that is on its way may need a moment: `/data/1` reads what the line before it queued.
    let retry = "--retry 20 --retry-delay 0 --retry-max-time 20 --retry-all-errors ";
    let command = if endless { command } else { command.replacen("curl ", &format!("curl {retry}"), 1) };
    let out = Command::new("bash").args(["-c", &command]).output().unwrap();
    let timed_out = out.status.code() == Some(28);
    let body = String::from_utf8_lossy(&out.stdout);
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() || endless && timed_out, "{command}\n{body}\n{error}");
    assert!(!body.trim().is_empty(), "{command} answered nothing");
}
