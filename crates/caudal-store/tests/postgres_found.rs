//! What PostgreSQL alone has of tables that Caudal did not make: its types, its views, its permissions, its `NOTIFY`.

use std::sync::Arc;
use std::time::Duration;

use caudal_core::error::StoreError;
use caudal_core::json;
use caudal_core::plan::{Comparison, Filter, OrderBy, ReadPlan, Scalar, Selected};
use caudal_core::ports::{Catalogue, Read};
use caudal_core::relations::Relations;
use caudal_core::row::{RowBatch, field};
use caudal_core::schema::{ColumnType, Table};
use caudal_store::postgres::{PostgresConfig, PostgresStore};
use caudal_testkit::postgres::{client, database, execute};
use futures_util::{StreamExt, TryStreamExt};

struct Fixture {
    url: String,
    store: PostgresStore,
}

async fn open(sql: &str) -> Fixture {
    let url = database().await.expect("a database");
    execute(&url, sql).await.expect("the schema");
    let store = PostgresStore::connect(PostgresConfig::new(&url, "test")).await.expect("connect");
    store.migrate().await.expect("migrate");
    Fixture { url, store }
}

impl Fixture {
    async fn relations(&self, schemas: &[&str]) -> Relations {
        let schemas: Vec<String> = schemas.iter().map(|s| (*s).to_owned()).collect();
        self.store.relations(&schemas).await.expect("relations")
    }

    async fn table(&self, schema: &str, name: &str) -> Arc<Table> {
        self.relations(&[schema]).await.table(None, name).unwrap_or_else(|| panic!("{schema}.{name}")).clone()
    }

    async fn read(&self, plan: ReadPlan) -> Result<RowBatch, StoreError> {
        let batches: Vec<RowBatch> = self.store.read(plan).await?.try_collect().await?;
        let mut all = RowBatch::default();
        batches.iter().for_each(|batch| all.extend(batch));
        Ok(all)
    }

    /// What SQL itself makes of a table's rows, one text a row.
    async fn asked(&self, sql: &str) -> Vec<Option<String>> {
        let client = client(&self.url).await.expect("a client");
        client.batch_execute("set timezone = 'UTC'").await.expect("UTC");
        let rows = client.query(sql, &[]).await.expect(sql);
        rows.iter().map(|row| row.get(0)).collect()
    }
}

/// As JSON, in the spelling that answers have.
fn spelled(ty: ColumnType, bytes: &[u8]) -> String {
    match ty {
        ColumnType::Int8 => field::int8(bytes).to_string(),
        ColumnType::Float8 => field::float8(bytes).to_string(),
        ColumnType::Bool => field::boolean(bytes).to_string(),
        ColumnType::Jsonb => field::json(bytes).to_owned(),
        ColumnType::Text => {
            let mut out = Vec::new();
            json::write_string(&mut out, field::text(bytes));
            String::from_utf8(out).expect("UTF-8")
        }
        ColumnType::Timestamptz => format!("\"{}\"", field::timestamp(bytes)),
        ColumnType::Date => format!("\"{}\"", field::date(bytes)),
        ColumnType::Uuid => format!("\"{}\"", field::uuid(bytes)),
    }
}

const EVERY_TYPE: &str = include_str!("every_type.sql");

/// Every column of every row is the JSON that `to_json` makes of it, and, without JSON, the text that `::text` makes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_reads_as_postgresql_writes_it() {
    let fx = open(EVERY_TYPE).await;
    let table = fx.table("types", "every type").await;
    assert!(table.columns.len() > 60, "{} columns", table.columns.len());
    let text = Arc::new(table.as_text());
    let mut plan = ReadPlan::all(table.clone());
    plan.order.push(OrderBy::column(0));
    let as_json = fx.read(plan.clone()).await.expect("rows");
    let as_text = fx.read(ReadPlan { table: text.clone(), ..plan }).await.expect("rows");
    for (at, column) in table.columns.iter().enumerate() {
        let name = column.name.replace('"', "\"\"");
        let order = "from types.\"every type\" order by id";
        let expected = fx.asked(&format!("select to_json(\"{name}\")::text {order}")).await;
        let texts = fx.asked(&format!("select \"{name}\"::text {order}")).await;
        assert!(expected.len() >= 3 && expected.len() == as_json.len());
        for row in 0..expected.len() {
            let what = format!("{} ({}) in row {row}", column.name, column.type_name());
            let found = as_json.row(row).nth(at).flatten().map(|bytes| spelled(column.ty, bytes));
            match (&found, &expected[row]) {
                // The same digits and the same spaces; a string's escapes may be spelled otherwise.
                (Some(found), Some(expected)) if column.ty == ColumnType::Jsonb => {
                    assert_eq!(found, expected, "{what}")
                }
                (Some(found), Some(expected)) => assert!(json::same(found, expected), "{what}: {found} {expected}"),
                (found, expected) => assert_eq!(found, expected, "{what}"),
            }
            if column.declared.is_some() {
                assert_eq!(text.columns[at].ty, ColumnType::Text);
                let found = as_text.row(row).nth(at).flatten().map(field::text);
                assert_eq!(found, texts[row].as_deref(), "{what}");
            }
        }
    }
}

/// Each value found by itself, written as PostgreSQL writes it, where its type has equality.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn literals_are_read_by_postgresql() {
    let fx = open(EVERY_TYPE).await;
    let table = fx.table("types", "every type").await;
    let mut compared = 0;
    for (at, column) in table.columns.iter().enumerate().filter(|(_, column)| column.declared.is_some()) {
        let name = column.name.replace('"', "\"\"");
        let values = fx.asked(&format!("select \"{name}\"::text from types.\"every type\" where id = 1")).await;
        let value = Scalar::of(column, values[0].as_deref().expect("the first row has no nulls")).expect("a value");
        for filter in [
            Filter::Compare { field: at.into(), op: Comparison::Eq, value: value.clone() },
            Filter::In { field: at.into(), values: vec![value.clone(), value.clone()] },
        ] {
            let mut plan = ReadPlan::all(table.clone());
            plan.select = vec![Selected::column(0, "id")];
            plan.filter = vec![filter];
            match fx.read(plan).await {
                Ok(rows) => {
                    compared += 1;
                    let ids: Vec<i64> =
                        rows.rows().filter_map(|mut row| row.next().flatten().map(field::int8)).collect();
                    assert!(ids.contains(&1), "{} {value:?} {ids:?}", column.name);
                }
                Err(StoreError::Asked(_)) => {
                    // No equality, or only that of a type under it, or no literals.
                    let without = ["json", "point", "xml", "polygon", "reg", "txid_snapshot", "types.pair"];
                    assert!(
                        without.iter().any(|ty| column.type_name().contains(ty)),
                        "{} {value:?}",
                        column.type_name()
                    );
                }
                Err(error) => panic!("{}: {error}", column.name),
            }
        }
    }
    assert!(compared > 80, "{compared}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_asked_is_the_callers_fault() {
    let fx = open(EVERY_TYPE).await;
    let table = fx.table("types", "every type").await;
    let at = |name: &str| table.column(name).unwrap_or_else(|| panic!("no column {name}"));
    for (name, value) in [
        ("int4", "99999999999"),
        ("int2", "x"),
        ("numeric", "1,5"),
        ("mood", "gloomy"),
        ("inet", "1.2.3"),
        ("timestamp", "2024-02-30"),
        ("ints", "{1,"),
        ("json", "{}"),
        ("xml", "<a/>"),
    ] {
        let mut plan = ReadPlan::all(table.clone());
        let value = Scalar::of(&table.columns[at(name)], value).expect("a literal");
        plan.filter.push(Filter::Compare { field: at(name).into(), op: Comparison::Eq, value });
        assert!(matches!(fx.store.count(&plan).await, Err(StoreError::Asked(_))), "{name}");
        assert!(matches!(fx.read(plan).await, Err(StoreError::Asked(_))), "{name}");
    }
    for unordered in ["json", "xml", "xid"] {
        let mut plan = ReadPlan::all(table.clone());
        plan.order.push(OrderBy::column(at(unordered)));
        let refused = fx.read(plan).await.map(|rows| rows.len());
        assert!(matches!(refused, Err(StoreError::Asked(_))), "{unordered} {refused:?}");
    }
}

/// An order is the type's own, not that of the text or the JSON in which its values travel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_is_by_the_type() {
    let fx = open(
        "create table public.o (id int primary key, \"interval\" interval, \"numeric\" numeric, inet inet, mood text);
         insert into o values (1, '10 days', 9, '10.0.0.9', 'a'), (2, '9 days', 10, '9.0.0.1', 'b'), (3, '1 year', 1e3, '10.0.0.10', 'c')",
    )
    .await;
    let table = fx.table("public", "o").await;
    for (name, expected) in [("interval", [2, 1, 3]), ("numeric", [1, 2, 3]), ("inet", [2, 1, 3])] {
        let mut plan = ReadPlan::all(table.clone());
        let column = table.column(name).expect("a column");
        plan.order.push(OrderBy::column(column));
        for plan in [plan.clone(), ReadPlan { table: Arc::new(table.as_text()), ..plan }] {
            let ty = plan.table.columns[0].ty;
            let rows = fx.read(plan).await.expect("rows");
            let ids = rows.rows().filter_map(|mut row| row.next().flatten().map(|id| spelled(ty, id)));
            let ids: Vec<String> = ids.map(|id| id.trim_matches('"').to_owned()).collect();
            assert_eq!(ids, expected.map(|id: i64| id.to_string()), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds_of_tables_and_permissions() {
    let fx = open(
        "create schema shown; create schema hidden; create table public.flights (x int);
         create table shown.plain (id int primary key, secret text, open text);
         create table shown.closed (id int);
         create table shown.parted (id int, day date, primary key (id, day)) partition by range (day);
         create table shown.parted_2024 partition of shown.parted for values from ('2024-01-01') to ('2025-01-01');
         create materialized view shown.kept as select id from shown.plain;
         create view shown.view as select * from shown.parted;
         create table hidden.far (id int);
         create sequence shown.numbers; create index on shown.plain (open); create type shown.pair as (a int, b int);",
    )
    .await;
    let role = format!("reader_{}", uuid::Uuid::now_v7().simple());
    execute(
        &fx.url,
        &format!(
            "create role {role} login; grant usage on schema shown to {role}; grant select (id, open) on shown.plain to {role};
             grant select on shown.parted, shown.kept, shown.view to {role}; grant select on hidden.far to {role};"
        ),
    )
    .await
    .expect("grants");
    let names = |relations: &Relations| relations.tables().map(|t| t.name.clone()).collect::<Vec<_>>();
    let all = fx.relations(&["shown"]).await;
    assert_eq!(names(&all), ["closed", "kept", "parted", "plain", "view"]);
    assert_eq!(all.table(None, "parted").expect("parted").key, [0, 1]);
    assert_eq!(all.home(), "public");

    let url = fx.url.replace("postgres://postgres@", &format!("postgres://{role}@"));
    let reader = PostgresStore::connect(PostgresConfig::new(&url, "reader")).await.expect("connect");
    let granted = reader.relations(&["shown".into(), "hidden".into()]).await.expect("relations");
    assert_eq!(names(&granted), ["kept", "parted", "plain", "view"], "a schema that may not be used hides its tables");
    let plain = granted.table(None, "plain").expect("plain").clone();
    assert_eq!(plain.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["id", "open"]);
    assert_eq!(plain.key, [0]);
    assert_eq!(reader.count(&ReadPlan::all(plain)).await.expect("count"), 0);
    // Tables of another owner may be served to a user who has nothing of its own.
    let before = reader.relations_mark(&["shown".into()]).await.expect("mark");
    for upkeep in ["analyze", "vacuum shown.plain"] {
        execute(&fx.url, upkeep).await.expect(upkeep);
    }
    assert_eq!(reader.relations_mark(&["shown".into()]).await.expect("mark"), before);
    execute(&fx.url, &format!("grant select on shown.closed to {role}")).await.expect("grant");
    assert_ne!(reader.relations_mark(&["shown".into()]).await.expect("mark"), before, "a grant is a change");
    execute(&fx.url, &format!("drop owned by {role}; drop role {role}")).await.expect("drop");
}

/// As PostgREST's: views over private tables, of views, with columns renamed, computed, doubled and nested.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_have_the_keys_of_what_they_show() {
    let fx = open(
        "create schema api; create schema private;
         create table private.author (id int primary key, name text);
         create table private.book (id int primary key, author_id int references private.author, editor_id int
           references private.author, first_of int unique references private.author);
         create view api.authors as select id, name from private.author;
         create view api.books as select id, author_id as writer, editor_id + 0 as editor_id from private.book;
         create view api.recent as select writer, id from api.books where id > 10;
         create view api.firsts as select b.first_of, a.name from private.book b join private.author a on a.id = b.author_id;
         create view api.nested as select x.author_id from (select max(author_id) as author_id from private.book) x;
         create view api.twice as select author_id as a, author_id as b from private.book;",
    )
    .await;
    let relations = fx.relations(&["api"]).await;
    let authors = relations.table(None, "authors").expect("authors");
    let mut to: Vec<String> = relations
        .keys_to(authors)
        .map(|k| format!("{}.{} {}", k.from.table, k.from.columns.join(","), k.one_to_one))
        .collect();
    to.sort();
    assert_eq!(to, ["books.writer false", "firsts.first_of true", "recent.writer false"]);
    assert!(relations.tables().all(|t| t.schema.as_deref() == Some("api")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notification_or_a_read_of_what_has_changed_says_so() {
    let fx = open("create table public.t (a int, b int)").await;
    let table = fx.table("public", "t").await;
    let mut told = fx.store.relations_changed();
    let within = Duration::from_secs(30);
    // Until the listener listens, nobody hears: repeat as an operator would.
    let heard = async {
        loop {
            execute(&fx.url, "notify pgrst, 'reload schema'").await.expect("notify");
            if tokio::time::timeout(Duration::from_millis(200), told.next()).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(within, heard).await.expect("a notification is heard");
    while tokio::time::timeout(Duration::from_millis(300), told.next()).await.is_ok() {}
    execute(&fx.url, "notify pgrst, 'reload config'; notify other, 'reload schema'").await.expect("notify");
    assert!(tokio::time::timeout(Duration::from_millis(300), told.next()).await.is_err(), "not for us");

    execute(&fx.url, "alter table t drop column b").await.expect("alter");
    assert!(matches!(fx.read(ReadPlan::all(table)).await, Err(StoreError::Unavailable(_))));
    tokio::time::timeout(within, told.next()).await.expect("the read told");
    // A listener whose connection ends comes back, and counts what it may have missed as word.
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen%'
               and datname = current_database()";
    execute(&fx.url, cut).await.expect("terminate");
    tokio::time::timeout(within, told.next()).await.expect("listening again");
}
