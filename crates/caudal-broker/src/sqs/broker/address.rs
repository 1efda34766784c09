//! What `broker.url` says for SNS and SQS.

use std::ops::RangeInclusive;
use std::time::Duration;

use caudal_core::error::BrokerError;
use percent_encoding::percent_decode_str;

/// How long a message that was handed over stays hidden before it comes again, unless it is settled or kept hidden. Also how
/// long it takes, at worst, until another process gets what a killed one held.
const VISIBILITY_DEFAULT: Duration = Duration::from_secs(20);
/// The service's own longest, and the shortest that could still be extended in time.
const VISIBILITY_SECONDS: RangeInclusive<u64> = 2..=43_200;
/// How long a poll of an empty queue waits. AWS would wait 20 s; but what a killed process asked for is still handed to it, and
/// stays hidden, so this adds to the time until another gets it. Closing waits as long.
const WAIT_DEFAULT: Duration = Duration::from_secs(5);
const WAIT_SECONDS: RangeInclusive<u64> = 1..=20;

const FORM: &str = "sqs: or sqs://<region>, then as needed ?endpoint=<URL>&region=<region>&fifo=true\
                    &visibility_seconds=<2 to 43200>&wait_seconds=<1 to 20>";

/// A URL of the form `sqs://<region>?…`, taken apart. It holds no secret: credentials come from the environment, a profile
/// or a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Left out: what the environment or the profile says.
    pub(crate) region: Option<String>,
    /// Both services at one place: an emulator, or a proxy before AWS.
    pub(crate) endpoint: Option<String>,
    /// Topics and queues that we name are FIFO ones.
    pub(crate) fifo: bool,
    pub(crate) visibility: Duration,
    pub(crate) wait: Duration,
}

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Self, BrokerError> {
        let rest = url.strip_prefix("sqs:").ok_or_else(|| wrong("it does not begin with sqs:"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let place = place.strip_prefix("//").unwrap_or(place).trim_end_matches('/');
        if !place.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Err(wrong("what follows sqs:// is the name of a region, such as eu-west-1"));
        }
        let mut address = Self {
            region: (!place.is_empty()).then(|| place.to_owned()),
            endpoint: None,
            fifo: false,
            visibility: VISIBILITY_DEFAULT,
            wait: WAIT_DEFAULT,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            address.set(name, percent_decode_str(value).decode_utf8_lossy().into_owned())?;
        }
        Ok(address)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), BrokerError> {
        match name {
            "region" => self.region = Some(value),
            "endpoint" if value.starts_with("http://") || value.starts_with("https://") => {
                self.endpoint = Some(value.trim_end_matches('/').to_owned());
            }
            "endpoint" => return Err(wrong("endpoint must begin with http:// or https://")),
            "fifo" if value == "true" || value == "false" => self.fifo = value == "true",
            "fifo" => return Err(wrong("fifo is true or false")),
            "visibility_seconds" => self.visibility = seconds(name, &value, VISIBILITY_SECONDS)?,
            "wait_seconds" => self.wait = seconds(name, &value, WAIT_SECONDS)?,
            other => return Err(wrong(&format!("it has no option {other:?}"))),
        }
        Ok(())
    }

    /// Whether AWS cannot be meant: it is never spoken to in the clear.
    pub(crate) fn is_plain_http(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"))
    }
}

fn seconds(name: &str, value: &str, allowed: RangeInclusive<u64>) -> Result<Duration, BrokerError> {
    let seconds = value.parse().ok().filter(|seconds| allowed.contains(seconds)).map(Duration::from_secs);
    seconds.ok_or_else(|| wrong(&format!("{name} is a number from {} to {}", allowed.start(), allowed.end())))
}

/// Whether what answers at a URL is AWS itself, as far as its name tells.
pub(crate) fn is_aws(url: &str) -> bool {
    let host = url.split("://").nth(1).unwrap_or_default();
    let host = host.split(['/', ':']).next().unwrap_or_default();
    [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"].iter().any(|domain| host.ends_with(domain))
}

fn wrong(why: &str) -> BrokerError {
    BrokerError::Setup(format!("broker.url is not one for SNS and SQS: {why}; the form is {FORM}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() -> Result<(), BrokerError> {
        let bare = Address::parse("sqs:")?;
        assert_eq!((bare.region.as_deref(), bare.endpoint.as_deref(), bare.fifo), (None, None, false));
        assert!(!bare.is_plain_http());
        assert_eq!(Address::parse("sqs://eu-west-1")?.region.as_deref(), Some("eu-west-1"));
        let local = Address::parse(
            "sqs:?endpoint=http://127.0.0.1:5000/&region=us-east-1&fifo=true&visibility_seconds=3&wait_seconds=1",
        )?;
        assert_eq!(local.endpoint.as_deref(), Some("http://127.0.0.1:5000"));
        assert_eq!(
            (local.region.as_deref(), local.fifo, local.visibility.as_secs() + local.wait.as_secs()),
            (Some("us-east-1"), true, 4)
        );
        assert!(local.is_plain_http());
        Ok(())
    }

    #[test]
    fn aws_is_known_by_its_name() {
        assert!(is_aws("https://sqs.eu-west-1.amazonaws.com/1/q") && is_aws("https://sqs.cn-north-1.amazonaws.com.cn"));
        assert!(is_aws("https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com"));
        assert!(!is_aws("https://amazonaws.com.example.net") && !is_aws("http://127.0.0.1:5000/1/q") && !is_aws(""));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for url in [
            "kafka:",
            "sqs://Not A Region",
            "sqs:?endpoint=localhost",
            "sqs:?fifo=maybe",
            "sqs:?wait_seconds=0",
            "sqs:?what=1",
        ] {
            let said = Address::parse(url).map_or_else(|error| error.to_string(), |_| String::new());
            assert!(said.contains("sqs://<region>"), "{url}: {said}");
        }
    }
}
