//! Says whether promises were kept, going by what producers were told and what the store has in the end.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// One message as its producer knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sent {
    content: String,
    /// The `transaction_id` of its 2xx, once it had one.
    acknowledged: Option<String>,
}

/// A row as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The producer's own name for the message; part of its content, so that rows without a key can be told apart too.
    pub name: String,
    pub id: String,
    pub key: Option<String>,
    pub content: String,
}

/// Fed while the load runs, asked when it is over. Producers repeat a message only under a key.
#[derive(Debug, Default)]
pub struct Oracle {
    sent: Mutex<HashMap<String, Sent>>,
    complaints: Mutex<Vec<String>>,
}

/// What the oracle found. Every list names messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    pub sent: usize,
    pub acknowledged: usize,
    pub stored: usize,
    /// Answered 2xx and not there.
    pub lost: Vec<String>,
    /// There twice, or a key that has two rows.
    pub duplicated: Vec<String>,
    /// Stored with other content, or under another id than the producer was told.
    pub altered: Vec<String>,
    /// Stored and never sent.
    pub invented: Vec<String>,
    /// Answers that contradict each other or should not have come.
    pub complaints: Vec<String>,
}

impl Oracle {
    fn sent(&self) -> std::sync::MutexGuard<'_, HashMap<String, Sent>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a message goes out for the first time.
    pub fn sending(&self, name: &str, content: &str) {
        let new = Sent { content: content.to_owned(), acknowledged: None };
        self.sent().entry(name.to_owned()).or_insert(new);
    }

    /// A 2xx came for it, with this `transaction_id`.
    pub fn acknowledged(&self, name: &str, id: &str) {
        let mut sent = self.sent();
        let Some(message) = sent.get_mut(name) else { return self.complain(format!("{name} was never sent")) };
        match &message.acknowledged {
            Some(before) if before != id => self.complain(format!("{name} was told {before}, then {id}")),
            _ => message.acknowledged = Some(id.to_owned()),
        }
    }

    /// Something came back that a correct server never says.
    pub fn complain(&self, complaint: String) {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).push(complaint);
    }

    /// How many messages have a 2xx.
    pub fn acknowledgements(&self) -> usize {
        self.sent().values().filter(|m| m.acknowledged.is_some()).count()
    }

    /// Compares what was sent and answered with every row that there is.
    pub fn judge(&self, rows: &[Stored]) -> Findings {
        let sent = self.sent();
        let mut findings = Findings {
            sent: sent.len(),
            acknowledged: sent.values().filter(|m| m.acknowledged.is_some()).count(),
            stored: rows.len(),
            complaints: self.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            ..Findings::default()
        };
        let mut by_name: HashMap<&str, &Stored> = HashMap::new();
        let mut by_key: HashMap<&str, &str> = HashMap::new();
        for row in rows {
            let same_name = by_name.insert(&row.name, row).is_some();
            let same_key = row.key.as_deref().is_some_and(|key| by_key.insert(key, &row.name).is_some());
            if same_name || same_key {
                findings.duplicated.push(row.name.clone());
            }
            match sent.get(&row.name) {
                None => findings.invented.push(row.name.clone()),
                Some(message) if message.content != row.content => findings.altered.push(row.name.clone()),
                Some(message) if message.acknowledged.as_ref().is_some_and(|id| *id != row.id) && !same_name => {
                    findings.altered.push(format!("{} (stored as {})", row.name, row.id));
                }
                Some(_) => {}
            }
        }
        let is_lost =
            |(name, message): &(&String, &Sent)| message.acknowledged.is_some() && !by_name.contains_key(name.as_str());
        findings.lost = sent.iter().filter(is_lost).map(|(name, _)| name.clone()).collect();
        findings.lost.sort();
        findings
    }
}

impl Findings {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        let Self { lost, duplicated, altered, invented, complaints, .. } = self;
        [lost, duplicated, altered, invented, complaints].iter().all(|list| list.is_empty())
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, acknowledged, stored, lost, duplicated, altered, invented, complaints } = self;
        write!(
            f,
            "{sent} sent, {acknowledged} acknowledged, {stored} stored, {} lost, {} duplicated",
            lost.len(),
            duplicated.len()
        )?;
        for (what, list) in [
            ("lost", lost),
            ("duplicated", duplicated),
            ("altered", altered),
            ("invented", invented),
            ("complaint", complaints),
        ] {
            for name in list.iter().take(10) {
                write!(f, "\n  {what}: {name}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, id: &str, key: Option<&str>, content: &str) -> Stored {
        Stored { name: name.into(), id: id.into(), key: key.map(str::to_owned), content: content.into() }
    }

    fn told() -> Oracle {
        let oracle = Oracle::default();
        oracle.sending("a", "1");
        oracle.sending("b", "2");
        oracle.acknowledged("a", "id-a");
        oracle
    }

    #[test]
    fn a_kept_promise_is_clean_whether_or_not_the_unanswered_arrived() {
        assert!(told().judge(&[row("a", "id-a", None, "1")]).is_clean());
        assert!(told().judge(&[row("a", "id-a", None, "1"), row("b", "id-b", None, "2")]).is_clean());
    }

    #[test]
    fn each_broken_promise_is_named() {
        assert_eq!(told().judge(&[]).lost, ["a"]);
        let good = row("a", "id-a", None, "1");
        assert_eq!(told().judge(&[good.clone(), row("a", "other", None, "1")]).duplicated, ["a"]);
        let keyed = [row("a", "id-a", Some("k"), "1"), row("b", "id-b", Some("k"), "2")];
        assert_eq!(told().judge(&keyed).duplicated, ["b"]);
        assert_eq!(told().judge(&[row("a", "id-a", None, "9")]).altered, ["a"]);
        assert_eq!(told().judge(&[row("a", "id-x", None, "1")]).altered, ["a (stored as id-x)"]);
        assert_eq!(told().judge(&[good, row("c", "id-c", None, "3")]).invented, ["c"]);
        let oracle = told();
        oracle.acknowledged("a", "id-z");
        assert_eq!(oracle.judge(&[row("a", "id-a", None, "1")]).complaints, ["a was told id-a, then id-z"]);
    }
}
