//! Answers for callers without a socket of ours (AWS Lambda): a whole request in, a whole answer out, bounded in size and in
//! time. The same guard and the same routes as behind a socket.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use caudal_core::error::StoreError;
use futures_util::StreamExt;
use http::{Method, Request, StatusCode, header};
use tower::ServiceExt;

use crate::guard::{self, Access};
use crate::problem::Problem;

/// The router and who may come in.
#[derive(Debug, Clone)]
pub struct Whole {
    router: Router,
    access: Access,
}

impl Whole {
    pub fn new(router: Router, access: Access) -> Self {
        Self { router, access }
    }

    /// Answers one request. `ready` is awaited once the caller has been let in, for every route but the probes; its error is
    /// the answer then. An answer that does not fit into `bytes_max` or is not there `within` the time is a problem instead,
    /// never a part.
    pub async fn answer(
        &self,
        request: Request<Bytes>,
        ready: impl Future<Output = Result<(), StoreError>>,
        bytes_max: usize,
        within: Duration,
    ) -> http::Response<Bytes> {
        let answered = tokio::time::timeout(within, self.collected(request.map(Body::from), ready, bytes_max)).await;
        let unanswered = match answered {
            Ok(Ok(response)) => return response,
            Ok(Err(problem)) => problem,
            Err(_) => late(),
        };
        problem(unanswered).await
    }

    /// The answer to a request of this method when its own turned out not to fit once it was wrapped.
    pub async fn too_large(&self, method: &Method, bytes_max: usize) -> http::Response<Bytes> {
        problem(too_large(method, bytes_max)).await
    }

    async fn collected(
        &self,
        mut request: Request<Body>,
        ready: impl Future<Output = Result<(), StoreError>>,
        bytes_max: usize,
    ) -> Result<http::Response<Bytes>, Problem> {
        guard::check(&mut request, &self.access)?;
        let method = request.method().clone();
        if !guard::OPEN_PATHS.contains(&request.uri().path()) {
            ready.await?;
        }
        let response = match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        if response.headers().get(header::CONTENT_TYPE).is_some_and(|media| media == "text/event-stream") {
            return Err(endless());
        }
        collect(response, &method, bytes_max).await
    }
}

async fn problem(problem: Problem) -> http::Response<Bytes> {
    // A problem's body is a few hundred bytes in memory.
    collect(problem.into_response(), &Method::GET, usize::MAX).await.unwrap_or_default()
}

async fn collect(response: Response, method: &Method, bytes_max: usize) -> Result<http::Response<Bytes>, Problem> {
    let (head, body) = response.into_parts();
    let mut pieces = body.into_data_stream();
    let mut first: Option<Bytes> = None;
    let mut whole = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| broken())?;
        if first.as_ref().map_or(0, Bytes::len) + whole.len() + piece.len() > bytes_max {
            return Err(too_large(method, bytes_max));
        }
        // Most answers come in one piece.
        match first.take() {
            None if whole.is_empty() => first = Some(piece),
            None => whole.extend_from_slice(&piece),
            Some(start) => {
                whole.extend_from_slice(&start);
                whole.extend_from_slice(&piece);
            }
        }
    }
    Ok(http::Response::from_parts(head, first.unwrap_or_else(|| whole.freeze())))
}

fn endless() -> Problem {
    let detail = "what has no end cannot be answered here, where each answer is handed over whole: read \
                  /rest/v1/<topic>?order=_stored_at instead, or ask a server started with `caudal serve`";
    Problem::new(StatusCode::NOT_IMPLEMENTED, "no_stream", detail)
}

/// `4xx` means that nothing was done: true of reads only.
fn too_large(method: &Method, bytes_max: usize) -> Problem {
    let (status, advice) = match method.is_safe() {
        true => (StatusCode::UNPROCESSABLE_ENTITY, "ask for fewer rows with limit=, or for fewer columns with select="),
        false => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "what was sent was worked on; send fewer records in a request, or say Prefer: return=minimal",
        ),
    };
    let detail = format!("the answer has more than the {bytes_max} bytes that can be handed over here; {advice}");
    Problem::new(status, "answer_too_large", detail)
}

/// The cause is in the log already: whoever streams rows says why it stopped.
fn broken() -> Problem {
    let detail = "the store failed while the answer was being read; ask again";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", detail).header(header::RETRY_AFTER, "1")
}

fn late() -> Problem {
    let detail = "this function's time is over; whether a message was taken is unknown, so repeat it with the same key, \
                  ask for less, or give the function a longer timeout";
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout", detail)
}
