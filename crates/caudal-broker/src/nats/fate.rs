//! What became of a connection, told by the driver's events.
//!
//! The driver would reconnect behind our back. Here a connection that broke stays broken: whoever uses it fails at once and
//! begins anew on another one, so that nothing waits for an answer that was lost with the old one.

use std::sync::Arc;

use async_nats::{Event, ServerError};
use caudal_core::error::BrokerError;
use tokio::sync::watch;

/// Refusals that are kept for those whom they concern.
const DENIALS_KEPT: usize = 16;

#[derive(Debug)]
pub(super) struct Fate {
    state: watch::Sender<State>,
    /// Whom the server knows us as.
    user: String,
}

#[derive(Debug, Default)]
struct State {
    over: Option<Over>,
    /// Subjects that we may not publish to.
    denied: Vec<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Over {
    /// By us: what is out can still be given back.
    Closing,
    Broken(Arc<str>),
    /// We may not hear the answers to what we ask.
    Deaf(Arc<str>),
}

impl Over {
    pub(super) fn error(&self) -> BrokerError {
        match self {
            Self::Closing => crate::current::closed(),
            Self::Broken(why) => BrokerError::unavailable(why.to_string()),
            Self::Deaf(sentence) => BrokerError::Setup(sentence.to_string()),
        }
    }
}

impl Fate {
    pub(super) fn new(user: String) -> Self {
        Self { state: watch::Sender::new(State::default()), user }
    }

    pub(super) fn note(&self, event: Event) {
        match event {
            Event::Disconnected | Event::Closed => self.end(Over::Broken("the connection to NATS broke".into())),
            // The driver threw messages away; its counts and ours no longer agree.
            Event::SlowConsumer(_) => self.end(Over::Broken("messages came faster than they were read".into())),
            Event::ServerError(ServerError::Other(text)) => self.denied(&text),
            Event::ServerError(error) => tracing::warn!(%error, "NATS reports an error"),
            Event::LameDuckMode => tracing::info!("the NATS server is about to stop"),
            Event::Connected | Event::Draining | Event::ClientError(_) => {}
        }
    }

    /// `Permissions Violation for Publish to "x"`, or `for Subscription to "x"`. It comes beside the answers, and names no
    /// request.
    fn denied(&self, text: &str) {
        let subject: Arc<str> = text.split('"').nth(1).unwrap_or_default().into();
        let text = text.to_ascii_lowercase();
        if text.starts_with("permissions violation for subscription") {
            return self.end(Over::Deaf(self.sentence(&subject).into()));
        }
        if !text.starts_with("permissions violation for publish") {
            return tracing::warn!(error = text, "NATS reports an error");
        }
        self.state.send_modify(|state| {
            state.denied.truncate(DENIALS_KEPT - 1);
            state.denied.insert(0, subject);
        });
    }

    /// What to say about a subject that we may not use.
    fn sentence(&self, subject: &str) -> String {
        format!(
            "NATS does not let {} use subject {subject:?}; allow it in the user's permissions (publish [\"caudal.>\", \
             \"$JS.API.>\", \"$JS.ACK.>\"] and subscribe [\"_INBOX.>\"] is all that Caudal needs)",
            self.user
        )
    }

    /// The first end is the one that counts.
    pub(super) fn end(&self, over: Over) {
        self.state.send_if_modified(|state| {
            let first = state.over.is_none();
            state.over.get_or_insert(over);
            first
        });
    }

    pub(super) fn over(&self) -> Option<Over> {
        self.state.borrow().over.clone()
    }

    /// Resolves when the connection is of no more use.
    pub(super) async fn ended(&self) -> Over {
        let mut state = self.state.subscribe();
        let over = state.wait_for(|state| state.over.is_some()).await.ok().and_then(|state| state.over.clone());
        over.unwrap_or(Over::Closing)
    }

    /// Resolves when the server refuses that we publish to a subject.
    pub(super) async fn refused(&self, subject: &str) -> BrokerError {
        let mut state = self.state.subscribe();
        // It fails only without a sender, and that one is ours.
        let _ = state.wait_for(|state| state.refuses(subject)).await;
        BrokerError::Setup(self.sentence(subject))
    }
}

impl State {
    fn refuses(&self, subject: &str) -> bool {
        self.denied.iter().any(|denied| **denied == *subject)
    }
}
