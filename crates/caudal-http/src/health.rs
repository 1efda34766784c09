//! Probes and metrics. `/ping` and `/livez` touch nothing; `/readyz` and `/health` ask the store and the topic.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use caudal_core::error::BrokerError;
use http::{StatusCode, header};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use crate::problem::{json_response, status_body};
use crate::state::App;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: String,
    status: u16,
}

/// Requests by route, method and status, with their durations.
#[derive(Debug, Clone)]
pub(crate) struct RequestMetrics {
    seconds: Family<RequestLabels, Histogram, fn() -> Histogram>,
}

/// Upper bounds in seconds; 0.2 and 0.5 are the health levels of the mission (OK, WARN, CRITICAL).
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0];

impl RequestMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let make: fn() -> Histogram = || Histogram::new(SECONDS);
        let seconds = Family::new_with_constructor(make);
        registry.register("caudal_http_request_seconds", "Time from a request's head to its answer", seconds.clone());
        Self { seconds }
    }

    pub(crate) fn observe(&self, route: &str, method: &str, status: u16, seconds: f64) {
        let labels = RequestLabels { route: route.to_owned(), method: method.to_owned(), status };
        self.seconds.get_or_create(&labels).observe(seconds);
    }
}

/// The process answers HTTP. Nothing else is asked.
pub(crate) async fn ping() -> Response {
    json_response(StatusCode::OK, &status_body("ok"))
}

pub(crate) async fn livez() -> &'static str {
    "ok\n"
}

const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// One dependency's state: how long it took to answer, or why it did not.
async fn check<T, E: std::fmt::Display>(asked: impl Future<Output = Result<T, E>>) -> Value {
    let start = Instant::now();
    let outcome = tokio::time::timeout(CHECK_TIMEOUT, asked).await;
    let millis = start.elapsed().as_secs_f64() * 1e3;
    let (status, output) = match outcome {
        Ok(Ok(_)) if millis <= 200.0 => ("pass", None),
        Ok(Ok(_)) if millis <= 500.0 => ("warn", Some("slow".to_owned())),
        Ok(Ok(_)) => ("fail", Some("slower than 500 ms".to_owned())),
        Ok(Err(error)) => ("fail", Some(error.to_string())),
        Err(_) => ("fail", Some("no answer within 1 s".to_owned())),
    };
    let mut check = json!({ "status": status, "observedValue": (millis * 10.0).round() / 10.0, "observedUnit": "ms" });
    if let Some(output) = output {
        check["output"] = output.into();
    }
    check
}

async fn checks(app: &App) -> Vec<(String, Value)> {
    let mut checks = vec![("store:responseTime".to_owned(), check(app.engine.store.ping()).await)];
    if let (Some(broker), Some(topic)) = (&app.engine.broker, app.engine.topics.iter().next()) {
        let asked = async {
            match broker.topic_state(&topic.name, app.engine.subscription()).await {
                // It answers; nothing was published yet.
                Ok(_) | Err(BrokerError::UnknownTopic(_)) => Ok(()),
                Err(error) => Err(error),
            }
        };
        checks.push(("topic:responseTime".to_owned(), check(asked).await));
    }
    checks
}

/// Ready to take messages. In queued mode that needs the topic only: the store may be away, its messages wait.
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let needed = if app.engine.broker.is_some() { "topic" } else { "store" };
    let checks = checks(&app).await;
    let failed: Vec<_> =
        checks.iter().filter(|(name, c)| name.starts_with(needed) && c["status"] == "fail").map(|(n, _)| n).collect();
    if failed.is_empty() && !app.engine.stopping().is_cancelled() {
        return json_response(StatusCode::OK, &status_body("ok"));
    }
    let body = json!({ "status": "unavailable", "failed": failed, "draining": app.engine.stopping().is_cancelled() });
    json_response(StatusCode::SERVICE_UNAVAILABLE, &body)
}

/// Every dependency, in the form of draft-inadarei-api-health-check-06. For people and dashboards, never for liveness.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Response {
    let checks = checks(&app).await;
    let worst = ["fail", "warn"].into_iter().find(|level| checks.iter().any(|(_, c)| c["status"] == *level));
    let status = worst.unwrap_or("pass");
    let listed: serde_json::Map<_, _> = checks.into_iter().map(|(name, c)| (name, json!([c]))).collect();
    let body = json!({ "status": status, "version": env!("CARGO_PKG_VERSION"), "checks": listed });
    let code = if status == "fail" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, [(header::CONTENT_TYPE, "application/health+json")], body.to_string()).into_response()
}

/// OpenMetrics. Levels that need a look at the store are refreshed first; if it is away, the last ones stand.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    for topic in app.engine.topics.iter() {
        let reconciled = tokio::time::timeout(CHECK_TIMEOUT, app.engine.reconcile(topic, false)).await;
        if let Ok(Err(error)) = reconciled {
            tracing::debug!(topic = %topic.name, %error, "metrics without fresh levels");
        }
    }
    let mut text = String::new();
    if prometheus_client::encoding::text::encode(&mut text, &app.registry).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, media)], text).into_response()
}
