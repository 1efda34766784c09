//! `[topics.<name>.confirm]` and `[adopt.<name>]`: what is confirmed, by whom, and within which bounds.

mod callee;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use caudal_core::confirm::answer::{BodyTest, Codes, Rules};
use caudal_core::confirm::policy::{Backoff, Policy, Repeat};
use caudal_engine::confirm::Limits;
use caudal_engine::topic::LanesConfig;
use serde::{Deserialize, Serialize};

pub(crate) use callee::Callee;

use crate::config::span;
use crate::secret::{Secret, SecretUrl};

/// More would be many for one database, which does their work besides its own.
const SQL_CONNECTIONS: usize = 8;

/// The endpoint of a topic's transactions. One of `url`, `command`, `function` and `sql_function` says what is
/// called.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Confirm {
    /// An HTTP endpoint. Placeholders such as `${payment_id}` are taken from the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<SecretUrl>,
    pub(crate) method: String,
    /// Never shown: one of them usually is a password.
    pub(crate) headers: BTreeMap<String, Secret>,
    /// A template; without it the record itself is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<serde_json::Value>,
    pub(crate) key_header: String,
    /// Asked with GET whether a transaction was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) probe_url: Option<SecretUrl>,
    /// Signs each request as Standard Webhooks: `whsec_…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signing_secret: Option<Secret>,
    /// PEM files: a certificate chain and its key, and the authority that the endpoint's own certificate comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) authority: Option<String>,
    /// Let the endpoint be in a private network. Without it only where the URL itself names such an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allow_private: Option<bool>,
    /// A program and its arguments; the record is its standard input.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) command: Vec<String>,
    /// The program that is asked whether a transaction was done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) probe_command: Vec<String>,
    /// A function on AWS Lambda: its name or ARN, with an alias or version where wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) function: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) function_region: Option<String>,
    /// Where Lambda is, if not where AWS has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) function_endpoint: Option<String>,
    /// The function answers `"probe": true` with what became of a transaction.
    pub(crate) function_probes: bool,
    /// A function in PostgreSQL, `schema.name`: `(key uuid, attempt integer, record jsonb)`, returning `status`, `detail` and
    /// `retry_after_seconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sql_function: Option<String>,
    /// Where it is, if not in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sql_url: Option<SecretUrl>,
    /// The function that says what became of a transaction; it may only read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sql_probe: Option<String>,
    /// Calls at the same time by one worker, if `concurrency` is not less.
    pub(crate) sql_connections: usize,
    pub(crate) timeout: String,
    pub(crate) connect_timeout: String,

    /// Statuses or exit codes: `200`, `200-204`, `2xx`. An empty list is what HTTP, or a command, usually means.
    pub(crate) success: Vec<String>,
    pub(crate) rejected: Vec<String>,
    pub(crate) retry: Vec<String>,
    pub(crate) in_progress: Vec<String>,
    pub(crate) not_found: Vec<String>,
    /// What the body of a success must say to count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) success_when: Option<When>,
    /// What makes a success a rejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rejected_when: Option<When>,

    /// How long the endpoint remembers a key and answers a repeat without doing it again. Without it a transaction in doubt is
    /// never sent twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_retention: Option<String>,
    /// Part of the key: tells apart what is done with one transaction. Changing it changes every key.
    pub(crate) operation: String,

    /// Lanes, the most urgent first, and the property that names a record's.
    pub(crate) lanes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lane: Option<String>,

    /// Calls at the same time and calls a second, by all workers together.
    pub(crate) concurrency: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate_per_second: Option<f64>,
    pub(crate) batch_max: usize,
    /// How long a dead worker's transactions wait.
    pub(crate) lease: String,
    pub(crate) attempts_max: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deadline: Option<String>,
    pub(crate) backoff: String,
    pub(crate) backoff_max: String,
    /// Failures in a row before nothing is asked for a while; 0: never.
    pub(crate) breaker_failures: u32,
    pub(crate) breaker_pause: String,
    pub(crate) breaker_pause_max: String,
}

impl Default for Confirm {
    fn default() -> Self {
        let text = str::to_owned;
        Self {
            url: None,
            method: text("POST"),
            headers: BTreeMap::new(),
            body: None,
            key_header: text("Idempotency-Key"),
            probe_url: None,
            signing_secret: None,
            client_certificate: None,
            client_key: None,
            authority: None,
            allow_private: None,
            command: Vec::new(),
            probe_command: Vec::new(),
            function: None,
            function_region: None,
            function_endpoint: None,
            function_probes: false,
            sql_function: None,
            sql_url: None,
            sql_probe: None,
            sql_connections: SQL_CONNECTIONS,
            timeout: text("10s"),
            connect_timeout: text("3s"),
            success: Vec::new(),
            rejected: Vec::new(),
            retry: Vec::new(),
            in_progress: Vec::new(),
            not_found: Vec::new(),
            success_when: None,
            rejected_when: None,
            key_retention: None,
            operation: text("confirm"),
            lanes: Vec::new(),
            lane: None,
            concurrency: 64,
            rate_per_second: None,
            batch_max: 1_000,
            lease: text("30s"),
            attempts_max: 12,
            deadline: None,
            backoff: text("500ms"),
            backoff_max: text("5m"),
            breaker_failures: 20,
            breaker_pause: text("1s"),
            breaker_pause_max: text("1m"),
        }
    }
}

/// A condition on a JSON answer.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct When {
    /// RFC 6901: `/payment/state`.
    pub(crate) pointer: String,
    pub(crate) one_of: Vec<serde_json::Value>,
}

/// A table of pending transactions that somebody else writes.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Adopt {
    /// `schema.table`, or a table where the store's own are.
    pub(crate) table: String,
    /// The column that names a row: unique, not null.
    pub(crate) key: String,
    /// The text column that says where a row stands.
    pub(crate) state: String,
    #[serde(default = "pending")]
    pub(crate) pending: String,
    /// What the state becomes; an empty text leaves it.
    #[serde(default = "confirmed")]
    pub(crate) confirmed: String,
    #[serde(default = "rejected")]
    pub(crate) rejected: String,
    pub(crate) confirm: Confirm,
}

fn pending() -> String {
    "pending".to_owned()
}

fn confirmed() -> String {
    "confirmed".to_owned()
}

fn rejected() -> String {
    "rejected".to_owned()
}

/// `[confirm]`: how this process's worker goes about it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Worker {
    /// Where confirmations are kept: empty, the store itself; or `dynamodb://<region>/<table>`, which takes transactions by
    /// enqueueing only.
    pub(crate) store: SecretUrl,
    /// Between two looks when nothing happens.
    pub(crate) idle_beat_ms: u64,
    /// Tell and be told of new transactions at once. `false`: found by looking, with no connection held between looks, so that a
    /// database which sleeps without connections can sleep.
    pub(crate) wake: bool,
}

impl Default for Worker {
    fn default() -> Self {
        Self { store: SecretUrl::new(""), idle_beat_ms: 2_000, wake: true }
    }
}

impl Confirm {
    pub(crate) fn lanes_config(&self) -> Result<LanesConfig> {
        if self.lanes.is_empty() {
            return match &self.lane {
                None => Ok(LanesConfig::one()),
                Some(lane) => bail!("lane = {lane:?} names the property that holds a record's lane; set lanes, too"),
            };
        }
        let mut sorted = self.lanes.clone();
        sorted.sort();
        sorted.dedup();
        let sound = |name: &String| !name.is_empty() && name.len() <= 63 && !name.contains('\0');
        if sorted.len() < self.lanes.len() || !self.lanes.iter().all(sound) || self.lanes.len() > 100 {
            bail!("lanes are at most a hundred different names of 1 to 63 bytes");
        }
        if self.lanes.len() > 1 && self.lane.is_none() {
            bail!("there are several lanes; set lane to the property that holds a record's");
        }
        Ok(LanesConfig { names: self.lanes.clone(), property: self.lane.clone() })
    }

    pub(crate) fn policy(&self) -> Result<Policy> {
        let key_retention = self.key_retention.as_deref().map(|text| time("key_retention", text)).transpose()?;
        if self.attempts_max == 0 {
            bail!("attempts_max is at least 1");
        }
        Ok(Policy {
            attempts_max: self.attempts_max,
            deadline: self.deadline.as_deref().map(|text| time("deadline", text)).transpose()?,
            backoff: Backoff { first: time("backoff", &self.backoff)?, max: time("backoff_max", &self.backoff_max)? },
            repeat: Repeat { probe: self.can_be_asked(), key_retention },
            ..Policy::default()
        })
    }

    fn can_be_asked(&self) -> bool {
        let asks = self.probe_url.is_some() || self.sql_probe.is_some();
        asks || !self.probe_command.is_empty() || self.function_probes
    }

    pub(crate) fn rules(&self) -> Result<Rules> {
        let usual = if self.command.is_empty() { Rules::http() } else { Rules::command() };
        let codes = |name: &str, given: &[String], usual: Codes| match given.is_empty() {
            true => Ok(usual),
            false => parse_codes(given).with_context(|| name.to_owned()),
        };
        let rules = Rules {
            confirmed: codes("success", &self.success, usual.confirmed)?,
            rejected: codes("rejected", &self.rejected, usual.rejected)?,
            retry: codes("retry", &self.retry, usual.retry)?,
            in_progress: codes("in_progress", &self.in_progress, usual.in_progress)?,
            not_found: codes("not_found", &self.not_found, usual.not_found)?,
            confirmed_when: self.success_when.as_ref().map(When::test).transpose().context("success_when")?,
            rejected_when: self.rejected_when.as_ref().map(When::test).transpose().context("rejected_when")?,
        };
        // Only what the configuration itself says can contradict itself: HTTP's usual meanings give way.
        let given = [
            ("success", &self.success, &rules.confirmed),
            ("rejected", &self.rejected, &rules.rejected),
            ("retry", &self.retry, &rules.retry),
            ("in_progress", &self.in_progress, &rules.in_progress),
        ];
        let given: Vec<_> = given.into_iter().filter(|(_, given, _)| !given.is_empty()).collect();
        for code in 0..=999 {
            let names: Vec<_> =
                given.iter().filter(|(_, _, codes)| codes.contains(code)).map(|(name, ..)| *name).collect();
            if names.len() > 1 {
                bail!("{code} is declared under {}: it can mean only one thing", names.join(" and "));
            }
        }
        Ok(rules)
    }

    pub(crate) fn limits(&self) -> Result<Limits> {
        if let Some(rate) = self.rate_per_second
            && !(rate > 0.0 && rate.is_finite())
        {
            bail!("rate_per_second is a number above 0");
        }
        if self.sql_connections == 0 {
            bail!("sql_connections is at least 1");
        }
        if self.concurrency == 0 || self.batch_max == 0 || self.batch_max > 10_000 {
            bail!("concurrency is at least 1, and batch_max from 1 to 10000");
        }
        let lease = time("lease", &self.lease)?;
        if lease < Duration::from_secs(1) {
            bail!("lease is at least 1s: the store has to be asked several times before it ends");
        }
        let calls_max = if self.sql_function.is_some() { self.sql_connections } else { usize::MAX };
        Ok(Limits {
            // Who waits for a connection waits in the engine, which looks again whether a call may still go out.
            concurrency: self.concurrency.min(calls_max),
            rate: self.rate_per_second,
            batch_max: self.batch_max,
            lease,
            breaker_failures: self.breaker_failures,
            breaker_pause: time("breaker_pause", &self.breaker_pause)?,
            breaker_pause_max: time("breaker_pause_max", &self.breaker_pause_max)?,
        })
    }
}

impl When {
    fn test(&self) -> Result<BodyTest> {
        if !self.pointer.is_empty() && !self.pointer.starts_with('/') {
            bail!("pointer {:?} is no JSON pointer (RFC 6901): it starts with /", self.pointer);
        }
        if self.one_of.is_empty() {
            bail!("one_of is empty: no answer would do");
        }
        Ok(BodyTest { pointer: self.pointer.clone(), one_of: self.one_of.clone() })
    }
}

fn parse_codes(given: &[String]) -> Result<Codes> {
    let code =
        |text: &String| Codes::parse(text).with_context(|| format!("{text:?} is no code such as 402, 200-204 or 5xx"));
    Ok(Codes(given.iter().map(code).collect::<Result<_>>()?))
}

pub(crate) fn time(name: &str, text: &str) -> Result<Duration> {
    span(text).with_context(|| name.to_owned())
}
