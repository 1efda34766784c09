//! `GET /v1/topics/{topic}/messages/{id}`: one record. Immutable, so cached without expiry here and by the client.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use caudal_engine::topic::Topic;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use uuid::Uuid;

use super::cache::CacheKey;
use super::render::{Encoding, Renderer};
use crate::problem::Problem;
use crate::publish::find_topic;
use crate::state::App;

pub(crate) async fn record(
    State(app): State<Arc<App>>,
    Path((topic, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let topic = find_topic(&app, &topic)?;
    let id = parse_id(&id)?;
    let Some(body) = rendered(&app, topic, id).await? else {
        let detail = format!("topic {} has no record {id}; ask /v1/receipts/{id} where it is", topic.name);
        return Err(Problem::not_found(detail));
    };
    let etag = format!("\"{id}\"");
    let unchanged = headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.to_str().is_ok_and(|v| v.contains(&etag)));
    let mut response = match unchanged {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response(),
    };
    let cached = HeaderValue::from_static("private, max-age=31536000, immutable");
    response.headers_mut().insert(header::CACHE_CONTROL, cached);
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}

/// The record as a JSON object, from the cache or the store.
pub(crate) async fn rendered(app: &App, topic: &Topic, id: Uuid) -> Result<Option<Bytes>, Problem> {
    let table = topic.table();
    let key = CacheKey { topic: topic.name.clone(), columns: table.columns.len(), id };
    if let Some(body) = app.cache.get(&key) {
        return Ok(Some(body));
    }
    let Some(batch) = app.engine.store.get(&table, id).await? else { return Ok(None) };
    let renderer = Renderer::new(table.columns.iter().map(|c| (c.name.clone(), c.ty)), Encoding::Json);
    let mut out = Vec::with_capacity(batch.byte_len() * 2);
    renderer.object(&mut out, batch.row(0));
    let body = Bytes::from(out);
    app.cache.put(key, body.clone());
    Ok(Some(body))
}

pub(crate) fn parse_id(text: &str) -> Result<Uuid, Problem> {
    let bad = || Problem::bad_request("bad_id", "a transaction_id is a UUID");
    Uuid::try_parse(text).map_err(|_| bad())
}
