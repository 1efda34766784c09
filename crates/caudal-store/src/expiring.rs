//! Which ids can be among those whose records retention has removed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use caudal_core::schema::Table;
use uuid::Uuid;

/// The ids that must be looked for before their rows are stored: none where records stay. An id that Caudal made for a message
/// without a key (UUIDv7) says when that was; until the record has had time to leave it need not be looked for. Half of that time,
/// because the clocks of database and process may differ.
pub(crate) fn may_have_expired(table: &Table, ids: impl Iterator<Item = Uuid>) -> Vec<Uuid> {
    let Some(retention) = table.expires else { return Vec::new() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ids.filter(|id| !is_young(*id, now, retention / 2)).collect()
}

fn is_young(id: Uuid, now: Duration, age: Duration) -> bool {
    let made = id.get_timestamp().filter(|_| id.get_version_num() == 7).map(|made| {
        let (seconds, nanos) = made.to_unix();
        Duration::new(seconds, nanos)
    });
    made.is_some_and(|made| made + age > now)
}

#[cfg(test)]
mod tests {
    use caudal_core::schema::Table;

    use super::*;

    #[test]
    fn only_ids_that_had_time_to_leave_are_looked_for() {
        let table = |expires| Table { expires, ..Table::of_topic("t", Vec::new(), false) };
        let hour = Duration::from_secs(3_600);
        let keyed = Uuid::new_v5(&Uuid::NAMESPACE_URL, b"k");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        let made = |ago: u64| Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, now - ago, 0));
        let (young, old, ahead) = (made(60), made(7_200), made(0));
        let all = [keyed, young, old, ahead];
        assert_eq!(may_have_expired(&table(Some(hour)), all.into_iter()), [keyed, old]);
        assert!(may_have_expired(&table(None), all.into_iter()).is_empty());
    }
}
