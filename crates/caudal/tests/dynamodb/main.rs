//! Confirmations in DynamoDB, by the real program: with no SQL store anywhere. All of it on an emulator (moto); AWS itself
//! was not tried.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod books;
mod commands;
mod machine;

/// A payment, and its key.
pub(crate) const PAYMENTS: &str = r#"{"type": "object", "required": ["payment_id"], "properties": {
  "payment_id": {"type": "string"}, "amount": {"type": "integer"}}}"#;
pub(crate) const TOPIC: &str = "payments";

/// The `confirm` section of the topic, over which `more` lines go.
pub(crate) fn section(endpoint: &str, more: &str) -> String {
    let defaults = "rejected = [\"422\"]\nretry = [\"429\", \"503\"]\nkey_retention = \"1h\"\nlease = \"1s\"\nbackoff = \"20ms\"\n\
                    backoff_max = \"200ms\"\ntimeout = \"2s\"\nbreaker_failures = 0\n";
    let given: Vec<&str> = more.lines().filter_map(|line| line.split('=').next()).map(str::trim).collect();
    let kept: Vec<&str> =
        defaults.lines().filter(|line| !given.contains(&line.split('=').next().unwrap().trim())).collect();
    format!("key = [\"payment_id\"]\n[topics.{TOPIC}.confirm]\nurl = \"{endpoint}\"\n{more}\n{}", kept.join("\n"))
}

/// Payments as NDJSON.
pub(crate) fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|n| serde_json::json!({ "payment_id": format!("p{n}"), "amount": n }).to_string() + "\n").collect()
}
