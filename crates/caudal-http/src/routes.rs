//! The table of routes.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::response::Response;
use axum::routing::{get, post, put};
use http::Method;
use tower::{Layer, Service};

use crate::problem::Problem;
use crate::publish::{self, insert, publish};
use crate::read::{find, record, table, tail};
use crate::state::App;
use crate::{aws, compat, confirmations, console, health, openapi, operate, sns, sql, webhook};

/// Every route of Caudal.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/topics", get(operate::topics))
        .route("/v1/topics/{topic}", get(operate::topic))
        .route("/v1/topics/{topic}/drift", get(operate::drift))
        .route("/v1/topics/{topic}/messages", post(publish))
        .route("/v1/topics/{topic}/messages/{id}", get(record::record))
        .route("/v1/topics/{topic}/stream", get(tail::tail))
        .route("/v1/receipts/{id}", get(operate::receipt))
        .route("/v1/dead-letters", get(dead_letters))
        .route("/v1/dead-letters/redrive", post(operate::redrive_many))
        .route("/v1/dead-letters/{id}", get(operate::dead_letter))
        .route("/v1/dead-letters/{id}/payload", put(operate::repair))
        .route("/v1/dead-letters/{id}/redrive", post(operate::redrive))
        .route("/v1/confirmations", get(confirmations::list))
        .route("/v1/confirmations/lanes", get(confirmations::lanes))
        .route("/v1/confirmations/pause", post(confirmations::pause))
        .route("/v1/confirmations/resume", post(confirmations::resume))
        .route("/v1/confirmations/redrive", post(confirmations::redrive_many))
        .route("/v1/confirmations/{id}", get(confirmations::one))
        .route("/v1/confirmations/{id}/redrive", post(confirmations::redrive))
        .route("/v1/confirmations/{id}/void", post(confirmations::void))
        .route("/v1/confirmations/{id}/resolve", post(confirmations::resolve))
        .route("/v1/reconcile", get(operate::reconcile))
        .route("/rest/v1/{table}", get(table::table).post(insert::insert).fallback(find::other_method))
        .route("/v1/sql", get(sql::get).post(sql::post))
        .route("/ingresar-datos", post(compat::ingest))
        .route("/ingresar-datos/", post(compat::ingest))
        .route("/data/{id}", get(compat::data))
        .route("/ping", get(health::ping))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/health", get(health::health))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi::document))
        .route("/docs", get(openapi::page))
        .route("/docs/errors/{code}", get(operate::error_page))
        .route("/sns/{topic}", post(sns::receive))
        .route("/webhooks/{topic}", post(webhook::receive))
        .route("/", get(console::page).post(aws::door))
        .route(&format!("/{}/{{queue}}", aws::ACCOUNT), post(aws::door))
        .method_not_allowed_fallback(publish::method_not_allowed)
        .layer(MeasureLayer { app: app.clone() })
        .fallback(elsewhere)
        .with_state(app)
}

/// `/v1/dead-letters` is the table under its own name, with the same grammar.
async fn dead_letters(
    state: State<Arc<App>>,
    method: Method,
    query: axum::extract::RawQuery,
    headers: http::HeaderMap,
) -> Response {
    let name = state.engine.dead_letters.name.clone();
    table::table(state, method, axum::extract::Path(name), query, headers).await
}

/// `GET /{db}/q=…`, whose second part no pattern of the router can name, and whatever is not there.
async fn elsewhere(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    match sql::of_path(&head.uri) {
        None => Err(Problem::not_found("there is no such path; / shows what there is")),
        Some(_) if matches!(head.method, Method::GET | Method::HEAD) => {
            sql::in_path(&app, &head.method, &head.uri, &head.headers).await
        }
        Some(_) => Err(publish::method_not_allowed().await.header(http::header::ALLOW, "GET,HEAD")),
    }
}

/// Times each request under its route's pattern, so that ids and names do not become labels.
#[derive(Clone)]
struct MeasureLayer {
    app: Arc<App>,
}

/// A service of its own rather than `middleware::from_fn`, which clones the route and boxes twice for each request.
#[derive(Clone)]
struct Measure<S> {
    inner: S,
    app: Arc<App>,
}

impl<S> Layer<S> for MeasureLayer {
    type Service = Measure<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Measure { inner, app: self.app.clone() }
    }
}

impl<S> Service<Request> for Measure<S>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let start = Instant::now();
        let app = self.app.clone();
        let path = request.extensions().get::<MatchedPath>().cloned();
        let method = request.method().clone();
        let answered = self.inner.call(request);
        Box::pin(async move {
            let response = answered.await?;
            let route = path.as_ref().map_or("none", MatchedPath::as_str);
            app.requests.observe(route, method.as_str(), response.status().as_u16(), start.elapsed().as_secs_f64());
            Ok(response)
        })
    }
}
