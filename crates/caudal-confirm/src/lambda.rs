//! A function on AWS Lambda, invoked and waited for (`RequestResponse`).
//!
//! It gets `{"key", "attempt", "topic", "record"}`, and `"probe": true` when it is only asked what became of the transaction. It says
//! `{"status": "confirmed" | "rejected" | "retry" | "in_progress" | "not_found" | "doubt", "detail", "retry_after_seconds"}`.
//!
//! A request goes out once: the SDK's own repeats are off. What Lambda says to have refused before the function ran is known not to have
//! been done; everything else without a status that can be read is a doubt, a function that failed above all.

mod refusal;

use std::error::Error;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::meta::region::RegionProviderChain;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_lambda::Client;
use aws_sdk_lambda::config::Credentials;
use aws_sdk_lambda::error::SdkError;
use aws_sdk_lambda::operation::invoke::{InvokeError, InvokeOutput};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;
use caudal_core::confirm::answer::{Answer, Verdict};
use caudal_core::confirm::ports::{Call, Confirmer};
use hyper_util::client::legacy;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use refusal::Refusal;

/// What Lambda takes with a call that is waited for: 6 MB.
const EVENT_BYTES_MAX: usize = 6 * 1024 * 1024;
/// Emulators take any key.
const EMULATOR_KEY: &str = "test";
const EMULATOR_REGION: &str = "us-east-1";

/// A function as configured.
#[derive(Debug, Clone)]
pub struct LambdaConfig {
    /// Its name or ARN, with an alias or version where that is wanted: `confirm:live`.
    pub function: String,
    /// `None`: as AWS's programs find it.
    pub region: Option<String>,
    /// Where Lambda is, if not where AWS has it. With `http://` credentials are made up unless the environment has some.
    pub endpoint: Option<String>,
    /// Whether the function answers probes.
    pub probes: bool,
    /// For one invocation; above the function's own limit, or an answer is given up that would have come.
    pub timeout: Duration,
    pub connect_timeout: Duration,
}

impl LambdaConfig {
    pub fn new(function: &str) -> Self {
        Self {
            function: function.to_owned(),
            region: None,
            endpoint: None,
            probes: false,
            timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// A function behind the port of confirmers.
pub struct LambdaConfirmer {
    client: Client,
    config: LambdaConfig,
    /// What the log has been told to be wrong, until the function runs again.
    complaint: Mutex<Option<String>>,
}

impl fmt::Debug for LambdaConfirmer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LambdaConfirmer({})", self.config.function)
    }
}

impl LambdaConfirmer {
    /// Asks nobody but the environment (and, for a region that nothing names, the machine's metadata service).
    ///
    /// # Errors
    /// A sentence that says what is wrong with the configuration.
    pub async fn open(config: &LambdaConfig) -> Result<Self, String> {
        if config.function.trim().is_empty() {
            return Err("no function is named".to_owned());
        }
        if config.timeout.is_zero() || config.connect_timeout.is_zero() {
            return Err("a call needs time: timeout and connect_timeout are above 0".to_owned());
        }
        let sdk = sdk_config(config).await;
        if sdk.region().is_none() {
            return Err("no AWS region is named: set function_region or AWS_REGION".to_owned());
        }
        Ok(Self { client: Client::new(&sdk), config: config.clone(), complaint: Mutex::default() })
    }

    async fn invoke(&self, call: &Call<'_>, probe: bool) -> Answer {
        let event = match event(call, probe) {
            Ok(event) => event,
            Err(why) => return Answer::Blocked(why),
        };
        let request = self.client.invoke().function_name(&self.config.function);
        let request = request.invocation_type(InvocationType::RequestResponse).payload(Blob::new(event));
        match request.send().await {
            Ok(output) => {
                *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = None;
                read(&output, probe)
            }
            Err(error) => self.failed(&error),
        }
    }

    /// What is known when Lambda did not hand over an answer.
    fn failed(&self, error: &SdkError<InvokeError>) -> Answer {
        match error {
            SdkError::ServiceError(service) => {
                let (refusal, detail) = refusal::read(service.err(), service.raw());
                match refusal {
                    Refusal::Throttled(retry_after) => {
                        Answer::Said { verdict: Verdict::NotDone { retry_after }, detail }
                    }
                    Refusal::Setup => {
                        self.complain(&detail);
                        Answer::NotSent(detail)
                    }
                    Refusal::NotReady => Answer::NotSent(detail),
                    Refusal::Event => Answer::Blocked(detail),
                    Refusal::Unknown => Answer::Unknown(detail),
                }
            }
            SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) if has_no_credentials(error) => {
                let detail = words(error);
                self.complain(&detail);
                Answer::NotSent(detail)
            }
            SdkError::ConstructionFailure(_) => Answer::NotSent(words(error)),
            SdkError::DispatchFailure(_) if was_never_connected(error) => Answer::NotSent(words(error)),
            _ => Answer::Unknown(words(error)),
        }
    }

    /// Says once what somebody must put right.
    fn complain(&self, detail: &str) {
        let mut complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        if complaint.as_deref() != Some(detail) {
            let function = &self.config.function;
            tracing::error!(
                function,
                detail,
                "the function cannot be invoked until somebody changes how it is set up; its transactions are tried again"
            );
            *complaint = Some(detail.to_owned());
        }
    }
}

async fn sdk_config(config: &LambdaConfig) -> SdkConfig {
    let timeouts = TimeoutConfig::builder().connect_timeout(config.connect_timeout).operation_timeout(config.timeout);
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .timeout_config(timeouts.build())
        // The SDK would repeat what may have been done.
        .retry_config(RetryConfig::disabled())
        // A function that thinks is no stalled stream; the time limit is above.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Ok(name) = AppName::new("caudal") {
        loader = loader.app_name(name);
    }
    let emulated = config.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    } else if emulated {
        let environment = EnvironmentVariableRegionProvider::new();
        loader = loader.region(RegionProviderChain::first_try(environment).or_else(Region::new(EMULATOR_REGION)));
    }
    if emulated {
        let any = Credentials::new(EMULATOR_KEY, EMULATOR_KEY, None, None, "emulator");
        let environment = EnvironmentVariableCredentialsProvider::new();
        loader = loader.credentials_provider(
            CredentialsProviderChain::first_try("environment", environment).or_else("emulator", any),
        );
    }
    if let Some(endpoint) = &config.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    loader.load().await
}

/// What the function gets. The record goes in as it is, number for number.
fn event(call: &Call<'_>, probe: bool) -> Result<String, String> {
    let record: &RawValue = serde_json::from_slice(&call.item.record)
        .map_err(|_| "the record is no JSON, so a function cannot be given it".to_owned())?;
    let key = call.key;
    let topic = json!(call.topic.as_str());
    let attempt = call.attempt;
    let asks = if probe { ",\"probe\":true" } else { "" };
    let event = format!("{{\"key\":\"{key}\",\"attempt\":{attempt},\"topic\":{topic},\"record\":{record}{asks}}}");
    if event.len() > EVENT_BYTES_MAX {
        return Err(format!("the event is {} bytes, and Lambda takes {EVENT_BYTES_MAX}", event.len()));
    }
    Ok(event)
}

/// What the function said.
fn read(output: &InvokeOutput, probe: bool) -> Answer {
    let payload = output.payload().map(AsRef::<[u8]>::as_ref).unwrap_or_default();
    let said: Value = serde_json::from_slice(payload).unwrap_or_default();
    if let Some(kind) = output.function_error() {
        let text = |name: &str| said[name].as_str().unwrap_or_default();
        // It may have done its work and failed after it.
        return Answer::Unknown(format!(
            "the function failed ({kind}): {}: {}",
            text("errorType"),
            text("errorMessage")
        ));
    }
    let status = said["status"].as_str().unwrap_or_default();
    let Some(verdict) = Verdict::of_word(status, said["retry_after_seconds"].as_f64(), probe) else {
        return Answer::Unknown("the function's answer has no status that is known".to_owned());
    };
    Answer::Said { verdict, detail: said["detail"].as_str().unwrap_or_default().to_owned() }
}

/// Whether there was no connection that the request could have gone out by.
fn was_never_connected(error: &dyn Error) -> bool {
    causes(error).any(|cause| cause.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect))
}

fn has_no_credentials(error: &dyn Error) -> bool {
    causes(error).any(|cause| cause.is::<CredentialsError>())
}

fn causes(error: &dyn Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// The SDK's own words are the same for most failures: its causes say more.
fn words(error: &SdkError<InvokeError>) -> String {
    let mut words = error.to_string();
    for cause in causes(error) {
        let cause = cause.to_string();
        if !words.ends_with(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

#[async_trait]
impl Confirmer for LambdaConfirmer {
    async fn call(&self, call: Call<'_>) -> Answer {
        self.invoke(&call, false).await
    }

    async fn probe(&self, call: Call<'_>) -> Answer {
        match self.config.probes {
            true => self.invoke(&call, true).await,
            false => Answer::Blocked("this function is not said to answer probes".to_owned()),
        }
    }

    fn target(&self) -> &str {
        &self.config.function
    }
}
