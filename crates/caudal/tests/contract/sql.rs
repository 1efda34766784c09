//! SQL of analysts: the same on both stores where their SQL is the same, and reading only.

use std::sync::Arc;
use std::time::Duration;

use caudal_testkit::api::{Api, Reply};
use caudal_testkit::chance::Chance;
use serde_json::{Value, json};

use crate::Context;
use crate::read::fill;

/// Percent-encodes whatever a statement holds.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

async fn ask(cx: &Context, statement: &str) -> Reply {
    cx.api.get(&format!("/v1/sql?q={}", encoded(statement))).await.unwrap()
}

async fn rows(cx: &Context, statement: &str) -> Value {
    let reply = ask(cx, statement).await;
    assert_eq!(reply.status, 200, "{statement}: {}", reply.text());
    reply.json()
}

pub(crate) async fn answers(cx: Arc<Context>) {
    fill(&cx).await;
    for (statement, expected) in [
        ("select count(*) as c from \"table\"", json!([{ "c": 5 }])),
        (
            "select n, amount, customer, paid, at, day, ref from \"table\" where n = 2",
            json!([{ "n": 2, "amount": -2, "customer": "Bo_b", "paid": false, "at": "2024-02-01T12:00:00.5+00:00", "day": null,
                "ref": "018f9c00-0000-7000-8000-000000000001" }]),
        ),
        ("select n from \"table\" where n > 3 order by n desc;", json!([{ "n": 5 }, { "n": 4 }])),
        ("with x as (select n from \"table\") select max(n) as m from x -- the last", json!([{ "m": 5 }])),
        ("values (1, 'a'), (2, 'b')", json!([{ "column1": 1, "column2": "a" }, { "column1": 2, "column2": "b" }])),
        ("select 'a;b' as a, '--' as b, '' as c", json!([{ "a": "a;b", "b": "--", "c": "" }])),
        ("select n from \"table\" where n < 0", json!([])),
        ("select null as a, 1.5 as b", json!([{ "a": null, "b": 1.5 }])),
        ("select count(*) as dead from _dead_letters where reason = 'none'", json!([{ "dead": 0 }])),
    ] {
        assert_eq!(rows(&cx, statement).await, expected, "{statement}");
    }
    // Two columns of one name are both there.
    let same = ask(&cx, "select 1 as a, 2 as a").await;
    assert_eq!(same.text(), "[{\"a\":1,\"a\":2}]");
    let posted = cx.api.post("/v1/sql", &[("content-type", "application/sql")], "select 1 as a").await.unwrap();
    assert_eq!((posted.status, posted.json()), (200, json!([{ "a": 1 }])), "{}", posted.text());
    let limited =
        cx.api.get(&format!("/v1/sql?limit=2&q={}", encoded("select n from \"table\" order by n"))).await.unwrap();
    assert_eq!((limited.status, limited.json()), (200, json!([{ "n": 1 }, { "n": 2 }])));
    assert_eq!(limited.header("caudal-truncated"), "", "the caller asked for no more");
}

pub(crate) async fn forms(cx: Arc<Context>) {
    fill(&cx).await;
    let path = format!("/v1/sql?q={}", encoded("select n, customer, amount from \"table\" order by n limit 3"));
    let csv = cx.api.send("GET", &path, &[("accept", "text/csv")], "").await.unwrap();
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(csv.text(), "n,customer,amount\r\n1,Ana,1.5\r\n2,Bo_b,-2\r\n3,\"Ana, \"\"2\"\"\",\r\n");
    let lines = cx.api.send("GET", &path, &[("accept", "application/x-ndjson")], "").await.unwrap();
    assert_eq!(lines.text().lines().count(), 3);
    let head = cx.api.send("HEAD", &path, &[], "").await.unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    let refused = cx.api.send("GET", &path, &[("accept", "image/png")], "").await.unwrap();
    assert_eq!((refused.status, refused.code().as_str()), (406, "not_acceptable"));
    if !cx.on_postgres {
        let mixed = rows(&cx, "select 1 as a, x'01ff' as b union all select 'x', null").await;
        assert_eq!(mixed, json!([{ "a": 1, "b": "\\x01ff" }, { "a": "x", "b": null }]));
        return;
    }
    let every = "select 1::int2 a, 2::int4 b, 0.1::float4 c, 12345678901234567890.123456789::numeric d, 'NaN'::numeric e, \
                 array[1, 2] f, row(1, 'x') g, '{\"b\": 1, \"a\": 2, \"b\": 3}'::json h, '{\"b\":1}'::jsonb i, '1 day'::interval j, \
                 '10.0.0.1'::inet k, '2024-01-01 10:00'::timestamp l, '\\x01ff'::bytea m, 'a'::char(3) n, '12:30'::time o, \
                 null::date p, 'infinity'::timestamptz::text q, 'regular'::name r, int4range(1, 3) s, '<a/>'::xml t";
    let text = ask(&cx, every).await.text();
    assert_eq!(
        text,
        "[{\"a\":1,\"b\":2,\"c\":0.1,\"d\":12345678901234567890.123456789,\"e\":\"NaN\",\"f\":[1,2],\
         \"g\":{\"f1\":1,\"f2\":\"x\"},\"h\":{\"b\": 1, \"a\": 2, \"b\": 3},\"i\":{\"b\": 1},\"j\":\"1 day\",\"k\":\"10.0.0.1\",\
         \"l\":\"2024-01-01T10:00:00\",\"m\":\"\\\\x01ff\",\"n\":\"a\",\"o\":\"12:30:00\",\"p\":null,\"q\":\"infinity\",\
         \"r\":\"regular\",\"s\":\"[1,3)\",\"t\":\"<a/>\"}]"
    );
    let infinite = ask(&cx, "select 'infinity'::timestamptz").await;
    assert_eq!((infinite.status, infinite.code().as_str()), (400, "bad_sql"), "{}", infinite.text());
}

pub(crate) async fn mistakes(cx: Arc<Context>) {
    fill(&cx).await;
    for (statement, position) in [
        ("select nope from \"table\"", Some(8)),
        ("select n\nfrom nowhere", if cx.on_postgres { Some(15) } else { None }),
        ("selec 1", Some(1)),
        ("select 'ñ', nope from \"table\"", Some(13)),
        ("select", None),
        ("", None),
        ("   ", None),
        ("select 1 where $1 = 1", None),
    ] {
        let reply = ask(&cx, statement).await;
        // `select` alone is a statement without columns for PostgreSQL.
        assert!(matches!(reply.status, 400 | 403), "{statement}: {} {}", reply.status, reply.text());
        assert_eq!(reply.header("content-type"), "application/problem+json");
        if let Some(position) = position {
            assert_eq!(reply.json()["position"], position, "{statement}: {}", reply.text());
        }
    }
    let late = ask(&cx, "select 1 / (n - 3) from \"table\"").await;
    if cx.on_postgres {
        assert_eq!((late.status, late.json()["sqlstate"].as_str()), (400, Some("22012")), "{}", late.text());
    }
    let sql = [("content-type", "application/sql")];
    for (path, headers, body, status, code) in [
        ("/v1/sql", &[][..], "select 1", 415, "unsupported_media_type"),
        ("/v1/sql?q=select+1", &sql[..], "select 1", 400, "bad_sql"),
        ("/v1/sql?limit=x", &sql[..], "select 1", 400, "bad_filter"),
        ("/v1/sql?lmit=1", &sql[..], "select 1", 400, "bad_sql"),
        ("/v1/sql", &sql[..], "select '\0'", 400, "bad_sql"),
    ] {
        let reply = cx.api.post(path, headers, body).await.unwrap();
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{path} {body}: {}", reply.text());
    }
    let not_text = cx.api.post("/v1/sql", &sql, vec![b'\'', 0xff, b'\'']).await.unwrap();
    assert_eq!((not_text.status, not_text.code().as_str()), (400, "bad_sql"));
    // On a connection of its own, which the server closes: it does not read what it refused.
    let other = Api::new(cx.api.url.clone()).unwrap();
    let long = other.post("/v1/sql", &sql, format!("select '{}'", "x".repeat(70_000))).await.unwrap();
    assert_eq!((long.status, long.code().as_str()), (413, "body_too_large"));
    for path in ["/v1/sql?q=select+1&q=select+2", "/v1/sql", "/v1/sql?q=%zz"] {
        assert_eq!(cx.api.get(path).await.unwrap().status, 400, "{path}");
    }
}

/// Statements that would do more than read; each with what must not have happened checked afterwards.
const ATTEMPTS: &[&str] = &[
    "drop table \"table\"",
    "delete from \"table\"",
    "update \"table\" set n = 0",
    "insert into \"table\" (_id) values ('x')",
    "create table stolen (a text)",
    "create temp table stolen (a text)",
    "create view stolen as select 1",
    "alter table \"table\" add column stolen text",
    "select 1; drop table \"table\"",
    "select 1; select 2",
    "select 1;;drop table \"table\"",
    "select 1; -- \ndrop table \"table\"",
    "select 1) as q; drop table \"table\"; --",
    "select 1) as q(c0); drop table \"table\"; --",
    "select 1\n) as q(c0); commit; drop table \"table\"; select * from (select 1",
    "commit; drop table \"table\"",
    "commit",
    "rollback",
    "begin",
    "end",
    "savepoint a",
    "release a",
    "with x as (delete from \"table\" returning n) select * from x",
    "with x as (insert into \"table\" (_id) values ('x') returning n) select * from x",
    "explain select 1",
    "explain analyze delete from \"table\"",
    "vacuum",
    "analyze",
    "reindex",
    "select load_extension('/tmp/evil')",
    "select writefile('/tmp/evil', 'x')",
    "select readfile('/etc/passwd')",
];

const ON_POSTGRES: &[&str] = &[
    "truncate \"table\"",
    "select * into stolen from \"table\"",
    "select * into temp stolen from \"table\"",
    "select * from \"table\" for update",
    "select * from \"table\" for share",
    "copy \"table\" to '/tmp/stolen'",
    "copy \"table\" to program 'id'",
    "copy (select 1) to stdout",
    "do $$ begin delete from \"table\"; end $$",
    "prepare p as select 1",
    "execute p",
    "declare c cursor for select 1",
    "fetch all from c",
    "listen a",
    "notify a",
    "lock \"table\"",
    "set role postgres",
    "reset role",
    "set statement_timeout = 0",
    "show all",
    "set session authorization postgres",
    "set transaction read write",
    "call x()",
    "discard all",
    "checkpoint",
    "grant all on \"table\" to public",
    "comment on table \"table\" is 'x'",
    "select set_config('role', 'postgres', true)",
    "select pg_catalog.set_config('transaction_read_only', 'off', true)",
    "select \"set_config\"('statement_timeout', '0', false)",
    "select SET_CONFIG/**/('statement_timeout', '0', false)",
    "select U&\"set\\005fconfig\"('role', 'x', true)",
    "select e'\\'', set_config('role', 'x', true), '\\''",
    "select E'a'\n'\\'', set_config('role', 'x', true), ''",
    "select $a$ $b$ $a$, pg_sleep(0)",
    "select ('/etc/passwd'::text).pg_read_file",
    "select pg_sleep(0)",
    "select * from pg_sleep(0)",
    "select pg_sleep_for('0 s')",
    "select pg_read_file('/etc/passwd')",
    "select pg_read_binary_file('/etc/passwd')",
    "select pg_ls_dir('/')",
    "select pg_stat_file('/etc/passwd')",
    "select lo_import('/etc/passwd')",
    "select lo_export(1, '/tmp/x')",
    "select lo_create(0)",
    "select lo_unlink(1)",
    "select nextval('stolen')",
    "select setval('stolen', 1)",
    "select pg_advisory_lock(1)",
    "select pg_try_advisory_lock(1)",
    "select pg_advisory_unlock_all()",
    "select pg_terminate_backend(1)",
    "select pg_cancel_backend(1)",
    "select pg_notify('a', 'b')",
    "select pg_reload_conf()",
    "select pg_switch_wal()",
    "select pg_export_snapshot()",
    "select pg_logical_emit_message(false, 'a', 'b')",
    "select query_to_xml('select set_config(''role'', ''x'', true)', true, true, '')",
    "select cursor_to_xml('c', 1, true, true, '')",
    "select ts_stat('select set_config(''role'', ''x'', true)')",
    "select dblink('dbname=postgres', 'drop table \"table\"')",
    "select * from crosstab('select set_config(''role'', ''x'', true), 1, 1') as t(a text, b text)",
    "select stolen_function()",
];

const ON_SQLITE: &[&str] = &[
    "attach database '/tmp/evil.db' as evil",
    "detach main",
    "pragma query_only = off",
    "pragma writable_schema = on",
    "pragma table_info('table')",
    "select * from pragma_table_info('table')",
    "select * from pragma_database_list",
    "select * from dbstat",
    "select * from sqlite_dbpage",
    "select fts3_tokenizer('simple')",
    "select changes()",
    "select last_insert_rowid()",
    "create virtual table stolen using fts5(a)",
    "insert into sqlite_master values (1, 2, 3, 4, 5)",
    "update sqlite_master set sql = ''",
    "select edit('x')",
];

pub(crate) async fn only_reads(cx: Arc<Context>) {
    fill(&cx).await;
    if let Some(database) = &cx.database {
        // What extensions bring along, and a function that writes.
        for sql in [
            "create extension if not exists dblink",
            "create extension if not exists tablefunc",
            "create or replace function stolen_function() returns int language plpgsql as \
             $$ begin delete from \"table\"; return 1; end $$",
        ] {
            caudal_testkit::postgres::execute(database, sql).await.unwrap();
        }
    }
    let own = if cx.on_postgres { ON_POSTGRES } else { ON_SQLITE };
    for attempt in ATTEMPTS.iter().chain(own) {
        let reply = ask(&cx, attempt).await;
        assert!(matches!(reply.status, 400 | 403), "{attempt}: {} {}", reply.status, reply.text());
        assert!(matches!(reply.code().as_str(), "bad_sql" | "sql_forbidden"), "{attempt}: {}", reply.text());
    }
    assert_eq!(cx.count("table", "").await, 5);
    // The names stand in strings and comments without being meant.
    let harmless = "select 'pg_sleep' as a, $$set_config$$ as b /* nextval('x') */ -- lo_import";
    if cx.on_postgres {
        assert_eq!(rows(&cx, harmless).await, json!([{ "a": "pg_sleep", "b": "set_config" }]));
    }
}

/// What the guard takes for text and the server for code would be a hiding place for a function.
pub(crate) async fn hidden_names(cx: Arc<Context>) {
    const PIECES: &[&str] = &[
        "'", "'", "''", "\"", "\"\"", "$$", "$$", "$a$", "$a$", "$b$", "/*", "/*", "*/", "*/", "--", "\n", "\n", "\r",
        "E'", "e'", "b'", "U&'", "u&\"", "\\", "\\\\", "x", "1", "a$", "1$", "$1", " ", ", ", ", 1", "||", "::text",
        "ñ", ";",
    ];
    let Some(database) = &cx.database else { return };
    let marker = "create or replace function marker_reached() returns text language plpgsql as \
                  $$ begin raise exception 'the marker was reached'; end $$";
    caudal_testkit::postgres::execute(database, marker).await.unwrap();
    let (mut chance, seed) = Chance::from_environment();
    println!("CAUDAL_SEED={seed}");
    let (mut ran, mut caught) = (0, 0);
    for _ in 0..600 {
        let mut some = |n| (0..chance.between(0, n)).map(|_| *chance.pick(PIECES)).collect::<String>();
        let statement = format!("select 1, {}marker_reached(){}", some(6), some(6));
        let reply = ask(&cx, &statement).await;
        assert!(matches!(reply.status, 200 | 400 | 403), "{statement:?}: {} {}", reply.status, reply.text());
        assert!(!reply.text().contains("the marker was reached"), "{statement:?}");
        ran += u32::from(reply.status == 200);
        caught += u32::from(reply.text().contains("marker_reached is a function"));
    }
    assert!(ran > 0 && caught > 0, "{ran} ran, {caught} were caught: the texts do not test what they should");
}

pub(crate) async fn in_the_path(cx: Arc<Context>) {
    fill(&cx).await;
    let name = match &cx.database {
        Some(url) => url.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned(),
        None => "caudal".to_owned(),
    };
    let plain = cx.api.get(&format!("/{name}/q=select+n+from+%22table%22+where+n=2")).await.unwrap();
    assert_eq!((plain.status, plain.json()), (200, json!([{ "n": 2 }])), "{}", plain.text());
    let divided = cx.api.get(&format!("/{name}/q=select%206/2%20as%20a,%20'x?y'%20as%20b")).await.unwrap();
    assert_eq!((divided.status, divided.json()), (200, json!([{ "a": 3, "b": "x?y" }])), "{}", divided.text());
    let dropped = cx.api.get(&format!("/{name}/q=drop%20table%20%22table%22")).await.unwrap();
    assert_eq!((dropped.status, dropped.code().as_str()), (403, "sql_forbidden"));
    let other = cx.api.get("/nowhere/q=select+1").await.unwrap();
    assert_eq!((other.status, other.code().as_str()), (404, "unknown_database"));
    let posted = cx.api.post(&format!("/{name}/q=select+1"), &[], "").await.unwrap();
    assert_eq!((posted.status, posted.header("allow")), (405, "GET,HEAD"));
    assert_eq!(cx.api.get(&format!("/{name}/r=select+1")).await.unwrap().status, 404);
    assert_eq!(cx.count("table", "").await, 5);
}

pub(crate) async fn by_command(cx: Arc<Context>) {
    fill(&cx).await;
    let statement = "select n, customer from \"table\" where n < 3 order by n";
    let run = |args: &[&str]| {
        let output = cx.server.run(args).unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), out.into_owned(), err.into_owned())
    };
    let (code, out, err) = run(&["query", "--sql", statement]);
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "{\"n\":1,\"customer\":\"Ana\"}\n{\"n\":2,\"customer\":\"Bo_b\"}\n"),
        "{err}"
    );
    let (code, out, err) = run(&["query", "--format", "table", "--sql", statement]);
    assert_eq!((code, out.lines().count()), (Some(0), 4), "{out}{err}");
    let (code, _, err) = run(&["query", "--sql", "select nope from \"table\""]);
    assert_eq!(code, Some(4), "{err}");
    assert!(err.contains("400 bad_sql") && err.contains("at character 8"), "{err}");
    let (code, _, _) = run(&["query", "table", "--sql", statement]);
    assert_eq!(code, Some(2));
}

/// Results without end are streamed as they come, and stopped when nobody reads them.
pub(crate) async fn without_end(cx: Arc<Context>) {
    let endless = match cx.on_postgres {
        true => "select generate_series(1, 1000000000) as x, repeat('-', 1000) as y",
        false => {
            "with recursive s(x) as (values (1) union all select x + 1 from s) \
             select x, '----------------------------------------------------------' from s"
        }
    };
    let url = format!("{}/v1/sql?q={}", cx.api.url, encoded(endless));
    // As many as may run at a time, and again: places are given back.
    for _ in 0..3 {
        let mut answers = Vec::new();
        for _ in 0..4 {
            let mut answer = reqwest::get(&url).await.unwrap();
            assert_eq!(answer.status(), 200);
            let piece = tokio::time::timeout(Duration::from_secs(30), answer.chunk()).await.unwrap().unwrap().unwrap();
            assert!(piece.starts_with(b"[{\"x\":1,"), "{piece:?}");
            answers.push(answer);
        }
        drop(answers);
    }
    let after = ask(&cx, "select 1 as a").await;
    assert_eq!((after.status, after.json()), (200, json!([{ "a": 1 }])), "{}", after.text());
}
