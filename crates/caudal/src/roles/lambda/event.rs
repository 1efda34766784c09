//! What Lambda hands over: which of the shapes that we know it has, read once.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// An event that we know what to do with.
pub(super) enum Event<'a> {
    Http(Box<HttpEvent<'a>>),
    /// Messages of SQS, one record each.
    Queue(Vec<&'a RawValue>),
    /// A step of a state machine.
    Step(Box<Step<'a>>),
}

/// What a state machine, a schedule or a person asks for (docs/step-functions.md).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step<'a> {
    pub(super) op: Op,
    /// Left out: all topics that are confirmed.
    #[serde(borrow)]
    pub(super) topic: Text<'a>,
    #[serde(borrow)]
    pub(super) records: Option<Vec<&'a RawValue>>,
    /// Functions at the same time for one topic, at most.
    pub(super) parallel_max: Option<u64>,
    /// What is due only after so many seconds is left to another execution.
    pub(super) wait_seconds_max: Option<u64>,
    /// Rounds that the execution has made.
    pub(super) round: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Op {
    Enqueue,
    Plan,
    Confirm,
    Reconcile,
}

/// Who sends an HTTP request on, and so what the event and its answer look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Front {
    /// API Gateway, REST API.
    RestApi,
    /// API Gateway, HTTP API, with payload format 1.0: the REST API's shape with other habits.
    HttpApi1,
    /// API Gateway, HTTP API, with payload format 2.0; and function URLs, which took it over.
    HttpApi2,
    /// Application Load Balancer.
    LoadBalancer { multi_value: bool },
}

pub(super) struct HttpEvent<'a> {
    pub(super) front: Front,
    pub(super) fields: Fields<'a>,
}

pub(super) type Text<'a> = Option<Cow<'a, str>>;
pub(super) type Values<'a> = Option<BTreeMap<Cow<'a, str>, Text<'a>>>;
pub(super) type MultiValues<'a> = Option<BTreeMap<Cow<'a, str>, Option<Vec<Cow<'a, str>>>>>;

/// What any of the shapes may hold. API Gateway's console sends `null` where others send nothing.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Fields<'a> {
    #[serde(rename = "Records", borrow)]
    records: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    op: Text<'a>,
    #[serde(borrow)]
    version: Text<'a>,
    #[serde(borrow)]
    pub(super) http_method: Text<'a>,
    #[serde(borrow)]
    pub(super) path: Text<'a>,
    /// The REST API's route, as a template.
    #[serde(borrow)]
    pub(super) resource: Text<'a>,
    #[serde(borrow)]
    pub(super) raw_path: Text<'a>,
    /// Method and template of an HTTP API's route.
    #[serde(borrow)]
    pub(super) route_key: Text<'a>,
    #[serde(borrow)]
    pub(super) path_parameters: Values<'a>,
    #[serde(borrow)]
    pub(super) raw_query_string: Text<'a>,
    #[serde(borrow)]
    pub(super) query_string_parameters: Values<'a>,
    #[serde(borrow)]
    pub(super) multi_value_query_string_parameters: MultiValues<'a>,
    #[serde(borrow)]
    pub(super) headers: Values<'a>,
    #[serde(borrow)]
    pub(super) multi_value_headers: MultiValues<'a>,
    #[serde(borrow)]
    pub(super) cookies: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow)]
    pub(super) body: Text<'a>,
    pub(super) is_base64_encoded: Option<bool>,
    #[serde(borrow)]
    pub(super) request_context: Option<RequestContext<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RequestContext<'a> {
    #[serde(borrow)]
    pub(super) stage: Text<'a>,
    #[serde(borrow)]
    pub(super) domain_name: Text<'a>,
    #[serde(borrow)]
    pub(super) http: Option<HttpContext<'a>>,
    #[serde(borrow)]
    elb: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct HttpContext<'a> {
    #[serde(borrow)]
    pub(super) method: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Source<'a> {
    #[serde(borrow)]
    event_source: Text<'a>,
}

impl<'a> Event<'a> {
    /// # Errors
    /// One sentence that says what this is not and what there is.
    pub(super) fn read(json: &'a str) -> Result<Self, String> {
        let fields: Fields<'a> = serde_json::from_str(json).map_err(|_| unknown(json))?;
        if fields.op.is_some() {
            return serde_json::from_str(json)
                .map(Self::Step)
                .map_err(|error| format!("a step is not as it must be: {error}"));
        }
        if let Some(records) = fields.records {
            let from_queue = |record: &&RawValue| {
                let source =
                    serde_json::from_str::<Source<'_>>(record.get()).ok().and_then(|record| record.event_source);
                source.as_deref() == Some("aws:sqs")
            };
            return match records.iter().all(from_queue) {
                true => Ok(Self::Queue(records)),
                false => Err(unknown(json)),
            };
        }
        let front = fields.front().ok_or_else(|| unknown(json))?;
        Ok(Self::Http(Box::new(HttpEvent { front, fields })))
    }
}

impl Fields<'_> {
    fn front(&self) -> Option<Front> {
        let context = self.request_context.as_ref()?;
        if context.elb.is_some() {
            self.path.as_ref().and(self.http_method.as_ref())?;
            return Some(Front::LoadBalancer { multi_value: self.multi_value_headers.is_some() });
        }
        match self.version.as_deref() {
            Some("2.0") => {
                self.raw_path.as_ref().and(context.http.as_ref()?.method.as_ref())?;
                Some(Front::HttpApi2)
            }
            version => {
                self.path.as_ref().and(self.http_method.as_ref())?;
                Some(if version == Some("1.0") { Front::HttpApi1 } else { Front::RestApi })
            }
        }
    }
}

const KEYS_SHOWN_MAX: usize = 20;

/// Names the keys that are there, never their values.
fn unknown(json: &str) -> String {
    let keys = serde_json::from_str::<BTreeMap<String, &RawValue>>(json).map(|event| {
        let keys: Vec<_> =
            event.into_keys().take(KEYS_SHOWN_MAX).map(|key| key.chars().take(40).collect::<String>()).collect();
        format!("has the keys [{}]", keys.join(", "))
    });
    format!(
        "this event is of no shape that Caudal knows: it takes HTTP requests from API Gateway (a REST API, or an HTTP API with \
         payload format 1.0 or 2.0), a function URL or an Application Load Balancer, records of SQS (eventSource aws:sqs), and steps \
         of a state machine (with a key op); this one {}",
        keys.as_deref().unwrap_or("is not a JSON object")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front(json: &str) -> Result<Front, String> {
        match Event::read(json)? {
            Event::Http(event) => Ok(event.front),
            Event::Queue(_) => Err("a queue".into()),
            Event::Step(_) => Err("a step".into()),
        }
    }

    #[test]
    fn each_shape_is_told_from_the_others() {
        let rest = r#"{"resource":"/{proxy+}","path":"/ping","httpMethod":"GET","headers":null,"requestContext":{"stage":"prod"}}"#;
        assert_eq!(front(rest), Ok(Front::RestApi));
        let one = r#"{"version":"1.0","path":"/ping","httpMethod":"GET","requestContext":{"stage":"$default"}}"#;
        assert_eq!(front(one), Ok(Front::HttpApi1));
        let two = r#"{"version":"2.0","rawPath":"/ping","requestContext":{"http":{"method":"GET"}}}"#;
        assert_eq!(front(two), Ok(Front::HttpApi2));
        let alb =
            r#"{"path":"/ping","httpMethod":"GET","requestContext":{"elb":{}},"multiValueHeaders":{"host":["h"]}}"#;
        assert_eq!(front(alb), Ok(Front::LoadBalancer { multi_value: true }));
    }

    #[test]
    fn other_events_are_named_by_their_keys_and_not_by_their_values() {
        let strange = [
            r#"{"Records":[{"eventSource":"aws:s3","s3":{"secret":"s3cret"}}]}"#,
            r#"{"version":"0","detail-type":"Scheduled Event","detail":{"password":"s3cret"},"source":"aws.events"}"#,
            r#"{"version":"2.0","requestContext":{"routeKey":"$connect"}}"#,
            r#"{"path":7}"#,
            r#""warm""#,
            "[]",
            "null",
        ];
        for event in strange {
            let error = front(event).unwrap_err();
            assert!(error.contains("SQS") && error.contains("function URL"), "{event}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        assert!(front(strange[1]).unwrap_err().contains("[detail, detail-type, source, version]"));
        assert!(front("[]").unwrap_err().contains("not a JSON object"));
    }

    #[test]
    fn steps_are_read_strictly() {
        let step = |json: &str| match Event::read(json) {
            Ok(Event::Step(step)) => Ok((step.op, step.topic.map(Cow::into_owned))),
            Ok(_) => Err("no step".to_owned()),
            Err(error) => Err(error),
        };
        assert_eq!(step(r#"{"op":"plan"}"#), Ok((Op::Plan, None)));
        assert_eq!(step(r#"{"op":"confirm","topic":"pay\u006dents"}"#), Ok((Op::Confirm, Some("payments".to_owned()))));
        for wrong in
            [r#"{"op":"plan","topics":"payments"}"#, r#"{"op":"explode"}"#, r#"{"op":"plan","parallel_max":-1}"#]
        {
            assert!(step(wrong).is_err_and(|error| error.contains("a step is not as it must be")), "{wrong}");
        }
    }

    #[test]
    fn no_records_are_a_queue_with_nothing_in_it() {
        assert!(matches!(Event::read(r#"{"Records":[]}"#), Ok(Event::Queue(records)) if records.is_empty()));
    }
}
