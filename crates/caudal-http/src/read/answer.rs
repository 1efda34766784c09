//! Rows as the body of an answer: which encoding was asked for, and the stream in bounded memory.

use axum::body::Body;
use bytes::Bytes;
use caudal_core::error::StoreError;
use caudal_core::row::RowBatch;
use futures_util::stream::{BoxStream, StreamExt};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::render::{Encoding, Renderer};
use crate::problem::Problem;

/// Batches of rows as a store gives them.
pub(crate) type Rows = BoxStream<'static, Result<RowBatch, StoreError>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    Rows(Encoding),
    /// Exactly one row, as an object.
    Singular,
    #[cfg(feature = "parquet")]
    File(caudal_export::Format),
}

impl Media {
    /// What `Accept` asks for.
    ///
    /// # Errors
    /// `406` when nothing of it is offered.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let accept = headers.get(header::ACCEPT).map_or("*/*", |v| v.to_str().unwrap_or("*/*"));
        for part in accept.split(',') {
            let media = part.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            return Ok(match media.as_str() {
                "*/*" | "application/*" | "application/json" | "" | "application/vnd.pgrst.array+json" => {
                    Self::Rows(Encoding::Json)
                }
                "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Self::Rows(Encoding::Ndjson),
                "text/csv" | "text/*" => Self::Rows(Encoding::Csv),
                "application/vnd.pgrst.object+json" => Self::Singular,
                #[cfg(feature = "parquet")]
                other => match super::files::format(other) {
                    Some(format) => Self::File(format),
                    None => continue,
                },
                #[cfg(not(feature = "parquet"))]
                _ => continue,
            });
        }
        const TEXTS: &str = "application/json, application/x-ndjson, text/csv and application/vnd.pgrst.object+json";
        #[cfg(feature = "parquet")]
        let detail = format!("there are {}, {TEXTS}", super::files::MEDIA_TYPES);
        #[cfg(not(feature = "parquet"))]
        let detail = format!("there are {TEXTS}");
        Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", detail))
    }

    /// Whether values that are JSON stay JSON in it.
    pub(crate) fn is_json(self) -> bool {
        match self {
            Self::Rows(encoding) => encoding != Encoding::Csv,
            Self::Singular => true,
            #[cfg(feature = "parquet")]
            Self::File(_) => false,
        }
    }

    /// Says in the answer's headers what it is.
    pub(crate) fn describe(self, headers: &mut HeaderMap) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type()));
        headers.insert(header::VARY, HeaderValue::from_static("Accept, Prefer"));
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Rows(Encoding::Json) => "application/json; charset=utf-8",
            Self::Rows(Encoding::Ndjson) => "application/x-ndjson; charset=utf-8",
            Self::Rows(Encoding::Csv) => "text/csv; charset=utf-8",
            Self::Singular => "application/vnd.pgrst.object+json; charset=utf-8",
            #[cfg(feature = "parquet")]
            Self::File(format) => format.media_type(),
        }
    }
}

/// A stream whose first batch was taken out already.
pub(crate) fn chained(first: Option<RowBatch>, rest: Rows) -> Rows {
    futures_util::stream::iter(first.map(Ok)).chain(rest).boxed()
}

/// A failure on the way ends the connection without the closing chunk, so a client can tell a cut answer from a whole one.
pub(crate) fn stream(renderer: Renderer, rows: Rows) -> Body {
    let batches = rows.map(Some);
    // `None` marks the end, where the closing bracket goes.
    let marked = batches.chain(futures_util::stream::iter([None]));
    let bytes = marked.scan(renderer, |renderer, batch| {
        let piece = match batch {
            Some(Ok(batch)) => Ok(Bytes::from(renderer.batch(&batch))),
            Some(Err(error)) => {
                tracing::warn!(%error, "a read broke off");
                Err(error)
            }
            None => Ok(Bytes::from(renderer.end())),
        };
        futures_util::future::ready(Some(piece))
    });
    Body::from_stream(bytes)
}
