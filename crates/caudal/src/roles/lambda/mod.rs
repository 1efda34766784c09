//! `caudal lambda`: the same router behind API Gateway, a function URL or a load balancer, and the same way into the store for
//! queues of SQS, as one AWS Lambda function. With `confirm.store` it is the steps of a state machine instead.
//!
//! Nothing listens. What a function begins ends before its answer: Lambda freezes the process in between, with its
//! connections, and may never wake it again.

mod answer;
mod event;
mod queue;
mod request;
mod steps;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use bytes::Bytes;
use caudal_core::error::StoreError;
use caudal_core::message::Durability;
use caudal_engine::Engine;
use caudal_http::{Access, App, Whole, router};
use http::Request;
use lambda_runtime::{Context, Diagnostic, LambdaEvent, service_fn};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::OnceCell;

use self::event::{Event, Front};
use self::queue::Queues;
use self::steps::Steps;
use super::{serve, vouch};
use crate::cli::ConfigArgs;
use crate::compose::{compose, confirm_store};
use crate::config::{self, Loaded};
use crate::secret::SecretUrl;

/// One event is worked on at a time.
const WRITERS_MAX: usize = 2;
const READERS_MAX: usize = 1;
/// Connections that wait longer are opened anew: whatever lies between may have forgotten them while the process was frozen.
const IDLE_MS_MAX: u64 = 60_000;
/// Kept back from the time that Lambda gives, so that there is an answer instead of a timeout.
const MARGIN: Duration = Duration::from_millis(400);
/// Lambda's own.
const INVOCATION_MAX: Duration = Duration::from_secs(900);

pub(crate) async fn run(args: ConfigArgs) -> Result<ExitCode> {
    if !config::in_lambda() {
        bail!(
            "`caudal lambda` is run by AWS Lambda, which sets AWS_LAMBDA_RUNTIME_API: deploy this program as `bootstrap` \
             (docs/lambda.md), try it with `cargo lambda watch`, or use `caudal serve` here"
        );
    }
    if config::is_copied() {
        bail!(
            "SnapStart is on: copies of one snapshot would make the same random ids. Turn it off; this program starts within \
             milliseconds without it"
        );
    }
    let mut loaded = config::load(args.config.as_deref())?;
    serve::start_logging(&loaded)?;
    let function = Arc::new(match confirm_store::apart(&loaded)? {
        Some(_) => Deployed::Confirmations(Box::new(Steps::new(loaded)?)),
        None => {
            fit(&mut loaded)?;
            Deployed::Messages(Box::new(Function::new(&loaded).await?))
        }
    });
    // Meanwhile the first event is fetched.
    tokio::spawn({
        let function = function.clone();
        async move {
            if let Err(error) = function.ready().await {
                tracing::warn!(error, "not ready yet");
            }
        }
    });
    let invoke = service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let function = function.clone();
        async move { function.invoke(&event.payload, &event.context).await }
    });
    lambda_runtime::run(invoke).await.map_err(|error| anyhow::anyhow!("the Lambda runtime API failed: {error}"))?;
    Ok(ExitCode::SUCCESS)
}

/// What a function is for: its configuration says.
enum Deployed {
    /// HTTP requests, and queues into an SQL store.
    Messages(Box<Function>),
    /// Steps of a state machine, and queues into a store of confirmations.
    Confirmations(Box<Steps>),
}

impl Deployed {
    async fn ready(&self) -> Result<(), String> {
        match self {
            Self::Messages(function) => function.ready().await.map_err(|error| error.to_string()),
            Self::Confirmations(steps) => steps.ready().await.map(drop).map_err(|failure| failure.message),
        }
    }

    async fn invoke(&self, payload: &RawValue, context: &Context) -> Result<Box<RawValue>, Failure> {
        match self {
            Self::Messages(function) => function.invoke(payload, context).await,
            Self::Confirmations(steps) => steps.invoke(payload, remaining(context)).await,
        }
    }
}

/// Holds the settings to what a function can do.
fn fit(loaded: &mut Loaded) -> Result<()> {
    let settings = &mut loaded.settings;
    if !settings.store.url.expose().starts_with("postgres") {
        bail!(
            "store.url is {}; a function needs PostgreSQL, because what it writes to its own disk is gone with it: set \
             CAUDAL_STORE__URL=postgres://…",
            settings.store.url
        );
    }
    match settings.broker.url.expose().split(':').next() {
        Some("none" | "sqs") => {}
        // What applies when nothing is set.
        Some("embedded") => settings.broker.url = SecretUrl::new("none:"),
        _ => bail!(
            "broker.url is {}; for a function it is none: (messages are stored before they are answered) or sqs: (they are \
             queued, and this or another function stores them)",
            settings.broker.url
        ),
    }
    settings.store.writers = settings.store.writers.min(WRITERS_MAX);
    settings.store.readers = settings.store.readers.min(READERS_MAX);
    if settings.store.idle_ms_max == 0 {
        settings.store.idle_ms_max = IDLE_MS_MAX;
    }
    Ok(())
}

struct Function {
    engine: Arc<Engine>,
    whole: Whole,
    /// Nobody but probes is let in.
    closed: bool,
    queues: Queues,
    durability: Durability,
    prepared: OnceCell<()>,
}

/// What Lambda is told instead of an answer. It counts as an error of the function, and the runtime logs it.
struct Failure {
    kind: &'static str,
    message: String,
}

impl std::fmt::Debug for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl From<Failure> for Diagnostic {
    fn from(failure: Failure) -> Self {
        Self { error_type: failure.kind.to_owned(), error_message: failure.message }
    }
}

impl Function {
    async fn new(loaded: &Loaded) -> Result<Self> {
        let mut composed = compose(loaded).await?;
        let engine = composed.engine.clone();
        let mut http = serve::http_config(loaded)?;
        if engine.broker.is_some() {
            // Another function stores it, and waiting is paid for: the producer gets a receipt.
            (http.wait_default, http.wait_max) = (Duration::ZERO, Duration::ZERO);
        }
        let access = loaded.access_from_anywhere()?;
        let closed = matches!(&access, Access::Keys(keys) if keys.is_empty());
        let app = App::new(engine.clone(), http, std::mem::take(&mut composed.registry));
        Ok(Self {
            whole: Whole::new(router(app), access),
            closed,
            queues: Queues::of(loaded)?,
            durability: loaded.settings.broker.durability.into(),
            prepared: OnceCell::new(),
            engine,
        })
    }

    /// The store's tables are there, and the broker is worth what was asked for. Tried anew by each event until it succeeds.
    async fn ready(&self) -> Result<(), StoreError> {
        let prepare = async {
            let applied = self.engine.prepare().await?;
            if !applied.is_empty() {
                tracing::info!(?applied, "the store was brought to this release");
            }
            if self.durability > Durability::Unknown {
                let vouched = vouch::vouch(&self.engine, self.durability).await;
                vouched.map_err(|error| StoreError::Setup(error.to_string()))?;
            }
            Ok(())
        };
        let prepared = self.prepared.get_or_try_init(|| prepare).await;
        prepared.map(drop)
    }

    async fn invoke(&self, payload: &RawValue, context: &Context) -> Result<Box<RawValue>, Failure> {
        let within = remaining(context);
        let event = Event::read(payload.get()).map_err(|message| Failure { kind: "UnknownEvent", message })?;
        match event {
            Event::Http(event) => {
                let front = event.front;
                let request =
                    request::request(*event).map_err(|message| Failure { kind: "MalformedEvent", message })?;
                self.http(front, request, within).await
            }
            Event::Queue(records) => {
                let answer = self.queue(&records, within).await?;
                to_raw_value(&answer).map_err(internal)
            }
            Event::Step(step) => Err(Failure {
                kind: "NotAsItMustBe",
                message: format!(
                    "this function keeps messages in PostgreSQL and cannot do {:?}: steps are for a function with confirm.store, such as \
                     CAUDAL_CONFIRM__STORE=dynamodb://<region>/<table>",
                    step.op
                ),
            }),
        }
    }

    async fn http(&self, front: Front, request: Request<Bytes>, within: Duration) -> Result<Box<RawValue>, Failure> {
        let begun = tokio::time::Instant::now();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let bytes_max = front.answer_bytes_max();
        let mut response = self.whole.answer(request, self.ready_for_requests(), bytes_max, within).await;
        let mut answer = answer::answer(front, &response).map_err(internal)?;
        if answer.get().len() > bytes_max {
            response = self.whole.too_large(&method, bytes_max).await;
            answer = answer::answer(front, &response).map_err(internal)?;
        }
        let status = response.status().as_u16();
        if status == 401 && self.closed {
            tracing::warn!(
                "nobody is let in over HTTP: http.keys is empty. Make a key with `caudal keys new` and set CAUDAL_HTTP__KEYS"
            );
        }
        tracing::info!(%method, path, status, ms = begun.elapsed().as_millis() as u64, "answered");
        Ok(answer)
    }

    /// With a broker, messages can be taken while the store is away.
    async fn ready_for_requests(&self) -> Result<(), StoreError> {
        match self.ready().await {
            Err(error) if error.is_transient() && self.engine.broker.is_some() => Ok(()),
            ready => ready,
        }
    }
}

fn internal(error: serde_json::Error) -> Failure {
    Failure { kind: "Internal", message: error.to_string() }
}

/// What is left of this invocation's time. Emulators send deadlines that are long over, which then mean nothing.
fn remaining(context: &Context) -> Duration {
    match context.deadline().duration_since(SystemTime::now()) {
        Ok(left) => left.saturating_sub(MARGIN),
        Err(_) => INVOCATION_MAX,
    }
}
