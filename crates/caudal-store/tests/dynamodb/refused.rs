//! What cannot be done, and what is said about it.

use std::time::Duration;

use bytes::Bytes;
use caudal_core::confirm::ports::{Adopt, Confirm, LaneSpec, Records};
use caudal_core::error::StoreError;
use caudal_core::schema::RecordSchema;
use caudal_store::dynamodb::{DynamoStore, RECORD_BYTES_MAX};
use caudal_testkit::confirm::{Doing, Harness, claim};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use crate::{Dynamo, record};

#[tokio::test]
async fn a_missing_table_is_said_with_the_command_that_makes_it() {
    let d = Dynamo::open(1).await;
    let url = d.url.replace("create=true", "create=false").replace(&d.raw.table, "not.there");
    let Err(StoreError::Setup(why)) = DynamoStore::open(&url).await else { panic!("there is no such table") };
    assert!(why.contains("aws dynamodb create-table --table-name not.there"), "{why}");
    assert!(why.contains("IndexName=due") && why.contains("KEYS_ONLY"), "{why}");
}

#[tokio::test]
async fn a_table_of_somebody_else_is_refused() {
    use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
    let d = Dynamo::open(1).await;
    let table = format!("{}.other", d.raw.table);
    let attribute = AttributeDefinition::builder().attribute_name("pk").attribute_type(ScalarAttributeType::S);
    let key = KeySchemaElement::builder().attribute_name("pk").key_type(KeyType::Hash);
    let make = d.raw.client.create_table().table_name(&table).billing_mode(BillingMode::PayPerRequest);
    make.attribute_definitions(attribute.build().unwrap()).key_schema(key.build().unwrap()).send().await.unwrap();
    let Err(StoreError::Setup(why)) = DynamoStore::open(&d.url.replace(&d.raw.table, &table)).await else {
        panic!("its keys are other ones")
    };
    assert!(why.contains(&table) && why.contains("other keys"), "{why}");
}

#[tokio::test]
async fn enqueueing_can_be_repeated_and_not_be_changed() {
    let d = Dynamo::open(4).await;
    let (lane, other) = (d.lane("default").await, d.lane("urgent").await);
    let ids: Vec<Uuid> = (0..10).map(|_| Uuid::now_v7()).collect();
    let items: Vec<_> = ids.iter().map(|id| (*id, record(*id))).collect();
    let first = d.store.enqueue(lane, &items[..5]).await.unwrap();
    assert_eq!((first.new, first.repeats), (5, 0));
    let all = d.store.enqueue(lane, &items).await.unwrap();
    assert_eq!((all.new, all.repeats), (5, 5));
    let twice = d.store.enqueue(lane, &[items[0].clone(), items[0].clone()]).await.unwrap();
    assert_eq!((twice.new, twice.repeats), (0, 2));
    let changed = Bytes::from_static(b"{\"amount\":8}");
    let new = (Uuid::now_v7(), record(ids[0]));
    let large = Bytes::from(format!("{{\"a\":\"{}\"}}", "x".repeat(RECORD_BYTES_MAX)));
    for (lane, wrong) in [
        (lane, vec![(ids[0], changed.clone())]),
        (other, vec![items[0].clone()]),
        (lane, vec![new.clone(), (new.0, changed)]),
        (lane, vec![(new.0, large)]),
        (lane, vec![(new.0, Bytes::from_static(b"[1]"))]),
    ] {
        let refused = d.store.enqueue(lane, &wrong).await;
        let Err(StoreError::Asked(why)) = refused else { panic!("{refused:?}") };
        assert!(wrong.iter().any(|(id, _)| why.contains(&id.to_string())), "{why}");
    }
    // Of two that differ the first is taken.
    let status = d.store().status("default").await;
    assert_eq!((status.enqueued, status.pending), (11, 11));
}

#[tokio::test]
async fn a_table_cannot_be_adopted_and_unknown_lanes_are_the_callers() {
    let d = Dynamo::open(1).await;
    let adopt = Adopt {
        table: RecordSchema::untyped("payments", false).table,
        key: "id".into(),
        state: "state".into(),
        pending: "new".into(),
        confirmed: None,
        rejected: None,
    };
    let spec = LaneSpec { records: Records::Adopted(std::sync::Arc::new(adopt)), ..crate::spec("payments", "default") };
    assert!(matches!(d.store.ensure_lanes(&[spec]).await, Err(StoreError::Setup(why)) if why.contains("adopts")));
    let lane = d.lane("default").await;
    assert!(matches!(d.store.adopt(lane, 10).await, Err(StoreError::Setup(_))));
    let unknown = claim(caudal_core::confirm::LaneId(4711));
    assert!(matches!(d.store.claim(&unknown).await, Err(StoreError::Asked(why)) if why.contains("4711")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_transient_and_over_when_it_is_over() {
    let d = Dynamo::open(1).await;
    let lane = d.lane("default").await;
    d.enqueue(lane, &[Uuid::now_v7()]).await;
    d.road.cut();
    let failed = d.store.claim(&claim(lane)).await;
    assert!(matches!(&failed, Err(error) if error.is_transient()), "{failed:?}");
    d.road.mend().unwrap();
    assert_eq!(d.store.claim(&claim(lane)).await.unwrap().unwrap().items.len(), 1);
}

/// AWS says this with status 400 and leaves it to the client to come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttling_is_repeated_and_then_transient() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let body = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"slow down"}"#;
            let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.0\r\nConnection: close\r\nContent-Length";
            let _ = stream.write_all(format!("{head}: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
        }
    });
    let url = format!("dynamodb:table?endpoint=http://{address}");
    let opening = DynamoStore::open(&url);
    let failed = tokio::time::timeout(Duration::from_secs(30), opening).await.expect("bounded");
    let Err(error) = failed else { panic!("it was throttled") };
    assert!(error.is_transient() && error.to_string().contains("PAY_PER_REQUEST"), "{error}");
    assert!(asked.load(std::sync::atomic::Ordering::SeqCst) > 1, "tried more than once");
}
