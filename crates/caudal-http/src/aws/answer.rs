//! Answers in the three forms that clients of AWS read: SNS's XML, SQS's XML, SQS's JSON.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::fault::Fault;
use super::send::Sent;

/// Which protocol a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    SnsForm,
    SqsForm,
    SqsJson,
}

/// What an action came to.
#[derive(Debug)]
pub(crate) enum Answer {
    Sent(Sent),
    Batch(Vec<Result<Sent, (String, Fault)>>),
    TopicArn(String),
    TopicArns(Vec<String>),
    QueueUrl(String),
    QueueUrls(Vec<String>),
    Attributes(Vec<(&'static str, String)>),
}

impl Dialect {
    fn namespace(self) -> &'static str {
        match self {
            Self::SnsForm => "http://sns.amazonaws.com/doc/2010-03-31/",
            Self::SqsForm | Self::SqsJson => "http://queue.amazonaws.com/doc/2012-11-05/",
        }
    }

    fn code(self, fault: &Fault) -> &'static str {
        if self == Self::SnsForm { fault.kind.sns } else { fault.kind.sqs }
    }

    pub(crate) fn answer(self, action: &str, answer: &Answer, request_id: &str) -> Response {
        if self == Self::SqsJson {
            return self.respond(StatusCode::OK, as_json(answer).to_string(), request_id);
        }
        let mut xml = Xml::default();
        let (response, result) = (format!("{action}Response"), format!("{action}Result"));
        xml.open(&format!("{response} xmlns=\"{}\"", self.namespace()));
        xml.open(&result);
        self.write(&mut xml, answer);
        xml.close(&result);
        xml.open("ResponseMetadata");
        xml.leaf("RequestId", request_id);
        xml.close("ResponseMetadata");
        xml.close(&response);
        self.respond(StatusCode::OK, xml.0, request_id)
    }

    pub(crate) fn refuse(self, fault: &Fault, request_id: &str) -> Response {
        let (code, sender) = (self.code(fault), if fault.kind.is_sender() { "Sender" } else { "Receiver" });
        // SQS has no 404.
        let status = if fault.kind.status == 404 && self != Self::SnsForm { 400 } else { fault.kind.status };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        if self == Self::SqsJson {
            let body = json!({ "__type": format!("com.amazonaws.sqs#{}", fault.kind.json), "message": fault.message });
            let mut response = self.respond(status, body.to_string(), request_id);
            if let Ok(value) = HeaderValue::from_str(&format!("{code};{sender}")) {
                response.headers_mut().insert("x-amzn-query-error", value);
            }
            return response;
        }
        let mut xml = Xml::default();
        xml.open(&format!("ErrorResponse xmlns=\"{}\"", self.namespace()));
        xml.open("Error");
        xml.leaf("Type", sender);
        xml.leaf("Code", code);
        xml.leaf("Message", &fault.message);
        xml.close("Error");
        xml.leaf("RequestId", request_id);
        xml.close("ErrorResponse");
        self.respond(status, xml.0, request_id)
    }

    fn respond(self, status: StatusCode, body: String, request_id: &str) -> Response {
        let media = if self == Self::SqsJson { "application/x-amz-json-1.0" } else { "text/xml" };
        let mut response = (status, [(header::CONTENT_TYPE, media)], body).into_response();
        if let Ok(value) = HeaderValue::from_str(request_id) {
            response.headers_mut().insert("x-amzn-requestid", value);
        }
        response
    }

    fn write(self, xml: &mut Xml, answer: &Answer) {
        match answer {
            Answer::Sent(sent) => self.write_sent(xml, sent),
            Answer::Batch(outcomes) if self == Self::SnsForm => {
                xml.open("Successful");
                outcomes.iter().flatten().for_each(|sent| self.write_entry(xml, "member", sent));
                xml.close("Successful");
                xml.open("Failed");
                outcomes.iter().filter_map(|o| o.as_ref().err()).for_each(|bad| self.write_failed(xml, "member", bad));
                xml.close("Failed");
            }
            Answer::Batch(outcomes) => outcomes.iter().for_each(|outcome| match outcome {
                Ok(sent) => self.write_entry(xml, "SendMessageBatchResultEntry", sent),
                Err(failed) => self.write_failed(xml, "BatchResultErrorEntry", failed),
            }),
            Answer::TopicArn(arn) => xml.leaf("TopicArn", arn),
            Answer::TopicArns(arns) => {
                xml.open("Topics");
                for arn in arns {
                    xml.open("member");
                    xml.leaf("TopicArn", arn);
                    xml.close("member");
                }
                xml.close("Topics");
            }
            Answer::QueueUrl(url) => xml.leaf("QueueUrl", url),
            Answer::QueueUrls(urls) => urls.iter().for_each(|url| xml.leaf("QueueUrl", url)),
            Answer::Attributes(attributes) => {
                for (name, value) in attributes {
                    xml.open("Attribute");
                    xml.leaf("Name", name);
                    xml.leaf("Value", value);
                    xml.close("Attribute");
                }
            }
        }
    }

    fn write_entry(self, xml: &mut Xml, element: &str, sent: &Sent) {
        xml.open(element);
        xml.leaf("Id", &sent.id);
        self.write_sent(xml, sent);
        xml.close(element);
    }

    fn write_sent(self, xml: &mut Xml, sent: &Sent) {
        for (name, value) in fields(sent) {
            // SNS tells no digests.
            if self != Self::SnsForm || !name.starts_with("MD5") {
                xml.leaf(name, &value);
            }
        }
    }

    fn write_failed(self, xml: &mut Xml, element: &str, (id, fault): &(String, Fault)) {
        xml.open(element);
        xml.leaf("Id", id);
        xml.leaf("Code", self.code(fault));
        xml.leaf("Message", &fault.message);
        xml.leaf("SenderFault", if fault.kind.is_sender() { "true" } else { "false" });
        xml.close(element);
    }
}

fn fields(sent: &Sent) -> impl Iterator<Item = (&'static str, String)> {
    let fields = [
        ("MessageId", Some(sent.message_id.to_string())),
        ("MD5OfMessageBody", Some(sent.body_md5.clone())),
        ("MD5OfMessageAttributes", sent.attributes_md5.clone()),
        ("MD5OfMessageSystemAttributes", sent.system_md5.clone()),
        ("SequenceNumber", sent.sequence.clone()),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name, value?)))
}

fn as_json(answer: &Answer) -> Value {
    let of = |sent: &Sent| -> Map<String, Value> {
        fields(sent).map(|(name, value)| (name.to_owned(), value.into())).collect()
    };
    match answer {
        Answer::Sent(sent) => Value::Object(of(sent)),
        Answer::Batch(outcomes) => {
            let sent = outcomes.iter().flatten().map(|sent| {
                let mut entry = of(sent);
                entry.insert("Id".to_owned(), sent.id.as_str().into());
                Value::Object(entry)
            });
            let failed = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).map(|(id, fault)| {
                json!({ "Id": id, "Code": fault.kind.sqs, "Message": fault.message, "SenderFault": fault.kind.is_sender() })
            });
            json!({ "Successful": sent.collect::<Vec<_>>(), "Failed": failed.collect::<Vec<_>>() })
        }
        Answer::QueueUrl(url) => json!({ "QueueUrl": url }),
        Answer::QueueUrls(urls) => json!({ "QueueUrls": urls }),
        Answer::TopicArn(arn) => json!({ "TopicArn": arn }),
        Answer::TopicArns(arns) => json!({ "Topics": arns }),
        Answer::Attributes(attributes) => {
            let attributes: Map<_, _> = attributes.iter().map(|(n, v)| ((*n).to_owned(), v.as_str().into())).collect();
            json!({ "Attributes": attributes })
        }
    }
}

/// XML as it is written.
#[derive(Debug)]
struct Xml(String);

impl Default for Xml {
    fn default() -> Self {
        Self("<?xml version=\"1.0\"?>".to_owned())
    }
}

impl Xml {
    fn open(&mut self, element: &str) {
        self.0.extend(["<", element, ">"]);
    }

    fn close(&mut self, element: &str) {
        self.0.extend(["</", element, ">"]);
    }

    fn leaf(&mut self, element: &str, text: &str) {
        self.open(element);
        for c in text.chars() {
            match c {
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '&' => self.0.push_str("&amp;"),
                '"' => self.0.push_str("&quot;"),
                // XML 1.0 has no way to write these.
                c if c.is_control() && !matches!(c, '\t' | '\n') => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        self.close(element);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_end_its_element() {
        let mut xml = Xml(String::new());
        xml.leaf("Id", "a</Id>&\"\0\r\n");
        assert_eq!(xml.0, "<Id>a&lt;/Id&gt;&amp;&quot;\u{fffd}\u{fffd}\n</Id>");
    }
}
