//! Lanes that move between PostgreSQL, SQLite and DynamoDB (moto): the suite of moving over the pairs of stores, all of them one after the
//! other, and what is a database's alone.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

// Parts of them are for the suites of single stores.
#[allow(dead_code)]
#[path = "dynamodb/harness.rs"]
mod dynamodb;
#[allow(dead_code)]
#[path = "postgres_confirm/harness.rs"]
mod postgres;
#[allow(dead_code)]
#[path = "dynamodb/raw.rs"]
mod raw;
#[allow(dead_code)]
#[path = "sqlite_confirm/harness.rs"]
mod sqlite;

#[path = "moving/records.rs"]
mod records;

use caudal_testkit::confirm::Harness;
use caudal_testkit::confirm::moving::{assert_same, filled, moved, pause};

async fn postgres() -> postgres::Sql {
    postgres::open(false).await
}

/// As behind a pool: nothing may outlive a transaction.
async fn pooled() -> postgres::Sql {
    postgres::open(true).await
}

async fn sqlite() -> sqlite::Sql {
    sqlite::open().await
}

async fn table() -> dynamodb::Dynamo {
    dynamodb::Dynamo::open(1).await
}

mod postgres_to_sqlite {
    caudal_testkit::moving_conformance!(super::postgres => super::sqlite);
}

mod sqlite_to_postgres {
    caudal_testkit::moving_conformance!(super::sqlite => super::pooled);
}

mod postgres_to_dynamodb {
    caudal_testkit::moving_conformance!(super::postgres => super::table);
}

mod dynamodb_to_postgres {
    caudal_testkit::moving_conformance!(super::table => super::postgres);
}

mod dynamodb_to_dynamodb {
    caudal_testkit::moving_conformance!(super::table => super::table);
}

/// From PostgreSQL over SQLite and a DynamoDB of several shards into another PostgreSQL: as at the start, row for row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_goes_through_all_stores() {
    let (first, second, last) = (postgres().await, sqlite().await, postgres().await);
    let third = dynamodb::Dynamo::open(5).await;
    let (_, ids) = filled(&first).await;
    second.lane("default").await;
    third.lane("default").await;
    last.lane("default").await;
    pause(&first).await;
    pause(&second).await;
    pause(&third).await;
    pause(&last).await;
    for done in [
        moved(&first, &second).await.unwrap(),
        moved(&second, &third).await.unwrap(),
        moved(&third, &last).await.unwrap(),
    ] {
        assert_eq!((done.rows, done.copied, done.differences), (13, 13, vec![]));
    }
    assert_same(&first, &last, &ids).await;
    // A difference is seen over all the stores between, too.
    let done = moved(&first, &last).await.unwrap();
    assert_eq!((done.copied, done.renewed, done.differences), (0, 0, vec![]));
}
