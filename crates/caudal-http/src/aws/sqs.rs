//! SQS's actions, in its JSON protocol and in the query protocol before it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::answer::Answer;
use super::entry::{Attribute, Entry, MESSAGE_BYTES_MAX};
use super::fault::{Answered, Fault, MALFORMED, MISSING, NO_SUCH};
use super::form::Form;
use super::send::{Listed, Target};
use super::{ACCOUNT, Call};

pub(crate) const ACTIONS: [&str; 6] =
    ["SendMessage", "SendMessageBatch", "GetQueueUrl", "CreateQueue", "ListQueues", "GetQueueAttributes"];

/// An action's parameters, whichever way they came.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Parameters {
    queue_url: Option<String>,
    queue_name: Option<String>,
    queue_name_prefix: Option<String>,
    attribute_names: Vec<String>,
    entries: Vec<Message>,
    #[serde(flatten)]
    message: Message,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Message {
    id: Option<String>,
    message_body: Option<String>,
    message_attributes: BTreeMap<String, Typed>,
    message_system_attributes: BTreeMap<String, Typed>,
    message_group_id: Option<String>,
    message_deduplication_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Typed {
    data_type: Option<String>,
    string_value: Option<String>,
    binary_value: Option<String>,
}

pub(crate) async fn act_json(call: &Call<'_>, action: &str, body: &[u8]) -> Answered<Answer> {
    if !ACTIONS.contains(&action) {
        return Err(call.unsupported(action));
    }
    let mut parameters: Parameters = parse(body)?;
    let message = std::mem::take(&mut parameters.message);
    let entries = std::mem::take(&mut parameters.entries).into_iter().map(|message| {
        let id = message.id.clone().unwrap_or_default();
        (id, message.entry())
    });
    let entries = entries.collect();
    act(call, action, parameters, || message.entry(), entries).await
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Answered<T> {
    serde_json::from_slice(body)
        .map_err(|error| Fault::new(&MALFORMED, format!("the body is not what the action takes: {error}")))
}

pub(crate) async fn act_form(call: &Call<'_>, action: &str, mut form: Form) -> Answered<Answer> {
    if !ACTIONS.contains(&action) {
        return Err(call.unsupported(action));
    }
    let parameters = Parameters {
        queue_url: form.take("QueueUrl"),
        queue_name: form.take("QueueName"),
        queue_name_prefix: form.take("QueueNamePrefix"),
        attribute_names: form.list("AttributeName").into_iter().filter_map(|mut item| item.take("")).collect(),
        ..Parameters::default()
    };
    let entries = form.list("SendMessageBatchRequestEntry").into_iter().map(|mut item| {
        let id = item.take("Id").unwrap_or_default();
        (id.clone(), form_entry(item, id))
    });
    let entries = entries.collect();
    act(call, action, parameters, || form_entry(form, String::new()), entries).await
}

async fn act(
    call: &Call<'_>,
    action: &str,
    parameters: Parameters,
    entry: impl FnOnce() -> Answered<Entry>,
    entries: Vec<Listed>,
) -> Answered<Answer> {
    match action {
        "SendMessage" => {
            let target = target(call, &parameters)?;
            Ok(Answer::Sent(target.send(call.app, entry()?, call.invocation).await?))
        }
        "SendMessageBatch" => {
            let target = target(call, &parameters)?;
            Ok(Answer::Batch(target.send_all(call.app, entries, call.invocation).await?))
        }
        "GetQueueUrl" | "CreateQueue" => {
            let name = parameters.queue_name.ok_or_else(|| missing("QueueName"))?;
            match (Target::find(call.app, "sqs", &name), action) {
                (Some(target), _) => Ok(Answer::QueueUrl(url(call, &target.name))),
                (None, "CreateQueue") => Err(call.not_configured("QueueName", &name)),
                (None, _) => Err(no_queue()),
            }
        }
        "ListQueues" => {
            let prefix = parameters.queue_name_prefix.unwrap_or_default();
            let names = call.app.engine.topics.names().filter(|name| name.starts_with(&prefix));
            Ok(Answer::QueueUrls(names.map(|name| url(call, name)).collect()))
        }
        _ => {
            let target = target(call, &parameters)?;
            Ok(Answer::Attributes(attributes(call, &target, &parameters.attribute_names).await?))
        }
    }
}

/// The last part of the URL is the queue's name; SDKs of old send the URL as the path instead.
fn target(call: &Call<'_>, parameters: &Parameters) -> Answered<Target> {
    let url = parameters.queue_url.as_deref().or(call.path_queue).ok_or_else(|| missing("QueueUrl"))?;
    let name = url.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    Target::find(call.app, "sqs", name).ok_or_else(no_queue)
}

fn url(call: &Call<'_>, name: &str) -> String {
    format!("{}/{ACCOUNT}/{name}", call.base_url)
}

/// What clients ask of a queue before they use it. Nothing is delayed or hidden here, and what waits is what is not stored yet.
async fn attributes(call: &Call<'_>, target: &Target, wanted: &[String]) -> Answered<Vec<(&'static str, String)>> {
    let is_wanted = |name: &str| wanted.iter().any(|w| w == name || w == "All");
    let waiting = match is_wanted("ApproximateNumberOfMessages") {
        true => call.app.engine.reconcile(&target.topic, false).await?.backlog.unwrap_or_default(),
        false => 0,
    };
    let fifo = |value: bool| target.is_fifo().then(|| value.to_string());
    let known = [
        ("QueueArn", Some(format!("arn:aws:sqs:{}:{ACCOUNT}:{}", call.region, target.name))),
        ("ApproximateNumberOfMessages", Some(waiting.to_string())),
        ("ApproximateNumberOfMessagesNotVisible", Some("0".to_owned())),
        ("ApproximateNumberOfMessagesDelayed", Some("0".to_owned())),
        ("MaximumMessageSize", Some(MESSAGE_BYTES_MAX.to_string())),
        ("DelaySeconds", Some("0".to_owned())),
        ("FifoQueue", fifo(true)),
        ("ContentBasedDeduplication", fifo(target.has_key())),
    ];
    let known = known.into_iter().filter(|(name, _)| is_wanted(name));
    Ok(known.filter_map(|(name, value)| Some((name, value?))).collect())
}

impl Message {
    fn entry(self) -> Answered<Entry> {
        Ok(Entry {
            id: self.id.unwrap_or_default(),
            text: self.message_body.ok_or_else(|| missing("MessageBody"))?,
            subject: None,
            attributes: typed(self.message_attributes)?,
            system: typed(self.message_system_attributes)?,
            group: self.message_group_id,
            deduplication: self.message_deduplication_id,
        })
    }
}

fn typed(attributes: BTreeMap<String, Typed>) -> Answered<Vec<Attribute>> {
    let read =
        |(name, typed): (String, Typed)| Attribute::new(name, typed.data_type, typed.string_value, typed.binary_value);
    attributes.into_iter().map(read).collect()
}

fn form_entry(mut form: Form, id: String) -> Answered<Entry> {
    Ok(Entry {
        id,
        text: form.required("MessageBody")?,
        subject: None,
        attributes: Attribute::list(&mut form, "MessageAttribute")?,
        system: Attribute::list(&mut form, "MessageSystemAttribute")?,
        group: form.take("MessageGroupId"),
        deduplication: form.take("MessageDeduplicationId"),
    })
}

fn missing(name: &str) -> Fault {
    Fault::new(&MISSING, format!("The request must contain the parameter {name}."))
}

fn no_queue() -> Fault {
    Fault::new(&NO_SUCH, "The specified queue does not exist.")
}
