//! Tables that Caudal did not make.

use std::sync::Arc;

use caudal_core::error::StoreError;
use caudal_core::plan::{Comparison, Filter, Is, OrderBy, ReadPlan, Scalar, Selected};
use caudal_core::ports::OnBadRow;
use caudal_core::relations::Relations;
use caudal_core::row::{RowBatch, field};
use caudal_core::schema::{ColumnType, Table};
use futures_util::TryStreamExt;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Fixture, batch, small};

/// In the SQL that both stores speak: keys of one and of two columns, a key that is unique, a self-reference, a view.
const SHOP: &str = "
  create table customer (id integer primary key, name varchar(40) not null, born date, vat text unique);
  create table account (customer_id integer primary key references customer (id), pin text);
  create table product (maker text not null, code integer not null, price numeric(10, 2), primary key (code, maker));
  create table line (
    id integer primary key, customer_id integer references customer (id), maker text, code integer, quantity integer,
    next_line integer references line (id), foreign key (code, maker) references product (code, maker));
  create table note (said text, n integer);
  create view dear as select code, maker, price from product where price > 10;
  insert into customer values (1, 'Ana', '1999-12-31', null), (2, 'Bo', null, 'x');
  insert into product values ('acme', 7, 12.50), ('acme', 8, 0.10), ('zeta', 7, null);
  insert into line values (1, 1, 'acme', 7, 3, null), (2, 1, 'acme', 8, null, 1), (3, null, 'zeta', 7, -1, null);
  insert into note values ('b', 1), ('a', 1), ('it''s \"q\" \\ {x,y}', 2), (null, null);";

async fn shop(fx: &Fixture) -> Relations {
    (fx.execute)(SHOP.into()).await;
    relations(fx).await
}

async fn relations(fx: &Fixture) -> Relations {
    fx.store.relations(&[fx.schema.to_owned()]).await.expect("relations")
}

fn table(relations: &Relations, name: &str) -> Arc<Table> {
    relations.table(None, name).unwrap_or_else(|| panic!("{name} was not found")).clone()
}

/// The plan's rows as JSON, as a client would see them.
async fn rows(fx: &Fixture, plan: ReadPlan) -> Result<Value, StoreError> {
    let columns: Vec<(String, ColumnType)> = plan.select.iter().map(|s| s.name.clone()).zip(plan.types()).collect();
    let batches: Vec<RowBatch> = fx.store.read(plan).await?.try_collect().await?;
    let value = |ty: ColumnType, bytes: &[u8]| match ty {
        ColumnType::Int8 => json!(field::int8(bytes)),
        ColumnType::Text => json!(field::text(bytes)),
        ColumnType::Jsonb => serde_json::from_str(field::json(bytes)).expect("JSON"),
        ColumnType::Date => json!(field::date(bytes).to_string()),
        other => panic!("{other:?} is not in these tables"),
    };
    let row = |row| {
        let values = columns.iter().zip::<caudal_core::row::Row<'_>>(row);
        Value::Object(values.map(|((name, ty), v)| (name.clone(), v.map_or(Value::Null, |v| value(*ty, v)))).collect())
    };
    Ok(batches.iter().flat_map(|batch| batch.rows().map(row).collect::<Vec<_>>()).collect())
}

fn selecting(table: &Arc<Table>, names: &[&str]) -> ReadPlan {
    let select = names.iter().map(|name| Selected::column(column(table, name), *name));
    ReadPlan { select: select.collect(), ..ReadPlan::all(table.clone()) }
}

fn column(table: &Table, name: &str) -> usize {
    table.column(name).unwrap_or_else(|| panic!("{} has no column {name}", table.name))
}

fn ordered(mut plan: ReadPlan, name: &str) -> ReadPlan {
    let column = column(&plan.table, name);
    plan.order.push(OrderBy::column(column));
    plan
}

pub async fn tables_columns_and_keys(fx: Fixture) {
    let relations = shop(&fx).await;
    let names: Vec<&str> = relations.tables().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["account", "customer", "dear", "line", "note", "product"]);
    assert!(relations.tables().all(|t| t.schema.as_deref() == Some(fx.schema) && !t.insertable));
    let customer = table(&relations, "customer");
    let columns: Vec<(&str, bool)> = customer.columns.iter().map(|c| (c.name.as_str(), c.nullable)).collect();
    assert_eq!(columns[1..], [("name", false), ("born", true), ("vat", true)]);
    assert_eq!(customer.columns[1].ty, ColumnType::Text);
    assert!(customer.columns[1].type_name().contains("char"), "{}", customer.columns[1].type_name());
    // In the order of the key, which is not the order of the columns.
    assert_eq!(table(&relations, "product").key, [1, 0]);
    assert_eq!((table(&relations, "note").key.len(), table(&relations, "dear").key.len()), (0, 0));

    let line = table(&relations, "line");
    let mut from: Vec<String> = relations
        .keys_from(&line)
        .map(|k| format!("{}->{}.{} {}", k.from.columns.join(), k.to.table, k.to.columns.join(), k.one_to_one))
        .filter(|text| !text.contains("dear"))
        .collect();
    from.sort();
    assert_eq!(
        from,
        ["code,maker->product.code,maker false", "customer_id->customer.id false", "next_line->line.id false"]
    );
    let mut to: Vec<(&str, bool)> =
        relations.keys_to(&customer).map(|k| (k.from.table.as_str(), k.one_to_one)).collect();
    to.sort_unstable();
    assert_eq!(to, [("account", true), ("line", false)]);
    assert_eq!(relations.keys_to(&line).count(), 1, "a table may refer to itself");
}

trait Join {
    fn join(&self) -> String;
}

impl Join for Vec<String> {
    fn join(&self) -> String {
        self.as_slice().join(",")
    }
}

pub async fn own_tables_are_left_out(fx: Fixture) {
    fx.store.ensure_table(&small("mine", true)).await.expect("table");
    let names: Vec<String> = relations(&fx).await.tables().map(|t| t.name.clone()).collect();
    // A topic's table is one that others may find; whoever has the topic serves it as the topic's.
    assert_eq!(names, ["mine"]);
}

pub async fn odd_names(fx: Fixture) {
    let create =
        "create table \"Sélect \"\"x\"\".y\" (\"group\" text primary key, \"a b\" integer, \"ñ\"\"; drop\" integer,
                    \"UPPER\" integer references \"Sélect \"\"x\"\".y\" (\"a b\"), unique (\"a b\"));
                  insert into \"Sélect \"\"x\"\".y\" values ('k', 1, 2, null);";
    (fx.execute)(create.into()).await;
    let relations = relations(&fx).await;
    let odd = table(&relations, "Sélect \"x\".y");
    assert_eq!(odd.key, [0]);
    let plan = ordered(ReadPlan::all(odd.clone()), "ñ\"; drop");
    assert_eq!(
        rows(&fx, plan).await.expect("rows"),
        json!([{ "group": "k", "a b": 1, "ñ\"; drop": 2, "UPPER": null }])
    );
    let mut plan = ReadPlan::all(odd.clone());
    plan.filter.push(Filter::Compare {
        field: column(&odd, "a b").into(),
        op: Comparison::Gt,
        value: Scalar::of(&odd.columns[column(&odd, "a b")], "0").expect("a value"),
    });
    assert_eq!(fx.store.count(&plan).await.expect("count"), 1);
    let key = relations.keys_from(&odd).next().expect("a key").clone();
    assert_eq!((key.from.columns, key.to.columns, key.one_to_one), (vec!["UPPER".into()], vec!["a b".into()], false));
}

pub async fn values_as_they_are(fx: Fixture) {
    let relations = shop(&fx).await;
    let product = table(&relations, "product");
    let plan = ordered(selecting(&product, &["maker", "code", "price"]), "price");
    let found = rows(&fx, plan.clone()).await.expect("rows");
    assert_eq!(found[0]["code"], 8);
    assert_eq!(found[0]["price"].to_string().parse::<f64>().ok(), Some(0.1));
    assert_eq!(found[1]["price"].to_string().parse::<f64>().ok(), Some(12.5));
    assert_eq!(found[2], json!({ "maker": "zeta", "code": 7, "price": null }));
    // Without JSON in it.
    let text = Arc::new(product.as_text());
    let plan = ordered(selecting(&text, &["price"]), "price");
    let found = rows(&fx, plan).await.expect("rows");
    assert_eq!(found[1]["price"].as_str().and_then(|p| p.parse::<f64>().ok()), Some(12.5), "{found}");
    let note = table(&relations, "note");
    let found = rows(&fx, ordered(selecting(&note, &["said"]), "said")).await.expect("rows");
    let mut said: Vec<Option<&str>> = found.as_array().expect("rows").iter().map(|row| row["said"].as_str()).collect();
    said.sort_unstable();
    assert_eq!(said, [None, Some("a"), Some("b"), Some("it's \"q\" \\ {x,y}")]);
    let dear = table(&relations, "dear");
    assert_eq!(rows(&fx, selecting(&dear, &["maker"])).await.expect("rows"), json!([{ "maker": "acme" }]));
}

pub async fn filters_and_order(fx: Fixture) {
    let relations = shop(&fx).await;
    let line = table(&relations, "line");
    let ids = async |filter: Filter| {
        let mut plan = ordered(selecting(&line, &["id"]), "quantity");
        plan.filter.push(filter);
        let count = fx.store.count(&plan).await.expect("count");
        let found = rows(&fx, plan).await.expect("rows");
        let ids: Vec<i64> = found.as_array().expect("rows").iter().filter_map(|row| row["id"].as_i64()).collect();
        assert_eq!(count, ids.len() as u64);
        ids
    };
    let at = |name: &str| column(&line, name);
    let value = |name: &str, text: &str| Scalar::of(&line.columns[at(name)], text).expect("a value");
    let compare = |name: &str, op, text: &str| Filter::Compare { field: at(name).into(), op, value: value(name, text) };
    assert_eq!(ids(compare("quantity", Comparison::Gt, "-5")).await, [3, 1]);
    assert_eq!(ids(compare("quantity", Comparison::Lte, "-1")).await, [3]);
    assert_eq!(ids(compare("maker", Comparison::Neq, "zeta")).await, [1, 2]);
    assert_eq!(ids(Filter::Is { field: at("quantity").into(), what: Is::Null }).await, [2]);
    let among = |name: &str, texts: &[&str]| Filter::In {
        field: at(name).into(),
        values: texts.iter().map(|text| value(name, text)).collect(),
    };
    assert_eq!(ids(among("quantity", &["3", "-1", "77"])).await, [3, 1]);
    assert_eq!(ids(among("quantity", &[])).await, [0i64; 0]);
    let note = table(&relations, "note");
    let odd = "it's \"q\" \\ {x,y}";
    let values =
        vec![Scalar::of(&note.columns[0], odd).expect("a value"), Scalar::of(&note.columns[0], "").expect("a value")];
    let mut plan = ReadPlan::all(note.clone());
    plan.filter.push(Filter::In { field: 0.into(), values });
    assert_eq!(rows(&fx, plan).await.expect("rows"), json!([{ "said": odd, "n": 2 }]));

    // Rows that sort alike come in the order of the key, so that pages fit together.
    let product = table(&relations, "product");
    let mut pages = Vec::new();
    for offset in 0..3 {
        let mut plan = ordered(selecting(&product, &["maker", "code"]), "code");
        (plan.limit, plan.offset) = (Some(1), offset);
        pages.push(rows(&fx, plan).await.expect("rows")[0].clone());
    }
    let row = |maker: &str, code: i64| json!({ "maker": maker, "code": code });
    assert_eq!(pages, [row("acme", 7), row("zeta", 7), row("acme", 8)]);
}

pub async fn marks_change_with_the_tables_only(fx: Fixture) {
    shop(&fx).await;
    let schemas = [fx.schema.to_owned()];
    let mark = async || fx.store.relations_mark(&schemas).await.expect("a mark");
    let mut before = mark().await;
    for same in ["insert into note values ('c', 3)", "update note set n = 4", "delete from note"] {
        (fx.execute)(same.into()).await;
        assert_eq!(mark().await, before, "{same}");
    }
    for change in [
        "alter table note add column more text",
        "create table another (id integer primary key, note text)",
        "create view latest as select * from note",
        "alter table note rename column more to less",
        "create unique index one_note on another (note)",
        "drop view latest",
        "drop table another",
    ] {
        (fx.execute)(change.into()).await;
        let after = mark().await;
        assert_ne!(after, before, "{change}");
        before = after;
    }
    let relations = relations(&fx).await;
    assert_eq!(table(&relations, "note").columns.last().map(|c| c.name.as_str()), Some("less"));
}

pub async fn unknown_schemas_are_setup(fx: Fixture) {
    let schemas = [fx.schema.to_owned(), "nowhere".to_owned()];
    let refused = fx.store.relations(&schemas).await;
    assert!(matches!(&refused, Err(StoreError::Setup(s)) if s.contains("nowhere")), "{refused:?}");
}

/// Between a change and the next look at the catalogue a read may fail: in a way that says to come again.
pub async fn a_table_that_went_away(fx: Fixture) {
    let relations = shop(&fx).await;
    let note = table(&relations, "note");
    (fx.execute)("alter table note rename column n to m".into()).await;
    let read = rows(&fx, ReadPlan::all(note.clone())).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    (fx.execute)("drop table note".into()).await;
    let read = rows(&fx, ReadPlan::all(note.clone())).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    let count = fx.store.count(&ReadPlan::all(note)).await;
    assert!(matches!(count, Err(StoreError::Unavailable(_))), "{count:?}");
    // The store itself is well.
    let own = small("own", false);
    fx.store.ensure_table(&own).await.expect("table");
    fx.store.append(batch(&own, OnBadRow::Report, &[(Uuid::now_v7(), 1)]).into()).await.expect("append");
}
