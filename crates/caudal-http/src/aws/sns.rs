//! SNS's actions, in its query protocol.

use super::answer::Answer;
use super::entry::{Attribute, Entry};
use super::fault::{Answered, Fault, INVALID, MISSING, NO_SUCH};
use super::form::Form;
use super::send::{Listed, Target};
use super::{ACCOUNT, Call};

pub(crate) const ACTIONS: [&str; 4] = ["Publish", "PublishBatch", "CreateTopic", "ListTopics"];

pub(crate) async fn act(call: &Call<'_>, action: &str, mut form: Form) -> Answered<Answer> {
    match action {
        "Publish" => {
            let target = target(call, &mut form)?;
            let entry = entry(&mut form, String::new())?;
            Ok(Answer::Sent(target.send(call.app, entry, call.invocation).await?))
        }
        "PublishBatch" => {
            let target = target(call, &mut form)?;
            let entries = form.list("PublishBatchRequestEntries.member").into_iter().map(listed).collect();
            Ok(Answer::Batch(target.send_all(call.app, entries, call.invocation).await?))
        }
        "CreateTopic" => {
            let name = form.required("Name")?;
            let target = Target::find(call.app, "sns", &name).ok_or_else(|| call.not_configured("Name", &name))?;
            Ok(Answer::TopicArn(arn(call, &target.name)))
        }
        "ListTopics" => {
            let arns = call.app.engine.topics.names().map(|name| arn(call, name));
            Ok(Answer::TopicArns(arns.collect()))
        }
        other => Err(call.unsupported(other)),
    }
}

fn arn(call: &Call<'_>, name: &str) -> String {
    format!("arn:aws:sns:{}:{ACCOUNT}:{name}", call.region)
}

/// The last part of the ARN is the topic's name; whose account and which region it says does not matter here.
fn target(call: &Call<'_>, form: &mut Form) -> Answered<Target> {
    if form.get("PhoneNumber").is_some() {
        return Err(Fault::new(&INVALID, "Invalid parameter: PhoneNumber Reason: Caudal sends no text messages"));
    }
    let arn = form.take("TopicArn").or_else(|| form.take("TargetArn"));
    let arn =
        arn.ok_or_else(|| Fault::new(&MISSING, "Invalid parameter: TopicArn Reason: no value for required parameter"))?;
    let name = arn.rsplit(':').next().unwrap_or_default();
    Target::find(call.app, "sns", name).ok_or_else(|| Fault::new(&NO_SUCH, "Topic does not exist"))
}

fn listed(mut form: Form) -> Listed {
    let id = form.take("Id").unwrap_or_default();
    let entry = entry(&mut form, id.clone());
    (id, entry)
}

fn entry(form: &mut Form, id: String) -> Answered<Entry> {
    let text = form.required("Message")?;
    let structured = form.take("MessageStructure").is_some_and(|structure| structure == "json");
    Ok(Entry {
        id,
        text: if structured { own_part(&text)? } else { text },
        subject: form.take("Subject"),
        attributes: Attribute::list(form, "MessageAttributes.entry")?,
        system: Vec::new(),
        group: form.take("MessageGroupId"),
        deduplication: form.take("MessageDeduplicationId"),
    })
}

/// With `MessageStructure=json` a message has one text for each kind of subscriber. What stores it is most like a queue.
fn own_part(text: &str) -> Answered<String> {
    let bad = |why: &'static str| Fault::new(&INVALID, why);
    let parts: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)
        .map_err(|_| bad("Invalid parameter: Message Structure - JSON message body failed to parse"))?;
    if !parts.get("default").is_some_and(serde_json::Value::is_string) {
        return Err(bad("Invalid parameter: Message Structure - No default entry in JSON message body"));
    }
    let part = parts.get("sqs").or_else(|| parts.get("default")).and_then(serde_json::Value::as_str);
    part.map(str::to_owned).ok_or_else(|| bad("Invalid parameter: Message Structure - the sqs entry is not a string"))
}
