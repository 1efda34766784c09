//! Which topic the messages of a queue belong to, for who is handed them together with the queue's ARN: an AWS Lambda function.

use caudal_core::topic::TopicName;

use super::names::{Arn, Names, QueueRef};

/// Whether a topic is consumed from this queue: the one that the operator named (by name, ARN or URL), or else the one that
/// follows from the topic and the subscription.
pub fn is_consumed_from(topic: &TopicName, consume_from: Option<&str>, subscription: &str, queue_arn: &str) -> bool {
    let Some(queue) = Arn::parse(queue_arn) else { return false };
    let Some(named) = consume_from else {
        return [false, true].iter().any(|all_fifo| Names::of(topic, *all_fifo).queue(subscription) == queue.name);
    };
    if named.starts_with("arn:") {
        return named == queue_arn;
    }
    match QueueRef::parse(named) {
        QueueRef::Url(url) => url.trim_end_matches('/').ends_with(&format!("/{}/{}", queue.account, queue.name)),
        QueueRef::Name(name, _) => name == queue.name,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn matches(topic: &str, consume_from: Option<&str>, queue: &str) -> bool {
        let arn = format!("arn:aws:sqs:eu-west-1:123456789012:{queue}");
        is_consumed_from(&TopicName::parse(topic).unwrap(), consume_from, "store", &arn)
    }

    #[test]
    fn by_the_topics_own_name() {
        assert!(matches("flights", None, "caudal-flights-store"));
        assert!(matches("flights", None, "caudal-flights-store.fifo"));
        assert!(matches("pay.fifo", None, "caudal-pay-store.fifo"));
        assert!(!matches("flights", None, "caudal-flights-other"));
        assert!(!matches("flights", None, "flights"));
        assert!(!is_consumed_from(&TopicName::parse("flights").unwrap(), None, "store", "caudal-flights-store"));
    }

    #[test]
    fn by_what_the_operator_calls_it() {
        assert!(matches("a", Some("q"), "q"));
        assert!(matches("a", Some("arn:aws:sqs:eu-west-1:123456789012:q"), "q"));
        assert!(matches("a", Some("https://sqs.eu-west-1.amazonaws.com/123456789012/q"), "q"));
        assert!(!matches("a", Some("arn:aws:sqs:eu-west-1:999999999999:q"), "q"));
        assert!(!matches("a", Some("https://sqs.eu-west-1.amazonaws.com/999999999999/q"), "q"));
        assert!(!matches("a", Some("q"), "caudal-a-store"));
    }
}
