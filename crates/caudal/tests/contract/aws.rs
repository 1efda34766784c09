//! Publishing with the wire protocols of SNS and SQS. `tests/test_aws_clients.py` does the same with AWS's own clients.

use std::sync::Arc;

use caudal_testkit::api::Reply;
use serde_json::{Value, json};

use crate::{Context, SQLITE, server};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");

/// A call in the query protocol. `more` is percent-encoded already.
async fn query(cx: &Context, version: &str, more: &str) -> Reply {
    cx.api.post("/", &[FORM], format!("Version={version}&{more}")).await.unwrap()
}

async fn sns(cx: &Context, more: &str) -> Reply {
    query(cx, "2010-03-31", more).await
}

async fn sqs(cx: &Context, action: &str, body: Value) -> Reply {
    call(cx, action, body, &[]).await
}

async fn call(cx: &Context, action: &str, body: Value, more: &[(&str, &str)]) -> Reply {
    let target = format!("AmazonSQS.{action}");
    let headers = [&[("content-type", "application/x-amz-json-1.0"), ("x-amz-target", target.as_str())], more].concat();
    cx.api.post("/", &headers, body.to_string()).await.unwrap()
}

/// The text of the first element of that name.
fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    xml.split_once(&open).and_then(|(_, rest)| rest.split_once(&close)).map_or("", |(text, _)| text)
}

/// The `Code` of a refusal, in either form.
fn code(reply: &Reply) -> String {
    match reply.header("x-amzn-query-error").split_once(';') {
        Some((code, "Sender" | "Receiver")) => code.to_owned(),
        _ => element(&reply.text(), "Code").to_owned(),
    }
}

async fn row(cx: &Context, topic: &str, id: &str) -> Value {
    cx.until(id, "stored").await;
    cx.json(&format!("/rest/v1/{topic}?_id=eq.{id}")).await[0].clone()
}

pub(crate) async fn publish_by_sns(cx: Arc<Context>) {
    let body = "Action=Publish&TopicArn=arn%3Aaws%3Asns%3Aeu-west-1%3A123456789012%3Aqueue\
                &Message=%7B%22city%22%3A+%22Bogot%C3%A1%22%2C+%22n%22%3A+1.50%7D&Subject=Hello%2C+you\
                &MessageAttributes.entry.1.Name=kind&MessageAttributes.entry.1.Value.DataType=String\
                &MessageAttributes.entry.1.Value.StringValue=caf%C3%A9&MessageAttributes.entry.2.Name=raw\
                &MessageAttributes.entry.2.Value.DataType=Binary&MessageAttributes.entry.2.Value.BinaryValue=AAH%2F";
    let reply = sns(&cx, body).await;
    let text = reply.text();
    assert_eq!((reply.status, reply.header("content-type")), (200, "text/xml"), "{text}");
    assert!(
        text.contains("<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult><MessageId>")
    );
    assert_eq!(element(&text, "RequestId"), reply.header("x-amzn-requestid"));
    assert!(!text.contains("MD5") && !text.contains("SequenceNumber"), "{text}");
    let row = row(&cx, "queue", element(&text, "MessageId")).await;
    assert_eq!(row["payload"], json!({ "city": "Bogotá", "n": 1.5 }));
    assert_eq!((&row["_source"], &row["_key"]), (&json!("aws:sns"), &Value::Null));
    assert_eq!(row["_extra"]["$attributes"], json!({ "Subject": "Hello, you", "kind": "café", "raw": "AAH/" }));
    // One text for each kind of subscriber: the queue's, else everybody's.
    for (message, wanted) in [(r#"{"default":"1","sqs":"2","email":"x"}"#, 2), (r#"{"default":"3","email":"x"}"#, 3)] {
        let message = percent(message);
        let reply = sns(&cx, &format!("Action=Publish&TopicArn=x:queue&MessageStructure=json&Message={message}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(self::row(&cx, "queue", element(&reply.text(), "MessageId")).await["payload"], wanted);
    }
}

fn percent(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

pub(crate) async fn publish_by_sqs(cx: Arc<Context>) {
    let text = "\"This is a test message\"";
    let queue = "https://sqs.us-east-1.amazonaws.com/123456789012/queue";
    let attributes = json!({
        "test_attribute_name_1": { "StringValue": "test_attribute_value_1", "DataType": "String" },
        "Count": { "StringValue": "3", "DataType": "Number.int" },
    });
    let body = json!({ "QueueUrl": queue, "MessageBody": text, "MessageAttributes": attributes, "DelaySeconds": 0 });
    let reply = sqs(&cx, "SendMessage", body).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/x-amz-json-1.0"), "{}", reply.text());
    let sent = reply.json();
    // By md5sum, and by a few lines of Python that pack the attributes.
    assert_eq!(sent["MD5OfMessageBody"], "363a2e7b325e89df708f264b5c5f4a3c");
    assert_eq!(sent["MD5OfMessageAttributes"], "0b198bc0baad72de3f6d5e7d2dbf3bd6");
    let stored = row(&cx, "queue", sent["MessageId"].as_str().unwrap()).await;
    assert_eq!((&stored["payload"], &stored["_source"]), (&json!("This is a test message"), &json!("aws:sqs")));
    let kept = json!({ "Count": "3", "test_attribute_name_1": "test_attribute_value_1" });
    assert_eq!(stored["_extra"]["$attributes"], kept);
    // The same in the protocol before it, with the queue in the path as SDKs of old send it.
    let body = "Action=SendMessage&Version=2012-11-05&MessageBody=%22This+is+a+test+message%22\
                &MessageAttribute.1.Name=test_attribute_name_1&MessageAttribute.1.Value.DataType=String\
                &MessageAttribute.1.Value.StringValue=test_attribute_value_1&MessageAttribute.2.Name=Count\
                &MessageAttribute.2.Value.DataType=Number.int&MessageAttribute.2.Value.StringValue=3";
    let reply = cx.api.post("/000000000000/queue", &[FORM], body).await.unwrap();
    let text = reply.text();
    assert_eq!(reply.status, 200, "{text}");
    assert!(text.contains("<SendMessageResponse xmlns=\"http://queue.amazonaws.com/doc/2012-11-05/\">"), "{text}");
    assert_eq!(element(&text, "MD5OfMessageBody"), "363a2e7b325e89df708f264b5c5f4a3c");
    assert_eq!(sent["MD5OfMessageAttributes"], element(&text, "MD5OfMessageAttributes"));
    let stored = row(&cx, "queue", element(&text, "MessageId")).await;
    assert_eq!(stored["_extra"]["$attributes"], kept);
}

pub(crate) async fn batches(cx: Arc<Context>) {
    let mut entries: Vec<Value> =
        (0..10).map(|n| json!({ "Id": format!("id-{n}"), "MessageBody": json!({ "n": n }).to_string() })).collect();
    entries[3]["MessageBody"] = "{".into();
    entries[5]["MessageBody"] = r#"{"n": "five"}"#.into();
    entries[7]["MessageAttributes"] = json!({ "a": { "DataType": "Text", "StringValue": "x" } });
    entries[8].as_object_mut().unwrap().remove("MessageBody");
    let reply = sqs(&cx, "SendMessageBatch", json!({ "QueueUrl": "http://x/1/typed-queue", "Entries": entries })).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let outcome = reply.json();
    let ids = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|entry| entry["Id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&outcome["Successful"]), ["id-0", "id-1", "id-2", "id-4", "id-6", "id-9"]);
    assert_eq!(ids(&outcome["Failed"]), ["id-3", "id-5", "id-7", "id-8"]);
    let codes: Vec<_> =
        outcome["Failed"].as_array().unwrap().iter().map(|f| (f["Code"].clone(), f["SenderFault"].clone())).collect();
    let wanted = ["InvalidMessageContents", "InvalidParameterValue", "InvalidParameterValue", "MissingParameter"];
    assert_eq!(codes, wanted.map(|code| (json!(code), json!(true))));
    for sent in outcome["Successful"].as_array().unwrap() {
        let n = sent["Id"].as_str().unwrap().strip_prefix("id-").unwrap().parse::<u64>().unwrap();
        assert_eq!(row(&cx, "typed-queue", sent["MessageId"].as_str().unwrap()).await["n"], n);
    }
    assert_eq!(cx.count("typed-queue", "").await, 6, "what failed had no effect");
    assert_eq!(cx.count("_dead_letters", "topic=eq.typed-queue").await, 0);
    // In XML, where success and failure are listed apart by SNS and side by side by SQS.
    let body = "Action=PublishBatch&TopicArn=x:typed-queue&PublishBatchRequestEntries.member.1.Id=a\
                &PublishBatchRequestEntries.member.1.Message=%7B%22n%22%3A11%7D&PublishBatchRequestEntries.member.2.Id=b\
                &PublishBatchRequestEntries.member.2.Message=oops";
    let text = sns(&cx, body).await.text();
    let (good, bad) = (element(&text, "Successful"), element(&text, "Failed"));
    assert_eq!((element(good, "Id"), element(bad, "Id"), element(bad, "SenderFault")), ("a", "b", "true"), "{text}");
    assert_eq!(element(bad, "Code"), "InvalidParameter");
    row(&cx, "typed-queue", element(good, "MessageId")).await;
    let body = "Action=SendMessageBatch&QueueUrl=http%3A%2F%2Fx%2F1%2Ftyped-queue&SendMessageBatchRequestEntry.1.Id=a\
                &SendMessageBatchRequestEntry.1.MessageBody=%7B%22n%22%3A12%7D&SendMessageBatchRequestEntry.2.Id=b\
                &SendMessageBatchRequestEntry.2.MessageBody=oops";
    let text = query(&cx, "2012-11-05", body).await.text();
    assert_eq!(element(element(&text, "SendMessageBatchResultEntry"), "Id"), "a", "{text}");
    assert_eq!(element(element(&text, "BatchResultErrorEntry"), "Id"), "b", "{text}");
    row(&cx, "typed-queue", element(&text, "MessageId")).await;
}

pub(crate) async fn fifo(cx: Arc<Context>) {
    let queue = "http://localhost/000000000000/queue.fifo";
    let message = |more: Value| {
        let mut body = json!({ "QueueUrl": queue, "MessageBody": "{\"n\": 1}", "MessageGroupId": "g" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let first = sqs(&cx, "SendMessage", message(json!({ "MessageDeduplicationId": "d-1" }))).await.json();
    let again = sqs(&cx, "SendMessage", message(json!({ "MessageDeduplicationId": "d-1" }))).await.json();
    let second = sqs(&cx, "SendMessage", message(json!({ "MessageDeduplicationId": "d-2" }))).await.json();
    assert_eq!(first["MessageId"], again["MessageId"]);
    assert_ne!(first["MessageId"], second["MessageId"]);
    let sequence = |sent: &Value| sent["SequenceNumber"].as_str().unwrap().to_owned();
    assert_eq!(sequence(&first).len(), 20);
    assert!(sequence(&first) < sequence(&second));
    let row = row(&cx, "queue", first["MessageId"].as_str().unwrap()).await;
    assert_eq!(
        (&row["_key"], &row["_extra"]["$attributes"]["MessageGroupId"]),
        (&json!("sqs:queue.fifo:d-1"), &json!("g"))
    );
    // The same name at SNS is another place.
    let body = "Action=Publish&TopicArn=x:queue.fifo&Message=1&MessageGroupId=g&MessageDeduplicationId=d-1";
    let text = sns(&cx, body).await.text();
    assert_ne!(element(&text, "MessageId"), first["MessageId"].as_str().unwrap(), "{text}");
    assert_eq!(element(&text, "SequenceNumber").len(), 20);
    for (more, wanted) in [
        (json!({}), "InvalidParameterValue"),
        (json!({ "MessageGroupId": null, "MessageDeduplicationId": "d-3" }), "MissingParameter"),
        (json!({ "QueueUrl": "http://x/queue", "MessageDeduplicationId": "d-3" }), "InvalidParameterValue"),
        (json!({ "MessageDeduplicationId": "" }), "InvalidParameterValue"),
    ] {
        let reply = sqs(&cx, "SendMessage", message(more.clone())).await;
        assert_eq!((reply.status, code(&reply).as_str()), (400, wanted), "{more}: {}", reply.text());
    }
    // A topic that has its key in the message needs no name for it.
    let keyed =
        json!({ "QueueUrl": "http://x/1/keyed-queue.fifo", "MessageBody": "{\"n\": 5}", "MessageGroupId": "g" });
    let (one, two) = (sqs(&cx, "SendMessage", keyed.clone()).await.json(), sqs(&cx, "SendMessage", keyed).await.json());
    assert_eq!(one["MessageId"], two["MessageId"]);
}

/// SDKs repeat a call that they saw fail under the call's own name.
pub(crate) async fn repeated_by_the_sdk(cx: Arc<Context>) {
    let body = json!({ "QueueUrl": "http://x/1/queue", "MessageBody": "{\"n\": 1}" });
    let send = async |invocation: &str| {
        let headers = [("amz-sdk-invocation-id", invocation), ("amz-sdk-request", "attempt=2; max=4")];
        call(&cx, "SendMessage", body.clone(), &headers).await.json()["MessageId"].as_str().unwrap().to_owned()
    };
    let first = send("3f7b1c1e-0001").await;
    assert_eq!(send("3f7b1c1e-0001").await, first);
    assert_ne!(send("3f7b1c1e-0002").await, first, "another call, although it says the same");
    row(&cx, "queue", &first).await;
    assert_eq!(cx.count("queue", &format!("_id=eq.{first}&_key=eq.aws-sdk:3f7b1c1e-0001")).await, 1);
    let entries = json!([{ "Id": "a", "MessageBody": "1" }, { "Id": "b", "MessageBody": "1" }]);
    let batch = json!({ "QueueUrl": "http://x/1/queue", "Entries": entries });
    let send = async || {
        let reply = call(&cx, "SendMessageBatch", batch.clone(), &[("amz-sdk-invocation-id", "3f7b1c1e-0003")]).await;
        let sent = reply.json()["Successful"].clone();
        [sent[0]["MessageId"].clone(), sent[1]["MessageId"].clone()]
    };
    let first = send().await;
    assert_eq!(send().await, first);
    assert_ne!(first[0], first[1]);
}

pub(crate) async fn names_and_attributes(cx: Arc<Context>) {
    let url = cx.api.url.clone();
    for name in ["queue", "queue.fifo", "Queue"] {
        let found = sqs(&cx, "GetQueueUrl", json!({ "QueueName": name })).await;
        assert_eq!(found.json()["QueueUrl"], format!("{url}/000000000000/{name}"), "{}", found.text());
        assert_eq!(sqs(&cx, "CreateQueue", json!({ "QueueName": name })).await.json(), found.json());
    }
    let text = query(&cx, "2012-11-05", "Action=GetQueueUrl&QueueName=queue").await.text();
    assert_eq!(element(&text, "QueueUrl"), format!("{url}/000000000000/queue"));
    let listed = sqs(&cx, "ListQueues", json!({ "QueueNamePrefix": "queu" })).await.json();
    assert_eq!(listed, json!({ "QueueUrls": [format!("{url}/000000000000/queue")] }));
    let made = sns(&cx, "Action=CreateTopic&Name=queue").await.text();
    assert_eq!(element(&made, "TopicArn"), "arn:aws:sns:us-east-1:000000000000:queue");
    assert_eq!(
        element(&sns(&cx, "Action=CreateTopic&Name=queue").await.text(), "TopicArn"),
        element(&made, "TopicArn")
    );
    let topics = sns(&cx, "Action=ListTopics").await.text();
    assert!(
        topics.contains("<member><TopicArn>arn:aws:sns:us-east-1:000000000000:typed-queue</TopicArn></member>"),
        "{topics}"
    );
    let wanted = json!({ "QueueUrl": "http://x/1/keyed-queue.fifo", "AttributeNames": ["All"] });
    let attributes = sqs(&cx, "GetQueueAttributes", wanted).await.json()["Attributes"].clone();
    let count: u64 = attributes["ApproximateNumberOfMessages"].as_str().unwrap().parse().unwrap();
    assert!(count < 1_000, "{attributes}");
    assert_eq!(attributes["QueueArn"], "arn:aws:sqs:us-east-1:000000000000:keyed-queue.fifo");
    assert_eq!((&attributes["FifoQueue"], &attributes["ContentBasedDeduplication"]), (&json!("true"), &json!("true")));
    assert_eq!(attributes["MaximumMessageSize"], "262144");
    let one = json!({ "QueueUrl": "http://x/1/queue", "AttributeNames": ["QueueArn"] });
    assert_eq!(sqs(&cx, "GetQueueAttributes", one).await.json()["Attributes"].as_object().unwrap().len(), 1);
    // The console lives at the same address.
    let page = cx.api.get("/").await.unwrap();
    assert!(page.status == 200 && page.header("content-type").starts_with("text/html"), "{}", page.text());
}

pub(crate) async fn refusals(cx: Arc<Context>) {
    let long_name = format!("Action={}", "x".repeat(200));
    for (body, status, wanted) in [
        ("Action=Subscribe&TopicArn=x:queue", 400, "InvalidAction"),
        (long_name.as_str(), 400, "InvalidAction"),
        ("Action=Publish&TopicArn=arn:aws:sns:us-east-1:123456789012:no-such-topic&Message=1", 404, "NotFound"),
        ("Action=Publish&Message=1", 400, "InvalidParameter"),
        ("Action=Publish&TopicArn=x:queue", 400, "InvalidParameter"),
        ("Action=Publish&TopicArn=x:queue&Message=", 400, "InvalidParameter"),
        ("Action=Publish&TopicArn=x:queue&Message=hello", 400, "InvalidParameter"),
        ("Action=Publish&TopicArn=x:queue&Message=%ff", 400, "MalformedQueryString"),
        ("Action=Publish&TopicArn=x:queue&Message=1&MessageStructure=json", 400, "InvalidParameter"),
        ("Action=Publish&PhoneNumber=%2B15550100&Message=1", 400, "InvalidParameter"),
        ("Action=CreateTopic&Name=ordres", 400, "InvalidParameter"),
        ("Message=1", 400, "InvalidParameter"),
    ] {
        let reply = sns(&cx, body).await;
        assert_eq!((reply.status, code(&reply).as_str()), (status, wanted), "{body}: {}", reply.text());
        assert!(
            reply.text().contains("<ErrorResponse xmlns=\"http://sns.") && reply.text().contains("<Type>Sender</Type>")
        );
    }
    let text = sns(&cx, "Action=Subscribe").await.text();
    assert!(text.contains("Publish, PublishBatch, CreateTopic, ListTopics of SNS"), "says what there is: {text}");
    assert!(sns(&cx, "Action=CreateTopic&Name=ordres").await.text().contains("did you mean &quot;orders&quot;?"));
    for (action, body, wanted, kind) in [
        ("ReceiveMessage", json!({}), "AWS.SimpleQueueService.UnsupportedOperation", "UnsupportedOperation"),
        ("GetQueueUrl", json!({ "QueueName": "none" }), "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"),
        (
            "SendMessage",
            json!({ "QueueUrl": "http://x/1/none", "MessageBody": "1" }),
            "AWS.SimpleQueueService.NonExistentQueue",
            "QueueDoesNotExist",
        ),
        ("SendMessage", json!({ "MessageBody": "1" }), "MissingParameter", "MissingParameter"),
        ("SendMessage", json!({ "QueueUrl": "http://x/1/queue" }), "MissingParameter", "MissingParameter"),
        (
            "SendMessage",
            json!({ "QueueUrl": "http://x/1/queue", "MessageBody": "1\u{1}" }),
            "InvalidMessageContents",
            "InvalidMessageContents",
        ),
        (
            "SendMessage",
            json!({ "QueueUrl": "http://x/1/queue", "MessageBody": "hello" }),
            "InvalidMessageContents",
            "InvalidMessageContents",
        ),
        ("SendMessage", json!({ "QueueUrl": 7 }), "MalformedQueryString", "SerializationException"),
        ("SendMessage", json!([]), "MalformedQueryString", "SerializationException"),
    ] {
        let reply = sqs(&cx, action, body.clone()).await;
        let said = reply.json()["__type"].clone();
        assert_eq!((reply.status, code(&reply).as_str()), (400, wanted), "{action} {body}: {}", reply.text());
        assert_eq!(said, format!("com.amazonaws.sqs#{kind}"), "{action} {body}");
    }
    let other = [("content-type", "application/x-amz-json-1.0"), ("x-amz-target", "DynamoDB_20120810.PutItem")];
    let reply = cx.api.post("/", &other, "{}").await.unwrap();
    assert!(reply.status == 400 && reply.text().contains("SendMessageBatch"), "{}", reply.text());
    for headers in [&[][..], &[("content-type", "application/json")]] {
        let reply = cx.api.post("/", headers, "{}").await.unwrap();
        assert_eq!((reply.status, reply.code().as_str()), (415, "unsupported_media_type"));
    }
    assert_eq!(cx.api.send("PUT", "/", &[FORM], "").await.unwrap().status, 405);
    let signed =
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/sns/aws4_request, SignedHeaders=host, Signature=00";
    let broken = cx.api.post("/", &[FORM, ("authorization", signed)], "Action=ListTopics").await.unwrap();
    assert_eq!((broken.status, code(&broken).as_str()), (400, "IncompleteSignature"));
}

pub(crate) async fn limits(cx: Arc<Context>) {
    // What other tests queued may still be on its way to the table.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let books = &cx.json("/v1/reconcile?topic=queue").await["topics"][0];
        if books["backlog"].as_u64().unwrap_or_default() + books["in_flight"].as_u64().unwrap_or_default() == 0 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{books}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let before = cx.count("queue", "").await;
    let queue = "http://x/1/queue";
    let entry = |id: String, body: String| json!({ "Id": id, "MessageBody": body });
    let batch = async |entries: Vec<Value>| {
        code(&sqs(&cx, "SendMessageBatch", json!({ "QueueUrl": queue, "Entries": entries })).await)
    };
    let numbered = |n: usize| (0..n).map(|i| entry(format!("i{i}"), "1".into())).collect::<Vec<_>>();
    assert_eq!(batch(Vec::new()).await, "AWS.SimpleQueueService.EmptyBatchRequest");
    assert_eq!(batch(numbered(11)).await, "AWS.SimpleQueueService.TooManyEntriesInBatchRequest");
    let twice = vec![entry("a".into(), "1".into()), entry("a".into(), "2".into())];
    assert_eq!(batch(twice).await, "AWS.SimpleQueueService.BatchEntryIdsNotDistinct");
    for id in ["", "a b", "é", &"x".repeat(81)] {
        assert_eq!(
            batch(vec![entry(id.into(), "1".into())]).await,
            "AWS.SimpleQueueService.InvalidBatchEntryId",
            "{id}"
        );
    }
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    let halves = vec![entry("a".into(), text(131_072)), entry("b".into(), text(131_073))];
    assert_eq!(batch(halves).await, "AWS.SimpleQueueService.BatchRequestTooLong");
    let one = sqs(&cx, "SendMessage", json!({ "QueueUrl": queue, "MessageBody": text(262_145) })).await;
    assert_eq!((one.status, code(&one).as_str()), (400, "InvalidParameterValue"), "{}", one.text());
    let by_sns = format!("Action=Publish&TopicArn=x:queue&Message={}", text(262_145).replace('"', "%22"));
    let refused = sns(&cx, &by_sns).await;
    assert_eq!((refused.status, code(&refused).as_str()), (400, "InvalidParameter"), "{}", refused.text());
    // Declared, so that it is refused before it is sent.
    let head = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                content-length: 3000000\r\nexpect: 100-continue\r\n\r\n";
    let huge = cx.api.raw(&[head.as_bytes()], std::time::Duration::from_secs(20)).await.unwrap();
    assert!(huge.starts_with("HTTP/1.1 413") && element(&huge, "Code") == "RequestEntityTooLarge", "{huge}");
    let attribute =
        |value: Value| json!({ "QueueUrl": queue, "MessageBody": "1", "MessageAttributes": { "a": value } });
    for value in [
        json!({ "StringValue": "x" }),
        json!({ "DataType": "String" }),
        json!({ "DataType": "String", "StringValue": "" }),
        json!({ "DataType": "Number", "StringValue": "x" }),
        json!({ "DataType": "Binary", "BinaryValue": "*" }),
        json!({ "DataType": "Blob", "StringValue": "x" }),
        json!({ "DataType": "String", "StringValue": "x", "BinaryValue": "AAAA" }),
    ] {
        let reply = sqs(&cx, "SendMessage", attribute(value.clone())).await;
        assert_eq!((reply.status, code(&reply).as_str()), (400, "InvalidParameterValue"), "{value}: {}", reply.text());
    }
    let many: serde_json::Map<_, _> =
        (0..11).map(|i| (format!("a{i}"), json!({ "DataType": "String", "StringValue": "x" }))).collect();
    let body = json!({ "QueueUrl": queue, "MessageBody": "1", "MessageAttributes": many });
    assert_eq!(code(&sqs(&cx, "SendMessage", body).await), "InvalidParameterValue");
    assert_eq!(cx.count("queue", "").await, before, "nothing of it was taken");
    // Right at the limit, counting attributes.
    let body = json!({ "QueueUrl": queue, "MessageBody": text(262_144 - 8),
        "MessageAttributes": { "a": { "DataType": "String", "StringValue": "x" } } });
    let sent = sqs(&cx, "SendMessage", body).await;
    row(&cx, "queue", sent.json()["MessageId"].as_str().unwrap_or_else(|| panic!("{}", sent.text()))).await;
}

/// Where API keys are asked for, a publisher signs or presents one.
#[tokio::test]
async fn with_keys_nobody_publishes_unsigned() {
    let key = "k".repeat(43);
    let server = server(SQLITE, "embedded:");
    let made = server.run(&["keys", "new"]).unwrap();
    let made = String::from_utf8(made.stdout).unwrap();
    let of = |start: &str| made.lines().find_map(|line| line.strip_prefix(start)).unwrap().to_owned();
    let (own, hashes) = (of("key   "), of("keys = "));
    for pairs in [false, true] {
        let mut server = crate::server(SQLITE, "embedded:").env("CAUDAL_HTTP__KEYS", &hashes);
        if pairs {
            server.set_env("CAUDAL_HTTP__AWS_KEYS__AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        }
        server.start().await.unwrap();
        let api = server.api();
        let body = "Action=Publish&TopicArn=x:queue&Message=1";
        let unsigned = api.post("/", &[FORM], body).await.unwrap();
        let wanted = if pairs { "MissingAuthenticationToken" } else { "InvalidClientTokenId" };
        assert_eq!((unsigned.status, code(&unsigned).as_str()), (403, wanted));
        let path = api.post("/000000000000/queue", &[FORM], body).await.unwrap();
        assert_eq!((path.status, code(&path).as_str()), (403, wanted));
        let old = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/sns/aws4_request, \
                   SignedHeaders=host;x-amz-date, Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        let headers = [FORM, ("authorization", old), ("x-amz-date", "20150830T123600Z")];
        let expired = api.post("/", &headers, body).await.unwrap();
        assert_eq!(code(&expired), if pairs { "RequestExpired" } else { "InvalidClientTokenId" });
        let wrong = format!("Bearer {key}");
        assert_eq!(code(&api.post("/", &[FORM, ("authorization", &wrong)], body).await.unwrap()), wanted);
        let bearer = format!("Bearer {own}");
        assert_eq!(api.post("/", &[FORM, ("authorization", &bearer)], body).await.unwrap().status, 200);
        assert_eq!(api.get("/").await.unwrap().status, 401, "the console is not open");
    }
    // Key pairs alone close this door on loopback too.
    let mut server = crate::server(SQLITE, "embedded:").env("CAUDAL_HTTP__AWS_KEYS__AKIDEXAMPLE", "secret");
    server.start().await.unwrap();
    let reply = server.api().post("/", &[FORM], "Action=ListTopics").await.unwrap();
    assert_eq!((reply.status, code(&reply).as_str()), (403, "MissingAuthenticationToken"));
}

/// What a client repeats by itself: nothing was taken, or nobody can say.
#[tokio::test]
async fn while_the_store_is_away_publishers_are_asked_to_repeat() {
    let mut server = server("postgres://nobody@127.0.0.1:9/none", "none:").env("CAUDAL_STORE__PATIENCE_MS", "50");
    server.spawn().unwrap();
    let api = server.api();
    let begun = std::time::Instant::now();
    while api.get("/livez").await.is_err() {
        assert!(begun.elapsed().as_secs() < 30, "{}", server.log());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let published = api.post("/", &[FORM], "Action=Publish&TopicArn=x:queue&Message=1").await.unwrap();
    assert_eq!((published.status, code(&published).as_str()), (503, "ServiceUnavailable"), "{}", published.text());
    assert_eq!(element(&published.text(), "Type"), "Receiver");
    let headers = [("content-type", "application/x-amz-json-1.0"), ("x-amz-target", "AmazonSQS.SendMessageBatch")];
    let entries = json!([{ "Id": "a", "MessageBody": "1" }, { "Id": "b", "MessageBody": "{" }]);
    let body = json!({ "QueueUrl": "http://x/1/queue", "Entries": entries }).to_string();
    let mixed = api.post("/", &headers, body).await.unwrap();
    let failed: Vec<_> = mixed.json()["Failed"].as_array().unwrap().iter().map(|f| f["SenderFault"].clone()).collect();
    assert_eq!((mixed.status, failed), (200, vec![json!(false), json!(true)]), "{}", mixed.text());
    let entries = json!([{ "Id": "a", "MessageBody": "1" }, { "Id": "b", "MessageBody": "2" }]);
    let body = json!({ "QueueUrl": "http://x/1/queue", "Entries": entries }).to_string();
    let all = api.post("/", &headers, body).await.unwrap();
    assert_eq!((all.status, all.header("x-amzn-query-error")), (503, "ServiceUnavailable;Receiver"), "{}", all.text());
    let pushed = crate::webhook::delivered(&api, "msg_away", "{}").await;
    assert_eq!((pushed.status, pushed.code().as_str()), (503, "store_unavailable"), "{}", pushed.text());
}
