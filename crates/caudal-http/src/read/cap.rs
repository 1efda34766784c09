//! Caps on what one answer holds, never silent: a cut that is known before the answer begins is said in its head, and one that
//! comes later breaks the answer off, which every client can tell from an end.

use caudal_core::error::StoreError;
use caudal_core::row::RowBatch;
use futures_util::StreamExt;

use super::answer::Rows;

/// What is read before the answer begins, to know whether it will be cut.
const HEAD_BYTES: usize = 1024 * 1024;

/// The most that an answer holds; 0 is no cap. Bytes are those of the rows in binary, before they are rendered.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Caps {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) over: Over,
}

/// What becomes of an answer that has begun when there are more rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Over {
    /// It breaks off: the caller wanted them.
    #[default]
    Breaks,
    /// It ends.
    Ends,
}

impl Caps {
    /// Without the cap on rows when the caller asked for no more than it allows.
    pub(crate) fn unless_asked(self, limit: Option<u64>) -> Self {
        let asked = limit.is_some_and(|limit| limit <= self.rows);
        Self { rows: if asked { 0 } else { self.rows }, ..self }
    }

    pub(crate) fn rows(self) -> Option<u64> {
        (self.rows > 0).then_some(self.rows)
    }

    fn bytes(self) -> Option<u64> {
        (self.bytes > 0).then_some(self.bytes)
    }
}

/// Rows within their caps.
pub(crate) struct Capped {
    pub(crate) rows: Rows,
    /// There is more than `rows`.
    pub(crate) truncated: bool,
    /// How many there are in `rows`, where all of them are here.
    pub(crate) kept: Option<u64>,
    /// The last of them then, alone.
    pub(crate) last: Option<RowBatch>,
}

impl Capped {
    /// Reads the first rows.
    ///
    /// # Errors
    /// A read that fails at once.
    pub(crate) async fn start(mut rows: Rows, caps: Caps) -> Result<Self, StoreError> {
        let (rows_max, bytes_max) = (caps.rows().unwrap_or(u64::MAX), caps.bytes().unwrap_or(u64::MAX));
        let mut meter = Meter { rows: rows_max, bytes: bytes_max, begun: false };
        let head_max = if caps.rows().is_none() && caps.bytes().is_none() { 0 } else { HEAD_BYTES };
        let mut head = Vec::new();
        let mut head_bytes = 0;
        loop {
            let Some(batch) = rows.next().await.transpose()? else { return Ok(Self::of(head, false)) };
            let (batch, cut) = meter.take(batch);
            head_bytes += batch.byte_len();
            head.push(batch);
            if cut {
                return Ok(Self::of(head, true));
            }
            if head_bytes >= head_max {
                break;
            }
        }
        let head = futures_util::stream::iter(head.into_iter().map(Ok));
        let rest = rows.scan(false, move |ended, batch| {
            let (batch, cut) = match batch {
                Ok(batch) => meter.take(batch),
                Err(error) => return futures_util::future::ready(Some(Err(error))),
            };
            let piece = match (*ended, cut) {
                (true, _) => None,
                (false, false) => Some(Ok(batch)),
                (false, true) if meter.rows == 0 && caps.over == Over::Ends => {
                    *ended = true;
                    Some(Ok(batch))
                }
                (false, true) => {
                    Some(Err(StoreError::Setup("the answer is larger than its cap: ask for less of it".into())))
                }
            };
            futures_util::future::ready(piece)
        });
        Ok(Self { rows: head.chain(rest).boxed(), truncated: false, kept: None, last: None })
    }

    fn of(head: Vec<RowBatch>, truncated: bool) -> Self {
        let kept = Some(head.iter().map(|batch| batch.len() as u64).sum());
        let last = head.iter().rev().find(|batch| !batch.is_empty()).map(|batch| {
            let mut last = RowBatch::default();
            last.push_encoded(batch.encoded(batch.len() - 1));
            last
        });
        Self { rows: futures_util::stream::iter(head.into_iter().map(Ok)).boxed(), truncated, kept, last }
    }
}

/// What may still come.
struct Meter {
    rows: u64,
    bytes: u64,
    /// The first row comes however large it is, or no page would ever come to the second.
    begun: bool,
}

impl Meter {
    /// The rows of the batch that fit, and whether some did not.
    fn take(&mut self, batch: RowBatch) -> (RowBatch, bool) {
        if batch.len() as u64 <= self.rows && batch.byte_len() as u64 <= self.bytes {
            self.rows -= batch.len() as u64;
            self.bytes -= batch.byte_len() as u64;
            self.begun |= !batch.is_empty();
            return (batch, false);
        }
        let mut kept = RowBatch::default();
        for index in 0..batch.len().min(usize::try_from(self.rows).unwrap_or(usize::MAX)) {
            let row = batch.encoded(index);
            if (kept.byte_len() + row.len()) as u64 > self.bytes && (self.begun || index > 0) {
                break;
            }
            kept.push_encoded(row);
        }
        // A single row that is over is cut only when another follows it.
        let cut = kept.len() < batch.len();
        (self.rows, self.bytes, self.begun) = (self.rows - kept.len() as u64, 0, true);
        (kept, cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(rows: std::ops::Range<i64>) -> RowBatch {
        let mut batch = RowBatch::default();
        for n in rows {
            let mut row = batch.begin(1);
            row.int8(n);
            row.finish();
        }
        batch
    }

    const ROW_BYTES: u64 = 2 + 4 + 8;

    async fn capped(batches: Vec<RowBatch>, caps: Caps) -> (usize, bool, bool) {
        let rows = futures_util::stream::iter(batches.into_iter().map(Ok)).boxed();
        let Ok(mut capped) = Capped::start(rows, caps).await else { panic!("a read that begins") };
        let (mut count, mut broken) = (0, false);
        while let Some(batch) = capped.rows.next().await {
            match batch {
                Ok(batch) => count += batch.len(),
                Err(_) => broken = true,
            }
        }
        (count, capped.truncated, broken)
    }

    #[tokio::test]
    async fn a_cut_is_said_or_breaks_the_answer() {
        let two = || vec![batch(0..10), batch(10..20)];
        let caps = |rows, bytes| Caps { rows, bytes, over: Over::Breaks };
        assert_eq!(capped(two(), caps(0, 0)).await, (20, false, false));
        assert_eq!(capped(two(), caps(20, 0)).await, (20, false, false));
        assert_eq!(capped(two(), caps(15, 0)).await, (15, true, false));
        assert_eq!(capped(two(), caps(0, 12 * ROW_BYTES)).await, (12, true, false));
        assert_eq!(capped(two(), caps(10, 0)).await, (10, true, false));
        assert_eq!(capped(vec![], caps(10, 10)).await, (0, false, false));
        assert_eq!(capped(two(), caps(0, 1)).await, (1, true, false));
        assert_eq!(capped(vec![batch(0..1)], caps(0, 1)).await, (1, false, false));
        assert_eq!(capped(vec![batch(0..1), batch(0..1)], caps(0, 1)).await, (1, true, false));
        // More than is read before the answer begins: it cannot be said any more.
        let many = (HEAD_BYTES / ROW_BYTES as usize) as i64 + 1;
        let long = vec![batch(0..many), batch(0..10)];
        assert_eq!(capped(long.clone(), caps(many as u64 + 5, 0)).await, (many as usize, false, true));
        let ends = Caps { over: Over::Ends, ..caps(many as u64 + 5, 0) };
        assert_eq!(capped(long, ends).await, (many as usize + 5, false, false));
    }
}
