//! HTTP through each front.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::{Deployed, OPEN, event};

/// The answer's body, whichever way it came.
fn body(answer: &Value) -> Value {
    let text = answer["body"].as_str().unwrap();
    match answer["isBase64Encoded"].as_bool().unwrap() {
        true => serde_json::from_slice(&STANDARD.decode(text).unwrap()).unwrap_or_default(),
        false => serde_json::from_str(text).unwrap_or_default(),
    }
}

fn status(answer: &Value) -> u64 {
    answer["statusCode"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

/// A request through a function URL.
pub(crate) fn request(method: &str, path: &str, query: &str, headers: Value, body: &str) -> Value {
    let mut event = event!("function-url");
    event["requestContext"]["http"]["method"] = method.into();
    event["rawPath"] = path.into();
    event["rawQueryString"] = query.into();
    event["headers"] = headers;
    event["body"] = body.into();
    event
}

pub(crate) fn get(path: &str, query: &str) -> Value {
    request("GET", path, query, json!({}), "")
}

#[tokio::test]
async fn a_message_comes_in_and_is_read_back_through_each_front() {
    let deployed = Deployed::open().await;
    let fronts = [
        (event!("rest-api"), "rest"),
        (event!("http-api-1"), "http api 1"),
        (event!("http-api-2"), "http api 2"),
        (event!("function-url"), "function url"),
        (event!("alb"), "alb"),
        (event!("alb-multi-value"), "alb multi"),
    ];
    for (event, customer) in &fronts {
        let stored = deployed.answer(event).await;
        assert_eq!((status(&stored), &body(&stored)["state"]), (201, &"stored".into()), "{customer}: {stored}");
        let location = header(&stored, "location");
        assert!(location.starts_with("/v1/topics/orders/messages/"), "{stored}");
        let record = deployed.answer(&reading(event, &location, json!({}))).await;
        assert_eq!((status(&record), &body(&record)["customer"]), (200, &(*customer).into()), "{customer}: {record}");
        // A filter with a space, twice the same name, and a comma that must survive.
        let query = json!({"customer": [format!("eq.{customer}"), "not.is.null"], "select": ["n,customer"]});
        let rows = deployed.answer(&reading(event, "/rest/v1/orders", query)).await;
        assert_eq!(body(&rows), json!([{"n": 1, "customer": customer}]), "{customer}: {rows}");
        assert_eq!(header(&rows, "vary"), "Accept, Prefer");
        let missing = deployed.answer(&reading(event, "/v1/topics/no%20such", json!({}))).await;
        assert_eq!((status(&missing), &body(&missing)["code"]), (400, &"bad_topic_name".into()), "{missing}");
    }
    assert_eq!(deployed.customers("orders").await.len(), fronts.len());
    deployed.balances().await;
}

fn header(answer: &Value, name: &str) -> String {
    let value = match &answer["multiValueHeaders"][name] {
        Value::Null => &answer["headers"][name],
        values => &values[0],
    };
    value.as_str().unwrap_or_else(|| panic!("no {name}: {answer}")).to_owned()
}

/// The same front, asked to GET something. The query is given decoded, names with their values; each front hands it over in
/// its own way.
fn reading(event: &Value, path: &str, query: Value) -> Value {
    let mut event = event.clone();
    let pairs: Vec<(&String, &str)> = query
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(name, values)| values.as_array().unwrap().iter().map(move |value| (name, value.as_str().unwrap())))
        .collect();
    let encoded = |text: &str| text.replace(' ', "%20").replace(',', "%2C");
    event["body"] = Value::Null;
    if event["version"] == "2.0" {
        event["requestContext"]["http"]["method"] = "GET".into();
        let raw: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        event["rawQueryString"] = raw.join("&").into();
        let stage = event["requestContext"]["stage"].as_str().unwrap();
        // An HTTP API decodes the path, a function URL does not.
        event["rawPath"] =
            if stage == "$default" { path.into() } else { format!("/{stage}{}", path.replace("%20", " ")).into() };
        return event;
    }
    event["httpMethod"] = "GET".into();
    let balancer = event["requestContext"]["elb"].is_object();
    let value_of = |value: &str| if balancer { encoded(value) } else { value.to_owned() };
    let lists = query.as_object().unwrap().iter().map(|(name, values)| {
        (
            name.clone(),
            values
                .as_array()
                .unwrap()
                .iter()
                .map(|value| value_of(value.as_str().unwrap()).into())
                .collect::<Vec<Value>>()
                .into(),
        )
    });
    let multi: serde_json::Map<String, Value> = lists.collect();
    let single: serde_json::Map<String, Value> =
        multi.iter().map(|(name, values)| (name.clone(), values.as_array().unwrap()[0].clone())).collect();
    if !event["multiValueHeaders"].is_null() {
        event["multiValueQueryStringParameters"] = multi.into();
    }
    if !event["headers"].is_null() {
        event["queryStringParameters"] = single.into();
    }
    if event["version"] == "1.0" {
        event["path"] = format!("/dev{}", path.replace("%20", " ")).into();
        event["pathParameters"]["proxy"] = path.replace("%20", " ").trim_start_matches('/').into();
    } else {
        event["path"] = path.into();
        event["pathParameters"] = json!({"proxy": path.trim_start_matches('/')});
    }
    event
}

#[tokio::test]
async fn packed_bodies_come_in_as_base64() {
    let deployed = Deployed::open().await;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for n in 0..1000 {
        writeln!(packer, "{{\"n\": {n}, \"customer\": \"ñandú\"}}").unwrap();
    }
    let packed = STANDARD.encode(packer.finish().unwrap());
    let headers = json!({"content-type": "application/x-ndjson", "content-encoding": "gzip", "idempotency-key": "one"});
    let mut event = request("POST", "/v1/topics/orders/messages", "", headers, &packed);
    event["isBase64Encoded"] = true.into();
    let answer = deployed.answer(&event).await;
    assert_eq!((status(&answer), &body(&answer)["stored"]), (201, &1000.into()), "{answer}");
    let again = deployed.answer(&event).await;
    assert_eq!((status(&again), &body(&again)["duplicate"]), (200, &1000.into()), "{again}");
    deployed.balances().await;
}

#[tokio::test]
async fn only_key_holders_get_in() {
    let store = caudal_testkit::postgres::database().await.unwrap();
    let hash = "[\"sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683\"]"; // of "key"
    let keyed = Deployed::over(&store, &[("CAUDAL_HTTP__KEYS", hash)]).await;
    let ask = |headers: Value, path: &str| request("GET", path, "", headers, "");
    for (headers, path, expected) in [
        (json!({}), "/ping", 200),
        (json!({}), "/readyz", 200),
        (json!({}), "/v1/topics", 401),
        (json!({"authorization": "Bearer other"}), "/v1/topics", 401),
        (json!({"Authorization": "Bearer key"}), "/v1/topics", 200),
        (json!({"apikey": "key"}), "/v1/topics", 200),
        (json!({}), "/nowhere", 401),
    ] {
        let answer = keyed.answer(&ask(headers.clone(), path)).await;
        assert_eq!(status(&answer), expected, "{path} {headers}: {answer}");
    }
    for event in [event!("rest-api"), event!("http-api-1"), event!("http-api-2"), event!("function-url"), event!("alb")]
    {
        assert_eq!(status(&keyed.answer(&event).await), 401);
    }
    assert!(keyed.customers("orders").await.is_empty());

    // Without keys a function still takes its queues, and nobody else.
    let closed = Deployed::over(&store, &[]).await;
    assert_eq!(status(&closed.answer(&get("/v1/topics", "")).await), 401);
    assert!(closed.function.log().contains("caudal keys new"), "{}", closed.function.log());
    assert_eq!(closed.answer(&event!("sqs")).await, json!({"batchItemFailures": []}));
    let open = Deployed::over(&store, &[OPEN]).await;
    assert_eq!(status(&open.answer(&get("/v1/topics", "")).await), 200);
}

#[tokio::test]
async fn what_cannot_be_handed_over_whole_is_a_problem() {
    let deployed = Deployed::open().await;
    let endless = deployed.answer(&get("/v1/topics/orders/stream", "")).await;
    assert_eq!((status(&endless), &body(&endless)["code"]), (501, &"no_stream".into()), "{endless}");

    let insert = "insert into orders (_id, _source, _published_at, n, customer)
                  select gen_random_uuid(), 'test', now(), n, repeat('\"', 1000) from generate_series(1, 4000) n";
    deployed.database.batch_execute(insert).await.unwrap();
    let mut balancer = event!("alb");
    (balancer["httpMethod"], balancer["path"]) = ("GET".into(), "/rest/v1/orders".into());
    // 4 MB, or 8 MB with each quote escaped once and 16 MB with each escaped again.
    for (event, rows, expected) in [
        (get("/rest/v1/orders", "select=customer"), 0, 422),
        (get("/rest/v1/orders", "select=n"), 4000, 200),
        (get("/rest/v1/orders", "select=customer&limit=1400"), 1400, 200),
        (get("/rest/v1/orders", "select=customer&limit=2500"), 0, 422),
        (balancer, 0, 422),
    ] {
        let answer = deployed.answer(&event).await;
        let found = body(&answer);
        assert_eq!(
            (status(&answer), found.as_array().map_or(0, Vec::len)),
            (expected, rows),
            "{:.300}",
            answer.to_string()
        );
        assert!(expected == 200 || found["code"] == "answer_too_large", "{found}");
    }
}

/// The emulator makes events of real requests, as a function URL does.
#[tokio::test]
async fn a_client_sees_the_same_as_from_a_server() {
    let deployed = Deployed::open().await;
    let api = deployed.function.api();
    let stored =
        api.publish("orders", &[("idempotency-key", "k")], r#"{"n": 1, "customer": "a b&c=ñ"}"#).await.unwrap();
    assert_eq!(stored.status, 201, "{}", stored.text());
    let id = stored.json()["transaction_id"].as_str().unwrap().to_owned();
    let again = api.publish("orders", &[("idempotency-key", "k")], r#"{"n": 1, "customer": "a b&c=ñ"}"#).await.unwrap();
    assert_eq!((again.status, again.json()["transaction_id"].as_str()), (200, Some(id.as_str())));
    let conflict = api.publish("orders", &[("idempotency-key", "k")], r#"{"n": 2}"#).await.unwrap();
    assert_eq!((conflict.status, conflict.code().as_str()), (422, "conflict"));
    let found = api.get("/rest/v1/orders?customer=eq.a%20b%26c%3D%C3%B1&select=n").await.unwrap();
    assert_eq!((found.status, found.text().as_str()), (200, "[{\"n\":1}]"), "{}", found.text());
    let receipt = api.get(&format!("/v1/receipts/{id}")).await.unwrap();
    assert_eq!((receipt.status, &receipt.json()["state"]), (200, &"stored".into()));
    let head = api.send("HEAD", "/rest/v1/orders", &[], "").await.unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    let csv = api.send("GET", "/rest/v1/orders?select=n", &[("accept", "text/csv")], "").await.unwrap();
    assert_eq!((csv.header("content-type"), csv.text().as_str()), ("text/csv; charset=utf-8", "n\r\n1\r\n"));
    let refused = api.send("DELETE", "/v1/topics", &[], "").await.unwrap();
    assert_eq!(refused.status, 405);
    deployed.balances().await;
}
