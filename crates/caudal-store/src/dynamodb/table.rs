//! The table: what it looks like, and making it.

use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, IndexStatus, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType, TableDescription, TableStatus,
};
use caudal_core::error::StoreError;

use super::aws::Aws;
use super::error::{Call, failed};
use super::keys::{GPK, GSK, INDEX, PK, SK};

/// How long a table is waited for that is being made.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(500);

/// What to do when it is not there.
pub(super) fn missing(table: &str) -> String {
    format!(
        "make table {table} with create=true in its URL, or with: aws dynamodb create-table --table-name {table} \
         --billing-mode PAY_PER_REQUEST --attribute-definitions AttributeName={PK},AttributeType=S \
         AttributeName={SK},AttributeType=S AttributeName={GPK},AttributeType=S AttributeName={GSK},AttributeType=S \
         --key-schema AttributeName={PK},KeyType=HASH AttributeName={SK},KeyType=RANGE \
         --global-secondary-indexes 'IndexName={INDEX},KeySchema=[{{AttributeName={GPK},KeyType=HASH}},\
         {{AttributeName={GSK},KeyType=RANGE}}],Projection={{ProjectionType=KEYS_ONLY}}'"
    )
}

/// Sees that the table is there, is as it must be, and can be used.
pub(super) async fn ensure(aws: &Aws, create: bool) -> Result<(), StoreError> {
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut found = describe(aws).await?;
    if found.is_none() {
        if !create {
            return Err(StoreError::Setup(format!("it does not exist: {}", missing(&aws.table))));
        }
        make(aws).await?;
        found = describe(aws).await?;
    }
    loop {
        if let Some(table) = &found {
            check(aws, table)?;
            if is_ready(table) {
                return Ok(());
            }
        }
        if std::time::Instant::now() > deadline {
            let say = format!("table {} is still being made after {} s: wait", aws.table, PATIENCE.as_secs());
            return Err(StoreError::unavailable(say));
        }
        tokio::time::sleep(PAUSE).await;
        found = describe(aws).await?;
    }
}

async fn describe(aws: &Aws) -> Result<Option<TableDescription>, StoreError> {
    match aws.client.describe_table().table_name(&aws.table).send().await {
        Ok(found) => Ok(found.table),
        Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_not_found_exception()) => Ok(None),
        Err(error) => Err(failed(&error, Call { action: "DescribeTable", table: &aws.table })),
    }
}

fn is_ready(table: &TableDescription) -> bool {
    let usable = |status: &TableStatus| matches!(status, TableStatus::Active | TableStatus::Updating);
    table.table_status().is_some_and(usable)
        && table.global_secondary_indexes().iter().any(|index| {
            index.index_name() == Some(INDEX)
                && index.index_status().is_none_or(|status| !matches!(status, IndexStatus::Creating))
        })
}

fn check(aws: &Aws, table: &TableDescription) -> Result<(), StoreError> {
    let is = |schema: &[KeySchemaElement], hash: &str, range: &str| {
        let of = |kind: KeyType| schema.iter().find(|key| *key.key_type() == kind).map(|key| key.attribute_name());
        of(KeyType::Hash) == Some(hash) && of(KeyType::Range) == Some(range)
    };
    let index = table.global_secondary_indexes().iter().find(|index| index.index_name() == Some(INDEX));
    if is(table.key_schema(), PK, SK) && index.is_some_and(|index| is(index.key_schema(), GPK, GSK)) {
        return Ok(());
    }
    let (table, missing) = (&aws.table, missing(&aws.table));
    Err(StoreError::Setup(format!("table {table} has other keys than Caudal's, or no index {INDEX}: {missing}")))
}

/// Another process may be making it, too.
async fn make(aws: &Aws) -> Result<(), StoreError> {
    let mut make = aws.client.create_table().table_name(&aws.table).billing_mode(BillingMode::PayPerRequest);
    for name in [PK, SK, GPK, GSK] {
        let attribute = AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
        make = make.attribute_definitions(attribute.build().map_err(StoreError::fatal)?);
    }
    let projection = Projection::builder().projection_type(ProjectionType::KeysOnly).build();
    let index = GlobalSecondaryIndex::builder()
        .index_name(INDEX)
        .key_schema(key(GPK, KeyType::Hash)?)
        .key_schema(key(GSK, KeyType::Range)?)
        .projection(projection);
    let made = make
        .key_schema(key(PK, KeyType::Hash)?)
        .key_schema(key(SK, KeyType::Range)?)
        .global_secondary_indexes(index.build().map_err(StoreError::fatal)?)
        .send()
        .await;
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_in_use_exception()) => Ok(()),
        Err(error) => Err(failed(&error, Call { action: "CreateTable", table: &aws.table })),
    }
}

fn key(name: &str, kind: KeyType) -> Result<KeySchemaElement, StoreError> {
    KeySchemaElement::builder().attribute_name(name).key_type(kind).build().map_err(StoreError::fatal)
}
