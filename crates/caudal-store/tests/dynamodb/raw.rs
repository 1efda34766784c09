//! The table as somebody else changes it: the SDK, without Caudal.

use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Credentials;
use aws_sdk_dynamodb::types::AttributeValue;
use caudal_core::confirm::LaneId;
use uuid::Uuid;

pub(crate) struct Raw {
    pub(crate) client: Client,
    pub(crate) table: String,
}

impl Raw {
    pub(crate) async fn of(endpoint: &str, table: &str) -> Self {
        let loader = aws_config::defaults(BehaviorVersion::latest()).region(Region::new("us-east-1"));
        let any = Credentials::new("test", "test", None, None, "test");
        let config = loader.credentials_provider(any).endpoint_url(endpoint).load().await;
        Self { client: Client::new(&config), table: table.to_owned() }
    }

    /// Changes a transaction's item; `:v` stands for the value.
    pub(crate) async fn change(&self, id: Uuid, expression: &str, values: &[&str]) {
        self.update(format!("TX#{id}"), "TX", expression, values).await;
    }

    pub(crate) async fn update(&self, pk: String, sk: &str, expression: &str, values: &[&str]) {
        let update = self.client.update_item().table_name(&self.table).update_expression(expression);
        let mut update = update.key("pk", AttributeValue::S(pk)).key("sk", AttributeValue::S(sk.to_owned()));
        for value in values {
            update = update.expression_attribute_values(":v", AttributeValue::S((*value).to_owned()));
        }
        update.send().await.unwrap();
    }

    /// The outcome of a transaction that has no record.
    pub(crate) async fn put_outcome(&self, id: Uuid, lane: LaneId) {
        let put = self.client.put_item().table_name(&self.table);
        let text = |text: &str| AttributeValue::S(text.to_owned());
        put.item("pk", AttributeValue::S(format!("TX#{id}")))
            .item("sk", text("TX"))
            .item("st", text("confirmed"))
            .item("ln", AttributeValue::N(lane.to_string()))
            .item("sn", AttributeValue::N("1".to_owned()))
            .send()
            .await
            .unwrap();
    }
}

impl Raw {
    /// Open leases and batches of a lane.
    pub(crate) async fn leftovers(&self, lane: LaneId, shards: u16) -> usize {
        let mut left = 0;
        for shard in 0..shards {
            let query = self.client.query().table_name(&self.table).key_condition_expression("pk = :pk");
            let query = query.expression_attribute_values(":pk", AttributeValue::S(format!("LEASE#{lane}#{shard}")));
            for row in query.send().await.unwrap().items.unwrap() {
                left += match row.get("leases") {
                    Some(leases) => leases.as_m().unwrap().len(),
                    None => 1,
                };
            }
        }
        left
    }
}
