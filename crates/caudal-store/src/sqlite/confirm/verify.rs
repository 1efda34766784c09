//! The audit: every transaction has one outcome or is open in one place. Reads one moment of everything.

use std::path::Path;

use caudal_core::confirm::ports::{Arrivals, LaneAudit};
use caudal_core::error::StoreError;
use caudal_core::schema::{ID, STORED_AT};
use caudal_core::time::Instant;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Params, Row, params};
use uuid::Uuid;

use crate::sqlite::BUSY_TIMEOUT;
use crate::sqlite::error::store_error;
use crate::sqlite::operate::{Text, instant};
use crate::sqlite::sql::quoted;
use crate::sqlite::writer::now;

const HOUR_MICROS: i64 = 3_600_000_000;
/// Transactions named of each kind.
const NAMED_MAX: u32 = 100;

/// Whether `{id}` is nowhere.
const NOWHERE: &str = "
    not exists (select 1 from _confirm_outcomes o where o.tx = {id})
    and not exists (select 1 from _confirm_ready q where q.tx = {id})
    and not exists (select 1 from _confirm_deferred d where d.tx = {id})
    and not exists (select 1 from _confirm_aside s where s.tx = {id})
    and not exists (select 1 from _confirm_leases c cross join _confirm_leased l on l.lease = c.lease and l.tx = {id})";

pub(super) fn verify(path: &Path) -> Result<Vec<LaneAudit>, StoreError> {
    audits(path).map_err(store_error)
}

fn audits(path: &Path) -> rusqlite::Result<Vec<LaneAudit>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.execute_batch("pragma query_only = on; begin")?;
    let sql =
        "select lane, topic, name, since, lane = min(lane) over (partition by topic) from _confirm_lanes order by lane";
    let mut statement = conn.prepare(sql)?;
    let lanes = statement.query_map([], |row| {
        let audit = LaneAudit { topic: row.get(1)?, lane: row.get(2)?, ..LaneAudit::default() };
        Ok(Auditing { conn: &conn, lane: row.get(0)?, since: row.get(3)?, first: row.get(4)?, audit })
    })?;
    lanes.map(|lane| lane?.audited()).collect()
}

/// What became pending, by hour: see the port.
pub(super) fn arrivals(path: &Path, hours: u32) -> Result<Vec<Arrivals>, StoreError> {
    arrived(path, hours).map_err(store_error)
}

fn arrived(path: &Path, hours: u32) -> rusqlite::Result<Vec<Arrivals>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.execute_batch("pragma query_only = on")?;
    let this_hour = now().unix_micros().div_euclid(HOUR_MICROS);
    let from = Instant::from_unix_micros((this_hour - i64::from(hours)).max(0) * HOUR_MICROS);
    let sql = "select substr(since, 1, 13) || ':00:00Z', count(*),
                      count(*) filter (where state in ('confirmed', 'rejected') and attempts > 0),
                      coalesce(sum(attempts) filter (where state in ('confirmed', 'rejected')), 0)
                 from _confirmations where since >= ?1 group by 1 order by 1";
    let mut statement = conn.prepare(sql)?;
    let read = |row: &Row<'_>| {
        let count = |column: usize| row.get::<_, i64>(column).map(i64::unsigned_abs);
        Ok(Arrivals { hour: instant(row, 0)?, transactions: count(1)?, settled: count(2)?, calls: count(3)? })
    };
    statement.query_map([from.to_string()], read)?.collect()
}

struct Auditing<'c> {
    conn: &'c Connection,
    lane: i32,
    since: String,
    /// Whether it is the topic's first: a record that is nowhere is in no lane, and is named here.
    first: bool,
    audit: LaneAudit,
}

impl Auditing<'_> {
    fn audited(mut self) -> rusqlite::Result<LaneAudit> {
        self.count()?;
        let twice = "select _id from _confirmations where lane_number = ?1 group by _id having count(*) > 1";
        self.audit.twice = self.named(twice, [self.lane])?;
        let records = self.has_records()?;
        if records && self.first {
            let table = quoted(&self.audit.topic);
            let nowhere = NOWHERE.replace("{id}", &format!("r.{ID}"));
            let sql = format!(
                "select r.{ID} from {table} r where {nowhere}
                    and (r.{STORED_AT} >= ?1 or exists (select 1 from _confirm_brought b where b.tx = r.{ID}))"
            );
            self.audit.lost = self.named(&sql, [&self.since])?;
        }
        let nowhere = NOWHERE.replace("{id}", "a.tx");
        let sql = format!("select a.tx from _confirm_adopted a where a.lane = ?1 and {nowhere}");
        let lost = self.named(&sql, [self.lane])?;
        self.audit.lost.extend(lost);
        self.audit.stray = self.stray(records)?;
        let sql = "select distinct c.tx from _confirm_contradictions c join _confirm_outcomes o on o.tx = c.tx
                    where o.lane = ?1";
        self.audit.contradicted = self.named(sql, [self.lane])?;
        Ok(self.audit)
    }

    fn count(&mut self) -> rusqlite::Result<()> {
        let sql = "select coalesce(sum(enqueued), 0) from _confirm_counts where lane = ?1";
        let enqueued: i64 = self.conn.query_row(sql, [self.lane], |row| row.get(0))?;
        let sql = "select count(*) filter (where state in ('confirmed', 'rejected', 'void')),
                          count(*) filter (where state not in ('confirmed', 'rejected', 'void'))
                     from _confirmations where lane_number = ?1";
        let counts: (i64, i64) = self.conn.query_row(sql, [self.lane], |row| Ok((row.get(0)?, row.get(1)?)))?;
        (self.audit.enqueued, self.audit.outcomes, self.audit.open) =
            (enqueued as u64, counts.0 as u64, counts.1 as u64);
        Ok(())
    }

    /// Whether there is a topic's table to compare with; a lane whose records others write may have none.
    fn has_records(&self) -> rusqlite::Result<bool> {
        let sql = "select count(*) = 2 from pragma_table_info(?1) where name in (?2, ?3)";
        self.conn.query_row(sql, params![self.audit.topic, ID, STORED_AT], |row| row.get(0))
    }

    /// A record that retention removed was there; one whose key is forgotten, too, cannot be told from one that never was.
    fn stray(&self, records: bool) -> rusqlite::Result<Vec<Uuid>> {
        let sql = "select expired > (select count(*) from _expired e where e.topic = r.topic) from _retention r where topic = ?1";
        let forgot = self.conn.query_row(sql, [&self.audit.topic], |row| row.get(0)).optional()?;
        if forgot == Some(true) {
            return Ok(Vec::new());
        }
        let none = match records {
            true => format!("and not exists (select 1 from {} r where r.{ID} = o.tx)", quoted(&self.audit.topic)),
            false => String::new(),
        };
        let sql = format!(
            "select o.tx from _confirm_outcomes o where o.lane = ?1 {none}
                and not exists (select 1 from _confirm_adopted a where a.tx = o.tx)
                and not exists (select 1 from _expired e where e._id = o.tx)"
        );
        self.named(&sql, [self.lane])
    }

    fn named(&self, sql: &str, params: impl Params) -> rusqlite::Result<Vec<Uuid>> {
        let mut statement = self.conn.prepare(&format!("{sql} limit {NAMED_MAX}"))?;
        let ids = statement.query_map(params, |row| row.get::<_, Text<Uuid>>(0).map(|id| id.0))?;
        ids.collect()
    }
}
