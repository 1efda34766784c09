//! A table as Arrow or Parquet: the same stream of rows, encoded by columns.

use axum::body::Body;
use bytes::Bytes;
use caudal_core::error::StoreError;
use caudal_core::plan::ReadPlan;
use caudal_core::row::RowBatch;
use caudal_core::schema::ColumnType;
use caudal_export::{EncodeError, Encoder, Format};
use futures_util::stream::{BoxStream, StreamExt};
use http::StatusCode;

use crate::problem::Problem;

pub(super) const MEDIA_TYPES: &str = "application/vnd.apache.arrow.stream, application/vnd.apache.parquet";

pub(super) fn format(media_type: &str) -> Option<Format> {
    [Format::Arrow, Format::Parquet].into_iter().find(|format| format.media_type() == media_type)
}

pub(super) fn columns(plan: &ReadPlan) -> Vec<(String, ColumnType)> {
    plan.select.iter().zip(plan.types()).map(|(selected, ty)| (selected.name.clone(), ty)).collect()
}

/// Why an answer broke off. The connection ends without the closing chunk and the bytes without footer or end mark.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Fails only before the first byte.
pub(super) fn stream(
    format: Format,
    columns: &[(String, ColumnType)],
    first: Option<RowBatch>,
    rest: BoxStream<'static, Result<RowBatch, StoreError>>,
) -> Result<Body, Problem> {
    let encoder = Encoder::new(format, columns).map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("the answer could not be begun: {error}"))
    })?;
    let batches = futures_util::stream::iter(first.map(Ok)).chain(rest).boxed();
    let pieces = futures_util::stream::try_unfold(Some((encoder, batches)), |state| async move {
        let Some((mut encoder, mut batches)) = state else { return Ok(None) };
        let piece = next(&mut encoder, &mut batches).await.inspect_err(|error| {
            tracing::warn!(%error, "a table read broke off");
        })?;
        Ok::<_, Broken>(Some(match piece {
            Some(piece) => (Bytes::from(piece), Some((encoder, batches))),
            None => (Bytes::from(encoder.end()?), None),
        }))
    });
    Ok(Body::from_stream(pieces))
}

/// Encodes until there is something to send; `None` when the rows are over.
async fn next(
    encoder: &mut Encoder,
    batches: &mut BoxStream<'static, Result<RowBatch, StoreError>>,
) -> Result<Option<Vec<u8>>, Broken> {
    while let Some(batch) = batches.next().await {
        encoder.batch(&batch?)?;
        let ready = encoder.ready();
        if !ready.is_empty() {
            return Ok(Some(ready));
        }
    }
    Ok(None)
}
