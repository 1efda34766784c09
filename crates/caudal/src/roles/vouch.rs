//! What the broker's word is worth, known before anything is acknowledged on it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use caudal_core::error::BrokerError;
use caudal_core::message::Durability;
use caudal_core::ports::Probe;
use caudal_engine::Engine;

const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Asks the broker. When nothing is required, one that does not answer yet is asked again in the background; when something
/// is, Caudal waits, because what it would acknowledge meanwhile might not be worth enough.
///
/// # Errors
/// The broker gives less than `required`, or refuses us.
pub(crate) async fn vouch(engine: &Arc<Engine>, required: Durability) -> Result<()> {
    loop {
        match engine.probe_broker().await {
            Ok(None) => return Ok(()),
            Ok(Some(probe)) => return enough(&probe, required),
            Err(error @ BrokerError::Unavailable(_)) => {
                tracing::warn!(%error, "the broker does not answer yet");
                if required == Durability::Unknown {
                    tokio::spawn(later(engine.clone()));
                    return Ok(());
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn enough(probe: &Probe, required: Durability) -> Result<()> {
    let reasons = probe.reasons.join("; ");
    if probe.durability < required {
        bail!(
            "broker.durability asks for {required}, and {} gives {}: {reasons}. Change the broker's settings, or ask for less",
            probe.product,
            probe.durability
        );
    }
    tracing::info!(broker = probe.product, durability = %probe.durability, reasons, "the broker's word");
    Ok(())
}

async fn later(engine: Arc<Engine>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(ASK_AGAIN) => {}
            () = engine.stopping().cancelled() => return,
        }
        match engine.probe_broker().await {
            Ok(_) => return,
            Err(error @ BrokerError::Unavailable(_)) => tracing::debug!(%error, "waiting for the broker"),
            Err(error) => return tracing::error!(%error, "the broker refuses to say what its word is worth"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_than_what_is_asked_for_is_refused_with_the_reason() {
        let probe = Probe {
            product: "Redis 7.0".to_owned(),
            durability: Durability::Process,
            reasons: vec!["appendfsync is everysec".to_owned()],
        };
        assert!(enough(&probe, Durability::Process).is_ok());
        let refused = enough(&probe, Durability::Power).unwrap_err().to_string();
        assert!(refused.contains("asks for power") && refused.contains("appendfsync is everysec"), "{refused}");
    }
}
