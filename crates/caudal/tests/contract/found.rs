//! Tables that Caudal did not make: served read-only, and kept up with while they change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use caudal_testkit::api::Api;
use caudal_testkit::postgres;
use caudal_testkit::server::Server;
use serde_json::{Value, json};

use crate::{ORDERS, SQLITE, server};

const SHOP: &str = include_str!("shop.sql");
/// What only PostgreSQL has, beside the shop.
const MORE: &str = include_str!("shop_postgres.sql");

enum Database {
    Postgres(String),
    Sqlite(std::path::PathBuf),
}

impl Database {
    async fn execute(&self, sql: &str) {
        match self {
            Self::Postgres(url) => postgres::execute(url, sql).await.unwrap(),
            Self::Sqlite(path) => {
                let conn = rusqlite::Connection::open(path).unwrap();
                conn.busy_timeout(Duration::from_secs(10)).unwrap();
                conn.execute_batch(sql).unwrap();
            }
        }
    }
}

async fn over_postgres() -> (Server, Database) {
    let url = postgres::database().await.unwrap();
    let database = Database::Postgres(url.clone());
    database.execute(&format!("create schema shop; set search_path = shop; {SHOP} {MORE}")).await;
    let server = server(&url, "none:").env("CAUDAL_READ__SCHEMAS", "[\"shop\", \"public\", \"other\"]");
    (server, database)
}

async fn over_sqlite() -> (Server, Database) {
    let server = server(SQLITE, "none:").env("CAUDAL_READ__SCHEMAS", "[\"main\"]");
    std::fs::create_dir_all(server.data_dir()).unwrap();
    let database = Database::Sqlite(server.data_dir().join("caudal.db"));
    database.execute(SHOP).await;
    (server, database)
}

async fn get(api: &Api, path: &str) -> Value {
    let path = path.replace('"', "%22").replace(' ', "%20");
    let reply = api.get(&path).await.unwrap();
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply.json()
}

/// Waits until a path answers as expected: a change is seen without a restart, some time later.
async fn until(api: &Api, path: &str, expected: impl Fn(u16, &Value) -> bool) -> Duration {
    let begun = Instant::now();
    loop {
        let reply = api.get(path).await.unwrap();
        if expected(reply.status, &reply.json()) {
            return begun.elapsed();
        }
        assert!(begun.elapsed().as_secs() < 60, "{path}: {} {}", reply.status, reply.text());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn is_served(api: &Api) {
    assert_eq!(
        get(api, "/rest/v1/artist?order=id").await,
        json!([{ "id": 1, "name": "Zoo" }, { "id": 2, "name": "AC/DC" }, { "id": 3, "name": "Ñu \"x\"" }])
    );
    assert_eq!(
        get(api, "/rest/v1/track?select=id,seconds&album_id=eq.10&order=seconds.desc.nullslast").await,
        json!([{ "id": 101, "seconds": 300 }, { "id": 100, "seconds": 200 }, { "id": 102, "seconds": null }])
    );
    assert_eq!(get(api, "/rest/v1/track?select=id&seconds=in.(200,300)&order=id").await.as_array().unwrap().len(), 2);
    assert_eq!(get(api, "/rest/v1/long track?select=name").await, json!([{ "name": "two" }]));
    assert_eq!(get(api, "/rest/v1/Mixed Case?select=Löwe:\"Löwe\"&\"a,b\"=eq.1").await, json!([{ "Löwe": "x" }]));
    let csv =
        api.send("GET", "/rest/v1/album?order=id&select=title,price", &[("accept", "text/csv")], "").await.unwrap();
    assert_eq!(csv.text(), "title,price\r\nFirst,9.5\r\n\"Second, \"\"live\"\"\",\r\n");
    let count = [("prefer", "count=exact")];
    let part = api.send("GET", "/rest/v1/track?limit=1", &count, "").await.unwrap();
    assert_eq!((part.status, part.header("content-range")), (206, "0-0/3"));
}

async fn is_refused(api: &Api) {
    let missing = api.get("/rest/v1/artst").await.unwrap();
    assert_eq!((missing.status, missing.code().as_str()), (404, "unknown_table"));
    assert!(missing.text().contains("did you mean \\\"artist\\\""), "{}", missing.text());
    for own in ["_ledger", "_positions", "_caudal_migrations", "_drift", "pg_class", "sqlite_schema"] {
        assert_eq!(api.get(&format!("/rest/v1/{own}")).await.unwrap().status, 404, "{own}");
    }
    let before = get(api, "/rest/v1/artist?order=id").await;
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let json = [("content-type", "application/json")];
        let refused = api.send(method, "/rest/v1/artist", &json, "{\"id\": 9, \"name\": \"x\"}").await.unwrap();
        assert_eq!((refused.status, refused.code().as_str()), (405, "method_not_allowed"), "{method}");
        assert!(refused.text().contains("read-only"), "{method}: {}", refused.text());
        assert!(refused.header("allow").contains("GET"), "{method}: {:?}", refused.headers);
    }
    assert_eq!(get(api, "/rest/v1/artist?order=id").await, before);
    // A topic's name is the topic's, whatever tables there are.
    assert_eq!(api.publish("orders", &[], "{\"n\": 1}").await.unwrap().status, 201);
    assert_eq!(get(api, "/rest/v1/orders?select=n").await, json!([{ "n": 1 }]));
    // Nobody publishes to a table that was found.
    assert_eq!(api.publish("artist", &[], "{}").await.unwrap().status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_is_served_read_only() {
    for (mut server, _database) in [over_postgres().await, over_sqlite().await] {
        server.start().await.unwrap();
        is_served(&server.api()).await;
        is_refused(&server.api()).await;
    }
}

/// Schemas by `Accept-Profile`, and what is asked of PostgreSQL's own types.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_and_types_of_postgresql() {
    let (mut server, _database) = over_postgres().await;
    server.start().await.unwrap();
    let api = server.api();
    let of = async |schema: &str, path: &str| api.send("GET", path, &[("accept-profile", schema)], "").await.unwrap();
    assert_eq!(of("other", "/rest/v1/artist").await.json(), json!([{ "id": 77, "name": "another" }]));
    assert_eq!(of("shop", "/rest/v1/artist?id=eq.1").await.json(), json!([{ "id": 1, "name": "Zoo" }]));
    assert_eq!(of("other", "/rest/v1/album").await.status, 404);
    // Topics live in public.
    assert_eq!(of("public", "/rest/v1/orders").await.status, 200);
    assert_eq!(of("shop", "/rest/v1/orders").await.status, 404);
    for stray in ["oter", "pg_catalog", "", "shop\"; drop schema shop"] {
        let refused = of(stray, "/rest/v1/artist").await;
        assert_eq!((refused.status, refused.code().as_str()), (406, "unknown_schema"), "{stray}");
        assert_eq!(refused.json()["code"], "PGRST106");
    }

    let kinds = get(&api, "/rest/v1/kinds?order=id").await;
    assert_eq!(
        kinds[0],
        json!({ "id": 1, "mood": "ok", "price": 12.50, "tags": ["a", "b,c"], "at": "2024-02-29T12:00:00.5", "place": { "x": 1, "y": null },
                "within": "[1,5)", "raw": "\\x00ff", "address": "10.0.0.1", "lasting": "01:30:00", "real": 0.1 })
    );
    let text = api.get("/rest/v1/kinds?order=id&select=price,real").await.unwrap().text();
    assert!(text.contains("\"price\":12.50,\"real\":0.1}"), "the digits are PostgreSQL's own: {text}");
    let csv = api.send("GET", "/rest/v1/kinds?order=id&limit=1", &[("accept", "text/csv")], "").await.unwrap().text();
    let line =
        "1,ok,12.50,\"{a,\"\"b,c\"\"}\",2024-02-29 12:00:00.5,\"(1,)\",\"[1,5)\",\\x00ff,10.0.0.1/32,01:30:00,0.1";
    assert_eq!(csv.lines().nth(1), Some(line));
    for (filter, ids) in [
        ("mood=eq.ok", vec![1]),
        ("mood=gt.sad", vec![1]),
        ("price=gte.12.5", vec![1]),
        ("price=in.(12.500,-1)", vec![1, 2]),
        ("tags=eq.{a,\"b,c\"}", vec![1]),
        ("at=lt.2025-01-01", vec![1]),
        ("address=eq.10.0.0.1", vec![1]),
        ("lasting=gt.1 hour", vec![1]),
        ("within=eq.empty", vec![2]),
    ] {
        let rows = get(&api, &format!("/rest/v1/kinds?select=id&order=id&{filter}")).await;
        let found: Vec<i64> = rows.as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect();
        assert_eq!(found, ids, "{filter}");
    }
    for filter in ["mood=eq.gloomy", "price=gt.x", "id=eq.99999999999", "at=eq.yesterdayish"] {
        let refused = api.get(&format!("/rest/v1/kinds?{filter}")).await.unwrap();
        assert_eq!((refused.status, refused.code().as_str()), (400, "bad_value"), "{filter}: {}", refused.text());
    }
}

#[tokio::test]
async fn a_schema_that_is_not_there_is_said_at_the_start() {
    let mut over_postgres =
        server(&postgres::database().await.unwrap(), "none:").env("CAUDAL_READ__SCHEMAS", "[\"shp\"]");
    let error = over_postgres.start().await.unwrap_err().to_string();
    assert!(error.contains("read.schemas names shp"), "{error}");
    let mut over_sqlite = server(SQLITE, "none:").env("CAUDAL_READ__SCHEMAS", "[\"public\"]");
    let error = over_sqlite.start().await.unwrap_err().to_string();
    assert!(error.contains("SQLite has one schema, main"), "{error}");
}

/// Columns come, tables come and go, while eight readers read what stays: none of their requests fails.
async fn changes_are_seen(mut server: Server, database: Database) {
    server.set_env("CAUDAL_READ__POLL_MS", "200");
    server.start().await.unwrap();
    let api = server.api();
    let stop = Arc::new(AtomicBool::new(false));
    let (answers, with_column) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (api, stop) = (server.api(), stop.clone());
            let (answers, with_column) = (answers.clone(), with_column.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let reply = api.get("/rest/v1/artist?order=id").await.unwrap();
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    let rows = reply.json();
                    assert_eq!((rows.as_array().map(Vec::len), &rows[0]["name"]), (Some(3), &json!("Zoo")));
                    answers.fetch_add(1, Ordering::Relaxed);
                    with_column.fetch_add(u64::from(rows[0].get("born").is_some()), Ordering::Relaxed);
                }
            })
        })
        .collect();
    database
        .execute("alter table SCHEMA.artist add column born integer".replace("SCHEMA", schema(&database)).as_str())
        .await;
    until(&api, "/rest/v1/artist?limit=1", |status, rows| status == 200 && rows[0].get("born").is_some()).await;
    database.execute(&"create table SCHEMA.fresh (id integer primary key)".replace("SCHEMA", schema(&database))).await;
    until(&api, "/rest/v1/fresh", |status, rows| status == 200 && rows == &json!([])).await;
    database.execute(&"drop table SCHEMA.fresh".replace("SCHEMA", schema(&database))).await;
    // In between the answer says to come again.
    until(&api, "/rest/v1/fresh", |status, _| {
        assert!(matches!(status, 200 | 503 | 404), "{status}");
        status == 404
    })
    .await;
    // Eight readers have seen both shapes before they end.
    let seen = answers.load(Ordering::Relaxed);
    while answers.load(Ordering::Relaxed) < seen + 50 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    let (answers, with_column) = (answers.load(Ordering::Relaxed), with_column.load(Ordering::Relaxed));
    assert!(with_column > 0 && with_column < answers, "{with_column} of {answers}");
    assert!(!server.log().contains("cannot be read"), "{}", server.log());
}

fn schema(database: &Database) -> &'static str {
    match database {
        Database::Postgres(_) => "shop",
        Database::Sqlite(_) => "main",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_seen_without_a_restart() {
    for (server, database) in [over_postgres().await, over_sqlite().await] {
        changes_are_seen(server, database).await;
    }
}

/// The poll is far away here: who says `NOTIFY` need not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notification_reloads() {
    let (mut server, database) = over_postgres().await;
    server.set_env("CAUDAL_READ__POLL_MS", "3600000");
    server.start().await.unwrap();
    let api = server.api();
    database.execute("create table shop.fresh (id int)").await;
    assert_eq!(api.get("/rest/v1/fresh").await.unwrap().status, 404);
    let begun = Instant::now();
    loop {
        // Again and again, because the listener may have begun after the first.
        database.execute("notify pgrst, 'reload schema'").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        if api.get("/rest/v1/fresh").await.unwrap().status == 200 {
            break;
        }
        assert!(begun.elapsed().as_secs() < 60, "{}", server.log());
    }
    // A read that meets a change tells as well.
    database.execute("alter table shop.fresh rename column id to number; insert into shop.fresh values (1)").await;
    until(&api, "/rest/v1/fresh", |status, rows| status == 200 && rows == &json!([{ "number": 1 }])).await;
}

/// A reload that fails keeps what was there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_reload_keeps_the_old() {
    let (mut server, database) = over_postgres().await;
    server.set_env("CAUDAL_READ__POLL_MS", "200");
    server.start().await.unwrap();
    let api = server.api();
    database.execute("drop schema other cascade").await;
    let begun = Instant::now();
    while !server.log().contains("those of before stay in service") {
        assert!(begun.elapsed().as_secs() < 60, "{}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(get(&api, "/rest/v1/artist?id=eq.1&select=name").await, json!([{ "name": "Zoo" }]));
    database.execute("create schema other; create table other.back (id int)").await;
    let begun = Instant::now();
    let profile = [("accept-profile", "other")];
    while api.send("GET", "/rest/v1/back", &profile, "").await.unwrap().status != 200 {
        assert!(begun.elapsed().as_secs() < 60, "{}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A database with tables of topics that this process does not have: they are found like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_deployments_topics_are_found() {
    let (mut first, _database) = over_sqlite().await;
    first.set_topic("theirs", Some(ORDERS), "");
    first.start().await.unwrap();
    assert_eq!(first.api().publish("theirs", &[], "{\"n\": 5, \"more\": {\"a\": [1]}}").await.unwrap().status, 201);
    let mut second = server(&format!("sqlite:{}", first.data_dir().join("caudal.db").display()), "none:")
        .env("CAUDAL_READ__SCHEMAS", "[\"main\"]");
    second.start().await.unwrap();
    assert_eq!(get(&second.api(), "/rest/v1/theirs?select=n").await, json!([{ "n": 5 }]));
    assert_eq!(second.api().publish("theirs", &[], "{\"n\": 6}").await.unwrap().status, 404);
}
