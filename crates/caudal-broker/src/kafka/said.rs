//! What the client library says beside its answers: log lines, and errors that no call returns.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// How long what was said explains a failure. Connections are tried again, and fail again, far more often.
const EXPLAINS: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
struct Word {
    at: Instant,
    refusal: bool,
    reason: String,
}

/// The last thing that was said. A call that fails for it only times out, so the reason is kept for it here.
#[derive(Clone, Default)]
pub(super) struct Said(Arc<Mutex<Option<Word>>>);

impl Said {
    /// Why we are not let in, if that is it.
    pub(super) fn refusal(&self) -> Option<String> {
        self.recent().filter(|word| word.refusal).map(|word| word.reason)
    }

    /// What went wrong last, if anything did lately.
    pub(super) fn reason(&self) -> Option<String> {
        self.recent().map(|word| word.reason)
    }

    /// An answer came, so what was said before explains nothing any more.
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn recent(&self) -> Option<Word> {
        let word = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        word.filter(|word| word.at.elapsed() < EXPLAINS)
    }

    /// A refusal is not covered by the disconnections that follow from it.
    fn keep(&self, refusal: bool, reason: &str) {
        if refusal || self.refusal().is_none() {
            let word = Word { at: Instant::now(), refusal, reason: reason.to_owned() };
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(word);
        }
    }
}

/// Codes that tell who we are is at fault, or how we speak.
pub(super) fn is_refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::SSL
    )
}

impl ClientContext for Said {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
        match (facility, level) {
            // Settings of a producer on a consumer and the reverse; failed connections, which `error` has too.
            ("CONFWARN" | "FAIL" | "ERROR", _) | (_, Debug) => tracing::debug!(facility, message, "librdkafka"),
            (_, Emerg | Alert | Critical | Error | Warning) => tracing::warn!(facility, message, "librdkafka"),
            (_, Notice | Info) => tracing::info!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "a Kafka connection");
        self.keep(error.rdkafka_error_code().is_some_and(is_refusal), reason);
    }
}

/// For consumers that are members of no group.
impl ConsumerContext for Said {}
