//! The connection to AWS, and the reads that everything here is made of.

use std::collections::HashMap;
use std::time::Duration;

use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::meta::region::RegionProviderChain;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region};
use aws_sdk_dynamodb::config::Credentials;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use caudal_core::error::StoreError;

use super::address::Address;
use super::clock::Clock;
use super::error::{Call, failed};
use super::keys::{GPK, GSK, INDEX, PK, SK};
use super::values::Row;

const CONNECT_MAX: Duration = Duration::from_secs(2);
/// One try of one request.
const TRY_MAX: Duration = Duration::from_secs(5);
/// A request with its repeats: nothing hangs for longer.
const ALL_TRIES_MAX: Duration = Duration::from_secs(15);
const TRIES_MAX: u32 = 5;
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Keys of one BatchGetItem.
const KEYS_MAX: usize = 100;
/// Answers of BatchGetItem that bring nothing, after which the table counts as throttled.
const BARREN_MAX: u32 = 8;

/// Emulators derive an account from a key, and take any.
const EMULATOR_KEY: &str = "test";
const EMULATOR_REGION: &str = "us-east-1";

#[derive(Debug, Clone)]
pub(super) struct Aws {
    pub(super) client: aws_sdk_dynamodb::Client,
    pub(super) table: String,
}

impl Aws {
    /// Asks nobody but the environment (and, for a region that nothing names, the machine's metadata service).
    pub(super) async fn new(address: &Address, clock: Clock) -> Result<Self, StoreError> {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_MAX)
            .operation_attempt_timeout(TRY_MAX)
            .operation_timeout(ALL_TRIES_MAX)
            .build();
        let retries = RetryConfig::standard()
            .with_max_attempts(TRIES_MAX)
            .with_initial_backoff(PAUSE_FIRST)
            .with_max_backoff(PAUSE_MAX);
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts).retry_config(retries);
        if let Ok(name) = AppName::new("caudal") {
            loader = loader.app_name(name);
        }
        if let Some(region) = &address.region {
            loader = loader.region(Region::new(region.clone()));
        } else if address.is_plain_http() {
            let environment = EnvironmentVariableRegionProvider::new();
            loader = loader.region(RegionProviderChain::first_try(environment).or_else(Region::new(EMULATOR_REGION)));
        }
        if address.is_plain_http() {
            let any = Credentials::new(EMULATOR_KEY, EMULATOR_KEY, None, None, "emulator");
            let environment = EnvironmentVariableCredentialsProvider::new();
            loader = loader.credentials_provider(
                CredentialsProviderChain::first_try("environment", environment).or_else("emulator", any),
            );
        }
        if let Some(endpoint) = &address.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        let config = loader.load().await;
        if config.region().is_none() {
            return Err(StoreError::Setup(
                "no AWS region is named: write it in the URL (dynamodb://eu-west-1/table) or set AWS_REGION".to_owned(),
            ));
        }
        let config = aws_sdk_dynamodb::config::Builder::from(&config).interceptor(clock).build();
        Ok(Self { client: aws_sdk_dynamodb::Client::from_conf(config), table: address.table.clone() })
    }

    pub(super) fn call(&self, action: &'static str) -> Call<'_> {
        Call { action, table: &self.table }
    }

    /// One item as it is now.
    pub(super) async fn get(&self, pk: String, sk: &str) -> Result<Option<Row>, StoreError> {
        let get = self.client.get_item().table_name(&self.table).consistent_read(true);
        let got = get.key(PK, AttributeValue::S(pk)).key(SK, AttributeValue::S(sk.to_owned())).send().await;
        got.map(|got| got.item).map_err(|error| failed(&error, self.call("GetItem")))
    }

    /// Items as they are now, in any order; those that are not there are left out. Not all as of the same moment.
    pub(super) async fn get_all(&self, keys: Vec<(String, String)>) -> Result<Vec<Row>, StoreError> {
        let mut found = Vec::with_capacity(keys.len());
        let mut keys: Vec<Row> = keys
            .into_iter()
            .map(|(pk, sk)| {
                HashMap::from([(PK.to_owned(), AttributeValue::S(pk)), (SK.to_owned(), AttributeValue::S(sk))])
            })
            .collect();
        let mut barren = 0;
        while !keys.is_empty() {
            let rest = keys.split_off(keys.len().min(KEYS_MAX));
            let asked = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true);
            let asked = asked.build().map_err(StoreError::fatal)?;
            let got = self.client.batch_get_item().request_items(&self.table, asked).send().await;
            let mut got = got.map_err(|error| failed(&error, self.call("BatchGetItem")))?;
            let rows = got.responses.as_mut().and_then(|rows| rows.remove(&self.table)).unwrap_or_default();
            barren = if rows.is_empty() { barren } else { 0 };
            found.extend(rows);
            // Too large an answer, or throttled: the rest is asked for again.
            keys = got.unprocessed_keys.and_then(|mut keys| keys.remove(&self.table)).map_or_else(Vec::new, |k| k.keys);
            if !keys.is_empty() {
                barren += 1;
                if barren > BARREN_MAX {
                    let say = format!("BatchGetItem on {} is throttled: give the table more capacity", self.table);
                    return Err(StoreError::unavailable(say));
                }
                tokio::time::sleep((PAUSE_FIRST * 2u32.pow(barren)).min(PAUSE_MAX)).await;
            }
            keys.extend(rest);
        }
        Ok(found)
    }

    /// A page of the index: places of one queue from `after` (exclusive) to `until`, in order. The index runs behind the items:
    /// what it says must be compared with them.
    pub(super) async fn places(
        &self,
        queue: &str,
        after: &str,
        until: &str,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .index_name(INDEX)
            .key_condition_expression(format!("{GPK} = :queue AND {GSK} BETWEEN :after AND :until"))
            .expression_attribute_values(":queue", AttributeValue::S(queue.to_owned()))
            // The end of a place is a digit; with a character behind it that sorts below all it is the next one.
            .expression_attribute_values(":after", AttributeValue::S(format!("{after}\u{1}")))
            .expression_attribute_values(":until", AttributeValue::S(until.to_owned()))
            .limit(limit.clamp(1, 1000) as i32);
        let got = query.send().await.map_err(|error| failed(&error, self.call("Query")))?;
        let rows = got.items.unwrap_or_default();
        rows.into_iter()
            .map(|mut row| match row.remove(GSK) {
                Some(AttributeValue::S(place)) => Ok(place),
                _ => Err(super::error::damaged(format!("an item of queue {queue} without a place"))),
            })
            .collect()
    }

    /// All items of one partition, as they are now.
    pub(super) async fn partition(&self, pk: &str) -> Result<Vec<Row>, StoreError> {
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression(format!("{PK} = :pk"))
            .expression_attribute_values(":pk", AttributeValue::S(pk.to_owned()));
        let mut pages = query.into_paginator().items().send();
        let mut rows = Vec::new();
        while let Some(row) = pages.next().await {
            rows.push(row.map_err(|error| failed(&error, self.call("Query")))?);
        }
        Ok(rows)
    }

    /// Removes an item that nobody refers to any more.
    pub(super) async fn delete(&self, pk: String, sk: String) -> Result<(), StoreError> {
        let delete = self.client.delete_item().table_name(&self.table);
        let done = delete.key(PK, AttributeValue::S(pk)).key(SK, AttributeValue::S(sk)).send().await;
        done.map(drop).map_err(|error| failed(&error, self.call("DeleteItem")))
    }
}
