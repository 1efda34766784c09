//! Connections to AWS: credentials and region from wherever AWS programs get them, bounded waits, few repeats.

use std::time::Duration;

use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::meta::region::RegionProviderChain;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region};
use aws_sdk_sqs::config::Credentials;
use caudal_core::error::BrokerError;

use super::address::Address;

const CONNECT_MAX: Duration = Duration::from_secs(2);
/// One try of one request, beyond what a long poll waits.
const TRY_MAX: Duration = Duration::from_secs(5);
/// A request with its repeats, beyond one try: nothing hangs for longer.
const REPEATS_MAX: Duration = Duration::from_secs(5);
const TRIES_MAX: u32 = 3;
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Emulators derive an account from a key, and take any.
const EMULATOR_KEY: &str = "test";
const EMULATOR_REGION: &str = "us-east-1";

#[derive(Debug, Clone)]
pub(crate) struct Aws {
    pub(crate) sns: aws_sdk_sns::Client,
    pub(crate) sqs: aws_sdk_sqs::Client,
    pub(crate) region: String,
    /// Where both are, if not where AWS has them: from `broker.url`, or from what the environment says for AWS programs.
    pub(crate) endpoint: Option<String>,
}

impl Aws {
    /// Asks nobody but the environment (and, for a region that nothing names, the machine's metadata service).
    pub(crate) async fn new(address: &Address) -> Result<Self, BrokerError> {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_MAX)
            .operation_attempt_timeout(address.wait + TRY_MAX)
            .operation_timeout(address.wait + TRY_MAX + REPEATS_MAX)
            .build();
        let retries = RetryConfig::standard()
            .with_max_attempts(TRIES_MAX)
            .with_initial_backoff(PAUSE_FIRST)
            .with_max_backoff(PAUSE_MAX);
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts).retry_config(retries);
        if let Ok(name) = AppName::new("caudal") {
            loader = loader.app_name(name);
        }
        if let Some(region) = &address.region {
            loader = loader.region(Region::new(region.clone()));
        } else if address.is_plain_http() {
            let environment = EnvironmentVariableRegionProvider::new();
            loader = loader.region(RegionProviderChain::first_try(environment).or_else(Region::new(EMULATOR_REGION)));
        }
        if address.is_plain_http() {
            let any = Credentials::new(EMULATOR_KEY, EMULATOR_KEY, None, None, "emulator");
            let environment = EnvironmentVariableCredentialsProvider::new();
            loader = loader.credentials_provider(
                CredentialsProviderChain::first_try("environment", environment).or_else("emulator", any),
            );
        }
        if let Some(endpoint) = &address.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        let config = loader.load().await;
        let Some(region) = config.region().map(ToString::to_string) else {
            return Err(BrokerError::Setup(
                "no AWS region is named: write it in broker.url (sqs://eu-west-1) or set AWS_REGION".to_owned(),
            ));
        };
        let endpoint = config.endpoint_url().map(str::to_owned);
        Ok(Self { sns: aws_sdk_sns::Client::new(&config), sqs: aws_sdk_sqs::Client::new(&config), region, endpoint })
    }
}
