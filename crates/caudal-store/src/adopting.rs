//! Rows of tables that somebody else writes, as transactions.

use caudal_core::topic::TopicName;
use uuid::Uuid;

/// What stands for an adopted row: derived, so that a restore or another store finds the same, and the endpoint the same key.
pub(crate) fn transaction_of(topic: &TopicName, key: &str) -> Uuid {
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("caudal:adopt:{topic}").as_bytes());
    Uuid::new_v5(&namespace, key.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_transaction() {
        let topic = |name: &str| TopicName::parse(name).expect("a name");
        let id = transaction_of(&topic("payments"), "42");
        assert_eq!(id, transaction_of(&topic("payments"), "42"));
        assert_ne!(id, transaction_of(&topic("payments"), "43"));
        assert_ne!(id, transaction_of(&topic("refunds"), "42"));
    }
}
