//! Every bound on input in one place, each with its unit in its name.
//!
//! They are constants where the bound protects the process and no deployment has a reason to differ; what a deployment may
//! tune is in its configuration file instead.

/// Nested arrays and objects in one JSON document; deeper is malformed.
pub const JSON_DEPTH_MAX: u32 = 64;
/// Members of one JSON object or array.
pub const JSON_MEMBERS_MAX: usize = 10_000;
/// UTF-8 bytes of one object key.
pub const JSON_KEY_BYTES_MAX: usize = 256;
/// UTF-8 bytes of one JSON string.
pub const JSON_STRING_BYTES_MAX: usize = 1_000_000;
/// UTF-8 bytes of one record as it arrives.
pub const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// UTF-8 bytes of a dedup key: it is indexed by neither store but travels with every record.
pub const KEY_BYTES_MAX: usize = 1024;
/// Rows handed to a store in one append.
pub const BATCH_ROWS_MAX: usize = 10_000;
/// Message bytes handed to a store in one append. Several batches of a request are alive at a time, so this times about
/// twenty is what one large upload takes.
pub const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A topic's name is also its table's name, and PostgreSQL identifiers hold 63 bytes.
pub const TOPIC_NAME_BYTES_MAX: usize = 63;
/// Terms of one read: filters and order keys together.
pub const READ_TERMS_MAX: usize = 32;
/// Values of one `in.(…)` filter.
pub const READ_IN_VALUES_MAX: usize = 1_000;
/// UTF-8 bytes of one SQL statement of an analyst.
pub const SQL_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one row that an analyst's statement makes; the largest record is well below.
pub const SQL_ROW_BYTES_MAX: usize = 8 * 1024 * 1024;
