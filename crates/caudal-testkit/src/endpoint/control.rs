//! The endpoint's control over HTTP, for when it is a process of its own.

use std::fmt::Write as _;
use std::sync::PoisonError;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::{Shared, key_of};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outage {
    ms: u64,
    status: u16,
}

impl Shared {
    /// Status and body of a request to `/control/…`.
    pub(super) fn control(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        let refused = |why: &dyn std::fmt::Display| (400, json!({ "error": why.to_string() }).to_string());
        match (method, path) {
            ("GET", "totals") => (200, json!(self.totals()).to_string()),
            ("GET", "behaviour") => (200, json!(*self.behaviour()).to_string()),
            ("PUT", "behaviour") => match serde_json::from_slice(body) {
                Ok(behaviour) => {
                    self.set(behaviour);
                    (200, "{}".to_owned())
                }
                Err(why) => refused(&why),
            },
            ("POST", "outage") => match serde_json::from_slice::<Outage>(body) {
                Ok(outage) => {
                    self.fail_for(Duration::from_millis(outage.ms), outage.status);
                    (200, "{}".to_owned())
                }
                Err(why) => refused(&why),
            },
            ("POST", "reset") => {
                self.ledger.clear();
                self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
                (200, "{}".to_owned())
            }
            ("GET", "effects") => (200, self.lines()),
            ("GET", _) if path.starts_with("effects/") => {
                let key = key_of(path.trim_start_matches("effects/"));
                self.ledger.effects(key).map_or((404, "{}".to_owned()), |effects| (200, json!(effects).to_string()))
            }
            _ => (404, json!({ "error": "no such control" }).to_string()),
        }
    }

    /// `key effects declined`, a line a key.
    fn lines(&self) -> String {
        let mut lines = String::new();
        self.ledger.each(|key, found| {
            // Writing to a string cannot fail.
            let _ = writeln!(lines, "{key} {} {}", found.effects, u8::from(found.declined));
        });
        lines
    }
}
