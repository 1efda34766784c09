//! What the URL says, as the client library's settings.
//!
//! ```text
//! kafka://[user[:password]@]host[:port][,host[:port]…][/][?option=value&…]
//! ```
//!
//! Options are librdkafka's own names (`security.protocol`, `sasl.mechanisms`, `ssl.ca.location`, `session.timeout.ms`, …).
//! Those that Caudal's promises rest on are not open to change.

use caudal_core::error::BrokerError;
use percent_encoding::percent_decode_str;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

const PORT: &str = "9092";

/// Bytes of one record on its way: a little more than the largest that Caudal accepts, with its headers.
pub(super) const RECORD_BYTES_MAX: usize = 5 * 1024 * 1024;

/// Milliseconds until a publish that the brokers do not confirm has failed.
pub(super) const CONFIRM_WITHIN_MS: u64 = 5_000;

/// Topics are made by a request that says how many partitions they have. Where that is not permitted but brokers make topics
/// by themselves (`auto.create.topics.enable`), this option leaves it to them.
const AUTO_CREATE: &str = "allow.auto.create.topics";

const COMMON: &[(&str, &str)] = &[
    ("client.id", "caudal"),
    ("reconnect.backoff.ms", "100"),
    ("reconnect.backoff.max.ms", "1000"),
    ("socket.connection.setup.timeout.ms", "5000"),
    ("socket.keepalive.enable", "true"),
    (AUTO_CREATE, "false"),
];

/// OpenSSL is built in and knows no system's certificates by itself: the library looks where systems keep them.
const TLS: &[(&str, &str)] = if cfg!(feature = "kafka-tls") { &[("ssl.ca.location", "probe")] } else { &[] };

const PRODUCER: &[(&str, &str)] = &[
    ("linger.ms", "1"),
    ("compression.type", "lz4"),
    ("message.max.bytes", "5242880"),
    ("message.timeout.ms", "5000"),
    ("queue.buffering.max.messages", "100000"),
    ("queue.buffering.max.kbytes", "65536"),
];

const PRODUCER_FIXED: &[(&str, &str)] = &[
    ("enable.idempotence", "true"),
    ("acks", "all"),
    // Where Kafka's own clients put a key.
    ("partitioner", "murmur2_random"),
];

/// What a consumer holds in memory beside our own buffer is bounded by `queued.max.messages.kbytes` and one answer in flight
/// from each broker.
const CONSUMER: &[(&str, &str)] = &[
    // A worker that was killed gives its partitions back after this long.
    ("session.timeout.ms", "10000"),
    ("heartbeat.interval.ms", "3000"),
    ("queued.min.messages", "20000"),
    ("queued.max.messages.kbytes", "8192"),
    ("fetch.max.bytes", "4194304"),
    // Its default of a second starves a reader that is faster than the queue above is deep.
    ("fetch.queue.backoff.ms", "10"),
    ("check.crcs", "true"),
];

const CONSUMER_FIXED: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "false"),
    // Never to some other offset without our knowing it: what is missing is counted.
    ("auto.offset.reset", "error"),
    ("isolation.level", "read_committed"),
    // Partitions that stay with their member are read on while others move.
    ("partition.assignment.strategy", "cooperative-sticky"),
];

/// Set by us from elsewhere.
const NOT_OPTIONS: &[&str] = &["bootstrap.servers", "metadata.broker.list", "group.id"];

pub(super) struct Settings {
    /// `host:port` of each broker that was named.
    pub(super) servers: String,
    pub(super) user: Option<String>,
    common: Vec<(String, String)>,
}

impl Settings {
    pub(super) fn parse(url: &str) -> Result<Self, BrokerError> {
        let rest = url.strip_prefix("kafka://").ok_or_else(|| setup("a Kafka URL begins with kafka://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (credentials, hosts) = match rest.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, rest),
        };
        let servers: Vec<String> =
            hosts.trim_end_matches('/').split(',').filter(|host| !host.is_empty()).map(with_port).collect();
        if servers.is_empty() {
            return Err(setup("a Kafka URL names at least one broker: kafka://host:9092"));
        }
        let mut common: Vec<(String, String)> = COMMON.iter().chain(TLS).map(owned).collect();
        let user = credentials.map(|credentials| sign_in(credentials, &mut common)).transpose()?;
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            common.push((allowed(decoded(name)?)?, decoded(value)?));
        }
        let settings = Self { servers: servers.join(","), user, common };
        settings.check_security()?;
        Ok(settings)
    }

    pub(super) fn producer(&self) -> ClientConfig {
        self.client(PRODUCER, PRODUCER_FIXED)
    }

    pub(super) fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.client(CONSUMER, CONSUMER_FIXED);
        config.set("group.id", group);
        config
    }

    /// A consumer without a group, for questions and searches.
    pub(super) fn reader(&self) -> ClientConfig {
        self.client(CONSUMER, CONSUMER_FIXED)
    }

    pub(super) fn leaves_topics_to_the_brokers(&self) -> bool {
        self.option(AUTO_CREATE).is_some_and(|value| value == "true")
    }

    fn option(&self, name: &str) -> Option<&str> {
        self.common.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    fn client(&self, defaults: &[(&str, &str)], fixed: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Warning).set("bootstrap.servers", &self.servers);
        let asked = self.common.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in defaults.iter().copied().chain(asked).chain(fixed.iter().copied()) {
            config.set(name, value);
        }
        config
    }

    fn check_security(&self) -> Result<(), BrokerError> {
        let protocol = self.option("security.protocol").unwrap_or_default().to_ascii_lowercase();
        let mechanism = self.option("sasl.mechanisms").or_else(|| self.option("sasl.mechanism")).unwrap_or_default();
        if mechanism.eq_ignore_ascii_case("GSSAPI") {
            return Err(setup("Kerberos (sasl.mechanisms=GSSAPI) is not built in; use PLAIN or SCRAM-SHA-512"));
        }
        let needs = match mechanism.to_ascii_uppercase().as_str() {
            _ if protocol.ends_with("ssl") => "TLS",
            "" | "PLAIN" => return Ok(()),
            _ => "this SASL mechanism",
        };
        match cfg!(feature = "kafka-tls") {
            true => Ok(()),
            false => Err(setup(&format!(
                "{needs} to Kafka is not in this build: build with the feature kafka-tls, or on a network that you trust add \
                 ?security.protocol=sasl_plaintext&sasl.mechanisms=PLAIN to the URL"
            ))),
        }
    }
}

/// A password never crosses a network in the clear unless the URL says so.
fn sign_in(credentials: &str, common: &mut Vec<(String, String)>) -> Result<String, BrokerError> {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let user = decoded(user)?;
    common.extend([("security.protocol", "sasl_ssl"), ("sasl.mechanisms", "PLAIN")].iter().map(owned));
    common.push(("sasl.username".to_owned(), user.clone()));
    common.push(("sasl.password".to_owned(), decoded(password)?));
    Ok(user)
}

fn allowed(name: String) -> Result<String, BrokerError> {
    let fixed = PRODUCER_FIXED.iter().chain(CONSUMER_FIXED).map(|(fixed, _)| *fixed);
    if fixed.chain(NOT_OPTIONS.iter().copied()).any(|fixed| fixed == name) {
        return Err(setup(&format!("the option {name} of the Kafka URL is not open to change: Caudal sets it itself")));
    }
    // Both spellings are the library's; one of them only, or the default would stand beside the choice.
    Ok(match name.as_str() {
        "sasl.mechanism" => "sasl.mechanisms".to_owned(),
        _ => name,
    })
}

fn with_port(host: &str) -> String {
    let after_name = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
    match after_name.contains(':') {
        true => host.to_owned(),
        false => format!("{host}:{PORT}"),
    }
}

fn decoded(text: &str) -> Result<String, BrokerError> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(|text| text.into_owned()).map_err(|_| setup("the Kafka URL holds bytes that are not UTF-8"))
}

fn owned(pair: &(&str, &str)) -> (String, String) {
    (pair.0.to_owned(), pair.1.to_owned())
}

fn setup(text: &str) -> BrokerError {
    BrokerError::Setup(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{BrokerError, CONFIRM_WITHIN_MS, RECORD_BYTES_MAX, Settings};

    fn refusal(url: &str) -> String {
        match Settings::parse(url) {
            Err(BrokerError::Setup(text)) => text,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("{url} was taken"),
        }
    }

    #[test]
    fn hosts_get_the_default_port() {
        let settings = Settings::parse("kafka://one,two:9093,[::1],[::1]:9094/?linger.ms=7").expect("a good URL");
        assert_eq!(settings.servers, "one:9092,two:9093,[::1]:9092,[::1]:9094");
        assert_eq!(settings.producer().get("linger.ms"), Some("7"));
        assert_eq!(settings.user, None);
    }

    #[test]
    fn the_limits_are_those_of_the_settings() {
        let producer = Settings::parse("kafka://one").expect("a good URL").producer();
        assert_eq!(producer.get("message.max.bytes"), Some(RECORD_BYTES_MAX.to_string().as_str()));
        assert_eq!(producer.get("message.timeout.ms"), Some(CONFIRM_WITHIN_MS.to_string().as_str()));
    }

    #[test]
    fn credentials_are_decoded_and_never_sent_in_the_clear_unasked() {
        let asked = "kafka://us%40er:p%3Aw%2F@one?security.protocol=sasl_plaintext";
        let settings = Settings::parse(asked).expect("a good URL");
        assert_eq!(settings.user.as_deref(), Some("us@er"));
        assert_eq!(settings.consumer("g").get("sasl.password"), Some("p:w/"));
        assert_eq!(settings.consumer("g").get("group.id"), Some("g"));
        match cfg!(feature = "kafka-tls") {
            true => assert_eq!(
                Settings::parse("kafka://user:secret@one").expect("a good URL").option("security.protocol"),
                Some("sasl_ssl")
            ),
            false => {
                let text = refusal("kafka://user:secret@one");
                assert!(text.contains("kafka-tls") && !text.contains("secret"), "{text}");
            }
        }
    }

    #[test]
    fn what_the_promises_rest_on_cannot_be_changed() {
        for option in ["acks=1", "enable.idempotence=false", "group.id=x", "auto.offset.reset=latest"] {
            assert!(refusal(&format!("kafka://one?{option}")).contains("not open to change"));
        }
        assert!(refusal("kafka://").contains("at least one broker"));
        assert!(refusal("kafka://one?sasl.mechanism=GSSAPI").contains("Kerberos"));
    }
}
