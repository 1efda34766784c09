//! SQL of analysts by its settings: who may send it, as whom it runs, and within what bounds.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::time::Duration;

use caudal_testkit::api::{Api, Reply};
use caudal_testkit::postgres::{client, database, execute};
use caudal_testkit::server::Server;
use serde_json::json;

const SQLITE: &str = "sqlite:caudal.db";
const NEVER: &str = "with recursive s(x) as (values (1) union all select x + 1 from s) select count(*) from s";

fn server(store: &str) -> Server {
    Server::new(env!("CARGO_BIN_EXE_caudal")).unwrap().store(store).broker("none:").topic("notes", None, "")
}

async fn ask(api: &Api, statement: &str) -> Reply {
    let sql = [("content-type", "application/sql")];
    api.post("/v1/sql", &sql, statement.to_owned()).await.unwrap()
}

async fn stores() -> [String; 2] {
    [SQLITE.to_owned(), database().await.unwrap()]
}

#[tokio::test]
async fn off_when_it_is_switched_off_and_where_others_can_reach() {
    let mut server = server(SQLITE).env("CAUDAL_SQL__ENABLED", "false");
    server.start().await.unwrap();
    for path in ["/v1/sql?q=select+1", "/caudal/q=select+1"] {
        let reply = server.api().get(path).await.unwrap();
        assert_eq!((reply.status, reply.code().as_str()), (403, "sql_disabled"), "{path}: {}", reply.text());
    }
}

/// A superuser's statements could read every password hash, so where others can reach the server they do not run.
#[tokio::test]
async fn where_others_can_reach_no_statement_runs_as_a_superuser() {
    let store = database().await.unwrap();
    let port = caudal_testkit::server::free_port().unwrap();
    let reader = format!("reader_{}", uuid::Uuid::now_v7().simple());
    execute(&store, &format!("create role {reader}")).await.unwrap();
    let mut server = server(&store)
        .env("CAUDAL_HTTP__LISTEN", format!("0.0.0.0:{port}"))
        .env("CAUDAL_HTTP__ALLOW_ANYONE_WITHOUT_A_KEY", "true");
    let api = Api::new(format!("http://127.0.0.1:{port}")).unwrap();
    for (enabled, role, status, code) in [
        (None, None, 403, "sql_disabled"),
        (Some("true"), None, 403, "sql_forbidden"),
        (Some("true"), Some(reader.as_str()), 200, ""),
    ] {
        for (name, value) in [("CAUDAL_SQL__ENABLED", enabled), ("CAUDAL_SQL__ROLE", role)] {
            if let Some(value) = value {
                server.set_env(name, value);
            }
        }
        server.spawn().unwrap();
        let begun = std::time::Instant::now();
        while api.get("/readyz").await.map_or(0, |reply| reply.status) != 200 {
            assert!(begun.elapsed() < Duration::from_secs(30), "{}", server.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let reply = ask(&api, "select current_user::text as u").await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{role:?}: {}", reply.text());
        server.kill().unwrap();
    }
    execute(&store, &format!("drop role {reader}")).await.unwrap();
}

#[tokio::test]
async fn statements_run_as_their_role_and_cannot_leave_it() {
    let store = database().await.unwrap();
    let reader = format!("reader_{}", uuid::Uuid::now_v7().simple());
    execute(&store, &format!("create role {reader}; create table secret as select 'deep' as word")).await.unwrap();
    let mut server = server(&store).env("CAUDAL_SQL__ROLE", &reader);
    server.start().await.unwrap();
    let api = server.api();
    let user = ask(&api, "select current_user::text as u").await;
    assert_eq!(user.json(), json!([{ "u": reader }]), "{}", user.text());
    let refused = ask(&api, "select word from secret").await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "sql_forbidden"), "{}", refused.text());
    let body = refused.json();
    assert_eq!(body["sqlstate"], "42501");
    assert!(body["hint"].as_str().unwrap().contains(&reader), "{body}");
    for way_out in [
        "select set_config('role', 'none', true), word from secret",
        "select word from secret, (select set_config('role', 'none', true)) x",
        "reset role",
        "set role none",
        "select rolpassword from pg_authid",
        "select * from query_to_xml('select word from secret', true, true, '')",
    ] {
        let reply = ask(&api, way_out).await;
        assert_eq!(reply.status, 403, "{way_out}: {}", reply.text());
        assert!(!reply.text().contains("deep"), "{way_out}: {}", reply.text());
    }
    execute(&store, &format!("grant select on secret to {reader}")).await.unwrap();
    assert_eq!(ask(&api, "select word from secret").await.json(), json!([{ "word": "deep" }]));
    // The rows of topics go on being stored by the store's own user.
    assert_eq!(api.publish("notes", &[], "{\"a\": 1}").await.unwrap().status, 201);
    drop(server);
    execute(&store, &format!("drop table secret; drop owned by {reader}; drop role {reader}")).await.unwrap();
}

/// Whoever runs them: what signs cursors is nobody's to read.
#[tokio::test]
async fn statements_do_not_read_secrets() {
    for store in stores().await {
        let mut server = server(&store);
        server.start().await.unwrap();
        let api = server.api();
        let everywhere = [
            "select secret from _secrets",
            "select s.* from \"_secrets\" as s",
            "with s as (select * from _SECRETS) select count(*) from s",
            "select 1 where exists (select 1 from _secrets)",
        ];
        let by_name = [
            "select table_to_xml('_sec' || 'rets', true, true, '')",
            "select schema_to_xml('public', true, true, '')",
            "select database_to_xml_and_xmlschema(true, true, '')",
            "select query_to_xml('select * from _secrets', true, true, '')",
        ];
        for statement in everywhere.iter().chain(by_name.iter().filter(|_| store != SQLITE)) {
            let reply = ask(&api, statement).await;
            assert_eq!((reply.status, reply.code().as_str()), (403, "sql_forbidden"), "{statement}: {}", reply.text());
        }
    }
}

#[tokio::test]
async fn a_role_that_is_not_there_is_the_operators_fault() {
    let store = database().await.unwrap();
    let mut server = server(&store).env("CAUDAL_SQL__ROLE", "nobody\"; drop table notes; --");
    server.start().await.unwrap();
    let reply = ask(&server.api(), "select 1").await;
    assert_eq!((reply.status, reply.code().as_str()), (500, "internal"), "{}", reply.text());
    assert!(server.log().contains("sql.role"), "{}", server.log());
    assert_eq!(server.api().get("/rest/v1/notes").await.unwrap().status, 200);
}

#[tokio::test]
async fn what_takes_too_long_ends() {
    for store in stores().await {
        let on_postgres = store != SQLITE;
        let mut server = server(&store).env("CAUDAL_SQL__STATEMENT_TIMEOUT_MS", "500");
        server.start().await.unwrap();
        let api = server.api();
        for statement in [NEVER, "select 1 as a"] {
            let reply = ask(&api, statement).await;
            let expected = if statement == NEVER { (504, "timeout") } else { (200, "") };
            assert_eq!((reply.status, reply.code().as_str()), expected, "{store}: {}", reply.text());
        }
        // In the middle of an answer: it breaks off, which is no end.
        let endless = "with recursive s(x) as (values (1) union all select x + 1 from s) select x from s";
        let sql = reqwest::Client::new().post(format!("{}/v1/sql", api.url)).header("content-type", "application/sql");
        let answer = sql.body(endless).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{store}");
        assert!(answer.bytes().await.is_err(), "{store}: an answer that was cut looked whole");
        if on_postgres {
            let watcher = client(&store).await.unwrap();
            let running = "select count(*) from pg_stat_activity where query like '%recursive s(x)%' \
                           and state = 'active' and pid <> pg_backend_pid()";
            let begun = std::time::Instant::now();
            while watcher.query_one(running, &[]).await.unwrap().get::<_, i64>(0) > 0 {
                assert!(begun.elapsed() < Duration::from_secs(30), "a statement still runs on the server");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

#[tokio::test]
async fn a_cap_is_never_silent() {
    let rows = |count: u64| {
        format!("with recursive s(x) as (values (1) union all select x + 1 from s where x < {count}) select x from s")
    };
    for store in stores().await {
        let mut server = server(&store).env("CAUDAL_SQL__ROWS_MAX", "10").env("CAUDAL_SQL__BYTES_MAX", "100000");
        server.start().await.unwrap();
        let api = server.api();
        for (statement, count, truncated) in [(rows(10), 10, ""), (rows(11), 10, "true"), (rows(500), 10, "true")] {
            let reply = ask(&api, &statement).await;
            assert_eq!(reply.json().as_array().map(Vec::len), Some(count), "{store}: {}", reply.text());
            assert_eq!(reply.header("caudal-truncated"), truncated, "{store} {statement}");
        }
        let asked = api.post("/v1/sql?limit=5", &[("content-type", "text/plain")], rows(500)).await.unwrap();
        assert_eq!((asked.json().as_array().map(Vec::len), asked.header("caudal-truncated")), (Some(5), ""));
        let long = match store != SQLITE {
            true => "select repeat('x', 60000) as a from generate_series(1, 3)".to_owned(),
            false => "select hex(zeroblob(30000)) as a from (values (1), (2), (3))".to_owned(),
        };
        let reply = ask(&api, &long).await;
        assert_eq!(
            (reply.json().as_array().map(Vec::len), reply.header("caudal-truncated")),
            (Some(1), "true"),
            "{store}"
        );
        let huge = match store != SQLITE {
            true => "select repeat('x', 100000000) as a",
            false => "select hex(zeroblob(4000000)), hex(zeroblob(4000000))",
        };
        let reply = ask(&api, huge).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "bad_sql"), "{store}: {:.300}", reply.text());
    }
}
