//! The documents a queue carries: who may send to it, and where what is never settled goes.

use serde_json::{Value, json};

/// Hand-overs after which SQS itself puts a message aside. Far above `broker.deliveries_max`, so that what is poisonous becomes
/// a dead letter of Caudal's, with its reason, and SQS only catches what no worker ever settled. 1,000 is its largest.
const RECEIVES_MAX: u32 = 100;

/// Lets one SNS topic, and no other, send to the queue.
fn statement(queue_arn: &str, topic_arn: &str) -> Value {
    json!({
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic_arn}},
    })
}

/// The policy that a queue needs, with what it has kept; `None` when it lets the topic in already.
pub(crate) fn access(present: Option<&str>, queue_arn: &str, topic_arn: &str) -> Option<String> {
    let mut policy: Value = present
        .and_then(|text| serde_json::from_str(text).ok())
        .filter(Value::is_object)
        .unwrap_or_else(|| json!({"Version": "2012-10-17", "Statement": []}));
    let mut statements = match policy["Statement"].take() {
        Value::Array(statements) => statements,
        Value::Null => Vec::new(),
        one => vec![one],
    };
    if statements.iter().any(|statement| lets_in(statement, queue_arn, topic_arn)) {
        return None;
    }
    statements.push(statement(queue_arn, topic_arn));
    policy["Statement"] = Value::Array(statements);
    Some(policy.to_string())
}

/// An operator may have written it in any of IAM's ways, so the names anywhere in their places will do; one statement too many
/// does no harm.
fn lets_in(statement: &Value, queue_arn: &str, topic_arn: &str) -> bool {
    let names = |value: &Value, name: &str| value.to_string().contains(&format!("\"{name}\""));
    let resource = &statement["Resource"];
    statement["Effect"] == "Allow"
        && names(&statement["Condition"], topic_arn)
        && (names(resource, queue_arn) || names(resource, "*"))
}

pub(crate) fn redrive(dead_letter_arn: &str) -> String {
    json!({"deadLetterTargetArn": dead_letter_arn, "maxReceiveCount": RECEIVES_MAX}).to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const QUEUE: &str = "arn:aws:sqs:r:1:q";
    const TOPIC: &str = "arn:aws:sns:r:1:t";

    #[test]
    fn a_new_policy_names_the_topic() {
        let policy: Value = serde_json::from_str(&access(None, QUEUE, TOPIC).unwrap()).unwrap();
        let statement = &policy["Statement"][0];
        assert_eq!(statement["Condition"]["ArnEquals"]["aws:SourceArn"], TOPIC);
        assert_eq!((&statement["Action"], &statement["Resource"]), (&json!("sqs:SendMessage"), &json!(QUEUE)));
    }

    #[test]
    fn what_is_there_stays() {
        let theirs = json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "sqs:*"}}).to_string();
        let ours = access(Some(&theirs), QUEUE, TOPIC).unwrap();
        let policy: Value = serde_json::from_str(&ours).unwrap();
        assert_eq!(policy["Statement"].as_array().unwrap().len(), 2);
        assert_eq!(access(Some(&ours), QUEUE, TOPIC), None, "made once");
        assert!(access(Some(&ours), "arn:aws:sqs:r:1:other", TOPIC).is_some());
        let other = access(Some(&ours), QUEUE, "arn:aws:sns:r:1:tt").unwrap();
        assert_eq!(serde_json::from_str::<Value>(&other).unwrap()["Statement"].as_array().unwrap().len(), 3);
    }
}
