//! Where a page ended, as a text that only this deployment can have made.
//!
//! It holds the values by which the last row is ordered, signed together with what was asked for, so that it goes on with the same
//! query or not at all. The next page is a condition on those values: rows that are stored in between move nothing.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use caudal_core::plan::ReadPlan;
use caudal_core::row::{Row, RowBatch};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::query::{self, SyntaxError};
use crate::problem::Problem;
use crate::state::App;

/// Of the layout below, and of what the place's values mean.
const VERSION: u8 = 1;
const MAC_BYTES: usize = 32;
/// Version and number of rows.
const HEAD_BYTES: usize = 1 + 8;
/// Characters of a cursor; a place whose values are longer has none.
pub(super) const CURSOR_CHARS_MAX: usize = 4 * 1024;

/// The key that signs, from the store, when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct CursorKey(OnceCell<hmac::Key>);

impl CursorKey {
    pub(super) async fn of(app: &App) -> Result<&hmac::Key, Problem> {
        let secret = || async { app.engine.store.secret().await.map(|s| hmac::Key::new(hmac::HMAC_SHA256, &s)) };
        Ok(app.cursor_key.0.get_or_try_init(secret).await?)
    }
}

/// Which read a cursor belongs to: a digest of the table, of the order and of everything else that was asked for but how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape([u8; 32]);

impl Shape {
    pub(super) fn of(plan: &ReadPlan, query: &str) -> Result<Self, SyntaxError> {
        let mut digest = Sha256::new();
        let mut add = |text: &str| {
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(text);
        };
        add(plan.table.schema.as_deref().unwrap_or_default());
        add(&plan.table.name);
        for term in plan.total_order() {
            let embed = term.embed.map(|embed| &plan.embeds[embed]);
            let table = embed.map_or(&plan.table, |embed| &embed.plan.table);
            let column = &table.columns[term.field.column];
            add(embed.map_or("", |embed| &embed.name));
            add(&column.name);
            add(column.declared.as_deref().unwrap_or(column.ty.name()));
            add(&format!("{:?} {} {} {}", term.field.path, term.field.as_text, term.descending, term.nulls_first));
        }
        let mut pairs = query::pairs(query)?;
        pairs.retain(|(name, value)| !is_paging(name, value));
        pairs.sort();
        for (name, value) in &pairs {
            add(name);
            add(value);
        }
        Ok(Self(digest.finalize().into()))
    }
}

/// Whether a parameter says which rows of an answer, and not which answer.
pub(super) fn is_paging(name: &str, value: &str) -> bool {
    matches!(name, "limit" | "offset") || query::is_cursor(name, value)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Rows that came before, on the pages until here.
    pub(super) given: u64,
    /// The ordered values of the last of them, a row of their own.
    place: RowBatch,
}

impl Cursor {
    /// After a row of which `ordered` are the ordered values.
    pub(super) fn after<'r>(given: u64, ordered: impl Iterator<Item = Option<&'r [u8]>>) -> Self {
        let values: Vec<_> = ordered.collect();
        let mut place = RowBatch::default();
        let mut row = place.begin(values.len());
        for value in values {
            match value {
                Some(value) => row.raw(value),
                None => row.null(),
            }
        }
        row.finish();
        Self { given, place }
    }

    pub(super) fn place(&self) -> Row<'_> {
        self.place.row(0)
    }

    pub(super) fn seal(&self, key: &hmac::Key, shape: Shape) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.given.to_be_bytes());
        bytes.extend_from_slice(self.place.bytes());
        let mac = sign(key, &bytes, shape);
        bytes.extend_from_slice(&shape.0);
        bytes.extend_from_slice(mac.as_ref());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// # Errors
    /// `400` for what was not sealed with this key, by this release, for this shape.
    pub(super) fn open(key: &hmac::Key, shape: Shape, text: &str) -> Result<Self, Problem> {
        const FOREIGN: &str = "this cursor was not given out here, or not whole: follow the Link of an answer as it is, or begin \
                               again without cursor";
        let bad = |detail: &'static str| Problem::bad_request("bad_cursor", detail);
        let bytes = if text.len() <= CURSOR_CHARS_MAX { URL_SAFE_NO_PAD.decode(text).ok() } else { None };
        let bytes = bytes.ok_or_else(|| bad(FOREIGN))?;
        let (rest, mac) = bytes.split_last_chunk::<MAC_BYTES>().ok_or_else(|| bad(FOREIGN))?;
        let (signed, of) = rest.split_last_chunk::<32>().ok_or_else(|| bad(FOREIGN))?;
        let of = Shape(*of);
        hmac::verify(key, &to_sign(signed, of), mac).map_err(|_| bad(FOREIGN))?;
        if signed.first() != Some(&VERSION) {
            return Err(bad("this cursor is of another release: begin again without cursor"));
        }
        if of != shape {
            return Err(bad(
                "this cursor belongs to another read: ask for the same table, select, filters and order as before (only limit \
                 may change), or begin again without cursor",
            ));
        }
        let (head, row) = signed.split_at_checked(HEAD_BYTES).ok_or_else(|| bad(FOREIGN))?;
        let given = head[1..].try_into().map_or(0, u64::from_be_bytes);
        let mut place = RowBatch::default();
        place.push_encoded(row);
        Ok(Self { given, place })
    }
}

/// The shape is at the end, where its length is known: no two pairs of parts are the same bytes.
fn to_sign(signed: &[u8], shape: Shape) -> Vec<u8> {
    [signed, &shape.0].concat()
}

fn sign(key: &hmac::Key, bytes: &[u8], shape: Shape) -> hmac::Tag {
    hmac::sign(key, &to_sign(bytes, shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secret: &[u8]) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, secret)
    }

    fn refusal(key: &hmac::Key, shape: Shape, text: &str) -> String {
        match Cursor::open(key, shape, text) {
            Ok(cursor) => panic!("{text:?} was taken for {cursor:?}"),
            Err(problem) => problem.detail().to_owned(),
        }
    }

    #[test]
    fn only_what_was_sealed_is_opened() {
        let (ours, shape) = (key(b"ours"), Shape([7; 32]));
        let cursor = Cursor::after(42, [Some(&b"\x00\x01"[..]), None, Some(b"")].into_iter());
        let sealed = cursor.seal(&ours, shape);
        assert_eq!(Cursor::open(&ours, shape, &sealed).ok(), Some(cursor.clone()));
        assert!(sealed.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));

        for at in 0..sealed.len() {
            assert!(refusal(&ours, shape, &sealed[..at]).contains("not given out here"), "cut at {at}");
            let other = if sealed.as_bytes()[at] == b'A' { "B" } else { "A" };
            refusal(&ours, shape, &format!("{}{other}{}", &sealed[..at], &sealed[at + 1..]));
        }
        for odd in ["", "=", "%", "A", "ñ", &format!("{sealed}A"), &format!("{sealed}="), &"A".repeat(100_000)] {
            assert!(refusal(&ours, shape, odd).contains("not given out here"), "{odd:.20}");
        }
        assert!(refusal(&key(b"theirs"), shape, &sealed).contains("not given out here"));
        assert!(refusal(&ours, Shape([8; 32]), &sealed).contains("another read"));
        let mut bytes = URL_SAFE_NO_PAD.decode(&sealed).unwrap();
        let end = bytes.len() - MAC_BYTES - 32;
        bytes[0] = VERSION + 1;
        let mac = sign(&ours, &bytes[..end], shape);
        let at = bytes.len() - MAC_BYTES;
        bytes[at..].copy_from_slice(mac.as_ref());
        assert!(refusal(&ours, shape, &URL_SAFE_NO_PAD.encode(&bytes)).contains("another release"));
    }
}
