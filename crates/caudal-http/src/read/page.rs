//! One page of a table: how much of it is answered, and where the next begins.
//!
//! What is read before the answer begins tells whether there is more, because the head of an answer is where that is said. A page
//! that is larger is read twice, first only the values by which it is ordered: so memory stays flat.

use caudal_core::error::StoreError;
use caudal_core::plan::{OrderBy, ReadPlan};
use caudal_core::row::RowBatch;
use futures_util::StreamExt;

use super::answer::Rows;
use super::cap::{Capped, Caps, Over};
use super::cursor::Cursor;
use crate::problem::Problem;
use crate::state::App;

/// How a page is asked for.
#[derive(Debug, Default)]
pub(super) struct Paging {
    /// Where it begins; the plan's offset otherwise.
    pub(super) cursor: Option<Cursor>,
    /// Whether the caller's limit is a page, and not what it wants of the table and no more.
    pub(super) by_limit: bool,
    /// Whether more than one row could be answered.
    pub(super) singular: bool,
}

/// Rows, and behind each the ordered values of the plan where [`next`](Self::next) may need them.
pub(super) struct Page {
    pub(super) rows: Rows,
    /// How many there are, where all of them are here.
    pub(super) known: Option<u64>,
    /// Rows before the first.
    pub(super) first: u64,
    /// A cap of ours ended it.
    pub(super) cut: bool,
    pub(super) next: Option<Next>,
}

pub(crate) enum Next {
    After(Cursor),
    Offset(u64),
}

/// Gives a plan that may be cut an order to go on in, where it has none.
pub(super) fn in_order(app: &App, plan: &mut ReadPlan) {
    let bounds = app.config.read;
    if bounds.rows_max > 0 || bounds.bytes_max > 0 {
        by_key(plan);
    }
}

/// Orders by the primary key where nothing else is asked for.
pub(super) fn by_key(plan: &mut ReadPlan) {
    if plan.order.is_empty() && !plan.is_grouped() {
        plan.order = plan.table.key.iter().map(|column| OrderBy::column(*column)).collect();
    }
}

/// The plans whose answers make up the page, one after the other.
pub(super) fn ranges(plan: &ReadPlan, paging: &Paging) -> Vec<ReadPlan> {
    match &paging.cursor {
        Some(cursor) => plan.after(&plan.place(cursor.place())),
        None => vec![plan.clone()],
    }
}

/// Reads the page of an ordered plan.
pub(super) async fn read(app: &App, plan: ReadPlan, paging: &Paging) -> Result<Page, Problem> {
    Reading::new(app, plan, paging).page().await
}

struct Reading<'a> {
    app: &'a App,
    plan: ReadPlan,
    paging: &'a Paging,
    /// Values of a row that are shown.
    shown: usize,
    /// Rows before the first.
    first: u64,
    /// Rows of the page, at most.
    size: Option<u64>,
    /// The size is our cap's.
    by_cap: bool,
    /// The next page can begin after a row.
    keyed: bool,
}

impl<'a> Reading<'a> {
    fn new(app: &'a App, plan: ReadPlan, paging: &'a Paging) -> Self {
        let max = Some(app.config.read.rows_max).filter(|max| *max > 0 && !paging.singular);
        let by_cap = max.is_some_and(|max| plan.limit.is_none_or(|limit| limit > max));
        let size = if by_cap { max } else { plan.limit };
        let ordered = !plan.order.is_empty() && !plan.table.key.is_empty();
        let keyed = ordered && !plan.is_grouped() && !paging.singular && size != Some(0);
        let first = paging.cursor.as_ref().map_or(plan.offset, |cursor| cursor.given);
        let shown = plan.select.len();
        let mut reading = Self { app, plan, paging, shown, first, size, by_cap, keyed };
        if reading.keyed && reading.looks_ahead() {
            let ordered = reading.plan.ordered_values();
            reading.plan.select.extend(ordered);
        }
        reading
    }

    /// Whether it matters what comes after the page.
    fn looks_ahead(&self) -> bool {
        let by_limit = self.keyed && self.paging.by_limit && self.size.is_some();
        self.by_cap || by_limit || self.app.config.read.bytes_max > 0
    }

    async fn page(self) -> Result<Page, Problem> {
        if !self.looks_ahead() {
            let rows = self.rows(&self.plan, self.plan.limit).await?;
            return Ok(Page { rows, known: None, first: self.first, cut: false, next: None });
        }
        let beyond = self.size.map(|size| size.saturating_add(1));
        let over = if self.by_cap { Over::Breaks } else { Over::Ends };
        let caps = Caps { rows: self.size.unwrap_or(0), over, ..self.app.config.read.caps() };
        // Nothing is asked for: nothing can be beyond it.
        if self.size == Some(0) {
            let rows = self.rows(&self.plan, Some(0)).await?;
            return Ok(Page { rows, known: Some(0), first: self.first, cut: false, next: None });
        }
        let capped = Capped::start(self.rows(&self.plan, beyond).await?, caps).await?;
        match capped.kept {
            None if self.by_cap && self.keyed => self.long(capped).await,
            None if self.by_cap => self.long_by_offset(capped).await,
            _ => Ok(self.whole(capped)),
        }
    }

    /// A page that is here, or one of which nothing can be said before it was sent.
    fn whole(&self, capped: Capped) -> Page {
        let kept = capped.kept.unwrap_or_default();
        let full = capped.truncated && !self.by_cap && self.size == Some(kept);
        let cut = capped.truncated && !full;
        let linked = cut || (full && self.keyed && self.paging.by_limit);
        let next = linked.then(|| self.next(kept, capped.last.as_ref()));
        Page { rows: capped.rows, known: capped.kept, first: self.first, cut, next }
    }

    fn next(&self, kept: u64, last: Option<&RowBatch>) -> Next {
        let given = self.first.saturating_add(kept);
        match last {
            Some(last) if self.keyed => Next::After(Cursor::after(given, last.row(0).skip(self.shown))),
            _ => Next::Offset(given),
        }
    }

    /// More than is kept in memory: where it ends is looked up, and then it is read up to there. Rows that are stored meanwhile
    /// make it longer by themselves.
    async fn long(self, begun: Capped) -> Result<Page, Problem> {
        let size = self.size.unwrap_or(u64::MAX);
        let keys = ReadPlan { select: self.plan.ordered_values(), ..self.plan.clone() };
        let Some(last) = last_of(self.rows(&keys, Some(size.saturating_add(1))).await?, size).await? else {
            return Ok(Page { rows: begun.rows, known: None, first: self.first, cut: false, next: None });
        };
        drop(begun);
        let cursor = Cursor::after(self.first.saturating_add(size), last.row(0));
        let rows = self.rows(&self.plan, Some(size.saturating_mul(2))).await?;
        let capped = Capped::start(until(rows, self.shown, last), self.app.config.read.caps()).await?;
        match capped.truncated {
            true => Ok(Page { cut: true, ..self.whole(capped) }),
            false => Ok(Page {
                rows: capped.rows,
                known: None,
                first: self.first,
                cut: true,
                next: Some(Next::After(cursor)),
            }),
        }
    }

    /// The same where no key says where a page ended.
    async fn long_by_offset(self, begun: Capped) -> Result<Page, Problem> {
        let size = self.size.unwrap_or(u64::MAX);
        let mut beyond = self.plan.clone();
        (beyond.offset, beyond.limit) = (self.plan.offset.saturating_add(size), Some(1));
        let more = self.app.engine.store.read(beyond).await?.next().await.transpose()?;
        if more.is_none_or(|rows| rows.is_empty()) {
            return Ok(Page { rows: begun.rows, known: None, first: self.first, cut: false, next: None });
        }
        drop(begun);
        let rows = self.rows(&self.plan, Some(size)).await?;
        let capped = Capped::start(rows, self.app.config.read.caps()).await?;
        let kept = if capped.truncated { capped.kept.unwrap_or_default() } else { size };
        let next = Some(Next::Offset(self.first.saturating_add(kept)));
        Ok(Page { rows: capped.rows, known: None, first: self.first, cut: true, next })
    }

    /// The rows of a plan's ranges as one stream. The first is opened here, so that a read that fails at once is no broken answer.
    async fn rows(&self, plan: &ReadPlan, limit: Option<u64>) -> Result<Rows, StoreError> {
        let store = self.app.engine.store.clone();
        let mut waiting = ranges(plan, self.paging).into_iter();
        let Some(mut first) = waiting.next() else { return Ok(futures_util::stream::empty().boxed()) };
        first.limit = limit;
        let open = store.read(first).await?;
        let rows =
            futures_util::stream::try_unfold((open, waiting, limit), move |(mut open, mut waiting, mut left)| {
                let store = store.clone();
                async move {
                    loop {
                        if let Some(batch) = open.next().await.transpose()? {
                            left = left.map(|left| left.saturating_sub(batch.len() as u64));
                            return Ok(Some((batch, (open, waiting, left))));
                        }
                        match waiting.next() {
                            Some(range) if left != Some(0) => {
                                open = store.read(ReadPlan { limit: left, ..range }).await?
                            }
                            _ => return Ok(None),
                        }
                    }
                }
            });
        Ok(rows.boxed())
    }
}

/// Row number `size` of rows that are one more; `None` when they are not.
async fn last_of(mut rows: Rows, size: u64) -> Result<Option<RowBatch>, StoreError> {
    let (mut seen, mut last) = (0, None);
    while let Some(batch) = rows.next().await.transpose()? {
        let end = seen + batch.len() as u64;
        if last.is_none() && size <= end && size > seen {
            let mut one = RowBatch::default();
            one.push_encoded(batch.encoded((size - seen - 1) as usize));
            last = Some(one);
        }
        seen = end;
    }
    Ok(last.filter(|_| seen > size))
}

/// Rows to the one that ends with the values of `last`; breaks off when that does not come.
fn until(rows: Rows, shown: usize, last: RowBatch) -> Rows {
    let marked = rows.map(Some).chain(futures_util::stream::iter([None]));
    let cut = marked.scan(false, move |done, batch| {
        let is_last = |batch: &RowBatch, at: &usize| batch.row(*at).skip(shown).eq(last.row(0));
        let piece = match (*done, batch) {
            (true, _) => None,
            (false, Some(Ok(batch))) => {
                let end = (0..batch.len()).rev().find(|at| is_last(&batch, at));
                *done = end.is_some();
                Some(Ok(end.map_or_else(|| batch.clone(), |end| first_rows(&batch, end + 1))))
            }
            (false, Some(Err(error))) => Some(Err(error)),
            (false, None) => Some(Err(StoreError::Setup(
                "the row that ends this page was removed while it was read: ask for it again".into(),
            ))),
        };
        futures_util::future::ready(piece)
    });
    cut.boxed()
}

fn first_rows(batch: &RowBatch, rows: usize) -> RowBatch {
    let mut kept = RowBatch::default();
    (0..rows).for_each(|index| kept.push_encoded(batch.encoded(index)));
    kept
}
