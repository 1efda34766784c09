//! What topics and subscriptions are called in SNS and SQS, and the ARNs and URLs they are known by there.

use std::fmt;

use caudal_core::topic::TopicName;
use uuid::Uuid;

/// Characters of a queue's name, the shorter of the two limits.
const NAME_MAX: usize = 80;
const FIFO: &str = ".fifo";
const DEAD: &str = "-dlq";

/// The names of a topic and its queues, where the operator gave none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    base: String,
    fifo: bool,
}

impl Names {
    /// A topic called `….fifo` is a FIFO one; `all_fifo` makes every topic one.
    pub(crate) fn of(topic: &TopicName, all_fifo: bool) -> Self {
        let name = topic.as_str();
        let (stem, fifo) = match name.strip_suffix(FIFO).filter(|stem| !stem.is_empty() && !all_fifo) {
            Some(stem) => (stem, true),
            None => (name, all_fifo),
        };
        Self { base: format!("caudal-{}", escaped(stem, b"_-")), fifo }
    }

    pub(crate) fn with_fifo(self, fifo: bool) -> Self {
        Self { fifo, ..self }
    }

    pub(crate) fn topic(&self) -> String {
        fit(&self.base, "", self.fifo)
    }

    /// A subscription's part never holds a dash, so that no two pairs of topic and subscription share a queue.
    pub(crate) fn queue(&self, subscription: &str) -> String {
        let part = match escaped(subscription, b"_") {
            // `caudal-a-dlq` would also be the place for what queue `caudal-a` gave up.
            part if part == "dlq" => "X64lq".to_owned(),
            part => part,
        };
        fit(&format!("{}-{part}", self.base), "", self.fifo)
    }
}

/// The queue that takes what another gave up.
pub(crate) fn dead_letter_queue(queue: &str) -> String {
    match queue.strip_suffix(FIFO) {
        Some(stem) => fit(stem, DEAD, true),
        None => fit(queue, DEAD, false),
    }
}

pub(crate) fn is_fifo(name_or_arn_or_url: &str) -> bool {
    name_or_arn_or_url.ends_with(FIFO)
}

/// SNS and SQS allow letters, digits, `-` and `_`. Our names have no capital letters, so a capital `X` and two digits can stand
/// for any other byte without making two names equal.
fn escaped(name: &str, keep: &[u8]) -> String {
    name.bytes().fold(String::with_capacity(name.len()), |mut out, b| {
        match b.is_ascii_lowercase() || b.is_ascii_digit() || keep.contains(&b) {
            true => out.push(char::from(b)),
            false => out.push_str(&format!("X{b:02X}")),
        }
        out
    })
}

/// Cuts a name that is too long, and tells it from others with the same beginning.
fn fit(stem: &str, end: &str, fifo: bool) -> String {
    let end = format!("{end}{}", if fifo { FIFO } else { "" });
    if stem.len() + end.len() <= NAME_MAX {
        return format!("{stem}{end}");
    }
    let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, stem.as_bytes()).simple().to_string();
    let room = NAME_MAX - end.len() - 17;
    let cut: String = stem.chars().take(room).collect();
    format!("{cut}-{}{end}", &digest[..16])
}

/// `arn:<partition>:<service>:<region>:<account>:<name>`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arn {
    pub(crate) partition: String,
    pub(crate) service: String,
    pub(crate) region: String,
    pub(crate) account: String,
    pub(crate) name: String,
}

impl Arn {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(6, ':').map(str::to_owned);
        let mut next = || parts.next().filter(|part| !part.is_empty());
        let arn = next()? == "arn";
        let (partition, service, region, account, name) = (next()?, next()?, next()?, next()?, next()?);
        arn.then_some(Self { partition, service, region, account, name })
    }

    /// Another thing of the same account and region.
    pub(crate) fn sibling(&self, service: &str, name: &str) -> Self {
        Self { service: service.to_owned(), name: name.to_owned(), ..self.clone() }
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, service, region, account, name } = self;
        write!(f, "arn:{partition}:{service}:{region}:{account}:{name}")
    }
}

/// A queue's name, from its URL.
pub(crate) fn last(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or_default()
}

/// A queue as an operator may call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum QueueRef {
    Url(String),
    /// Its name, and the account when that is another's.
    Name(String, Option<String>),
}

impl QueueRef {
    pub(crate) fn parse(text: &str) -> Self {
        if text.starts_with("http://") || text.starts_with("https://") {
            return Self::Url(text.to_owned());
        }
        match Arn::parse(text) {
            Some(arn) => Self::Name(arn.name, Some(arn.account)),
            None => Self::Name(text.to_owned(), None),
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Url(url) => last(url),
            Self::Name(name, _) => name,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn names(topic: &str, all_fifo: bool) -> Names {
        Names::of(&TopicName::parse(topic).unwrap(), all_fifo)
    }

    #[test]
    fn plain_and_fifo() {
        let flights = names("flights", false);
        assert_eq!(
            (flights.topic().as_str(), flights.queue("store").as_str()),
            ("caudal-flights", "caudal-flights-store")
        );
        let payments = names("payments.fifo", false);
        assert_eq!(payments.topic(), "caudal-payments.fifo");
        assert_eq!(payments.queue("store"), "caudal-payments-store.fifo");
        assert_eq!(dead_letter_queue(&payments.queue("store")), "caudal-payments-store-dlq.fifo");
        assert_eq!(names("flights", true).queue("store"), "caudal-flights-store.fifo");
    }

    #[test]
    fn no_two_share_a_name() {
        let topics = ["a", "a-b", "a.b", "a_b", "a-b-c", "a-b.c", "a.fifo", "aX2Eb".to_lowercase().leak()];
        let subscriptions = ["b", "b-c", "b_c", "b.c", "c", "dlq", "B", "store", "store-dlq"];
        let mut seen = HashSet::new();
        for topic in topics {
            for subscription in subscriptions {
                let queue = names(topic, false).queue(subscription);
                assert!(seen.insert(dead_letter_queue(&queue)), "{queue}");
                assert!(seen.insert(queue.clone()), "{queue}");
                assert!(
                    queue.trim_end_matches(FIFO).bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                );
            }
        }
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        let long = "a".repeat(63);
        let (one, other) = (names(&long, true).queue("store-and-more"), names(&long, true).queue("store-and-mere"));
        assert_ne!(one, other);
        for name in [&one, &other, &dead_letter_queue(&one)] {
            assert!(name.len() <= NAME_MAX && name.ends_with(FIFO), "{name}");
        }
        assert_ne!(dead_letter_queue(&one), dead_letter_queue(&other));
    }

    #[test]
    fn arns_and_urls() {
        let arn = Arn::parse("arn:aws:sns:us-east-1:123456789012:caudal-flights").unwrap();
        assert_eq!(arn.to_string(), "arn:aws:sns:us-east-1:123456789012:caudal-flights");
        assert_eq!(arn.sibling("sqs", "q").to_string(), "arn:aws:sqs:us-east-1:123456789012:q");
        assert_eq!(Arn::parse("arn:aws:sns:us-east-1"), None);
        assert_eq!(QueueRef::parse("https://sqs.us-east-1.amazonaws.com/1/q").name(), "q");
        let queue = QueueRef::parse("arn:aws:sqs:us-east-1:1:q");
        assert_eq!(queue, QueueRef::Name("q".to_owned(), Some("1".to_owned())));
    }
}
