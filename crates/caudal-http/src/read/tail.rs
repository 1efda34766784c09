//! `GET /v1/topics/{topic}/stream`: new records as server-sent events, none skipped, whatever order commits come in.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use caudal_core::ports::TailMark;
use caudal_engine::topic::Topic;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header};
use tokio::sync::watch;

use super::render::{Encoding, Renderer};
use crate::problem::Problem;
use crate::publish::find_topic;
use crate::state::App;

/// Records of one look at the store.
const RECORDS_MAX: usize = 1_000;
/// How often the store is asked when this process has no news: other processes write too.
const POLL: Duration = Duration::from_secs(1);
/// A comment this often keeps proxies from closing an idle stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

struct Tail {
    app: Arc<App>,
    topic: Arc<Topic>,
    mark: Option<TailMark>,
    news: watch::Receiver<u64>,
    quiet: Duration,
}

pub(crate) async fn tail(
    State(app): State<Arc<App>>,
    Path(topic): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let topic = find_topic(&app, &topic)?.clone();
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok());
    let resumed = last.filter(|id| !id.is_empty()).map(|id| TailMark(id.to_owned()));
    let news = topic.news();
    // The start is fixed before the answer: what is stored after the response headers is in the stream.
    let (_, mark) = match resumed {
        Some(mark) => {
            // Asked once for nothing but to know that the mark is one: what a client sends must not fail in mid-stream.
            let asked = app.engine.store.tail(&topic.table(), Some(mark.clone()), 1).await;
            if asked.is_err_and(|error| !error.is_transient()) {
                return Err(Problem::bad_request("bad_mark", "Last-Event-ID is not one that this stream gave out"));
            }
            (Default::default(), mark)
        }
        None => app.engine.store.tail(&topic.table(), None, RECORDS_MAX).await?,
    };
    let tail = Tail { app, topic, mark: Some(mark), news, quiet: Duration::ZERO };
    let hello = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b": following\n\n"))]);
    let events = stream::unfold(tail, |mut tail| async move { tail.next().await.map(|piece| (Ok(piece), tail)) });
    let body = Body::from_stream(futures_util::StreamExt::chain(hello, events));
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

impl Tail {
    /// The next events; `None` when the process drains or the store fails: clients reconnect with `Last-Event-ID`.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.app.engine.stopping().is_cancelled() {
                return None;
            }
            self.news.mark_unchanged();
            let table = self.topic.table();
            let (records, mark) = match self.app.engine.store.tail(&table, self.mark.clone(), RECORDS_MAX).await {
                Ok(seen) => seen,
                Err(error) => {
                    tracing::warn!(topic = %self.topic.name, %error, "a live tail broke off");
                    return None;
                }
            };
            self.mark = Some(mark);
            if !records.is_empty() {
                self.quiet = Duration::ZERO;
                let renderer = Renderer::new(table.columns.iter().map(|c| (c.name.clone(), c.ty)), Encoding::Json);
                return Some(self.events(&renderer, &records));
            }
            if self.quiet >= KEEP_ALIVE {
                self.quiet = Duration::ZERO;
                return Some(Bytes::from_static(b": still here\n\n"));
            }
            self.wait().await;
        }
    }

    /// One event a record; the last carries the mark to resume from.
    fn events(&self, renderer: &Renderer, records: &caudal_core::row::RowBatch) -> Bytes {
        let mut out = Vec::with_capacity(records.byte_len() * 2);
        for (i, row) in records.rows().enumerate() {
            if i + 1 == records.len()
                && let Some(TailMark(mark)) = &self.mark
            {
                out.extend_from_slice(format!("id: {mark}\n").as_bytes());
            }
            out.extend_from_slice(b"event: record\ndata: ");
            renderer.object(&mut out, row);
            out.extend_from_slice(b"\n\n");
        }
        out.into()
    }

    async fn wait(&mut self) {
        let stopping = self.app.engine.stopping().clone();
        tokio::select! {
            _ = self.news.changed() => {}
            () = tokio::time::sleep(POLL) => self.quiet += POLL,
            () = stopping.cancelled() => {}
        }
    }
}
