//! A page deep in a table costs what the first one does, by the blocks that PostgreSQL touches for it, where an index serves the order.

use std::sync::Arc;

use caudal_core::plan::{OrderBy, Place, ReadPlan};
use caudal_core::row::RowBatch;
use caudal_core::schema::{Column, ColumnType, Origin, Table};
use caudal_testkit::postgres;
use tokio_postgres::Client;

use super::super::catalogue::create_sql;
use super::super::wire::push_row;
use super::select;

const ROWS: u64 = 100_000;
const PAGE: u64 = 100;
/// For what lies between two leaves of a tree, and for a range that ends short of the page.
const MORE_BLOCKS: u64 = 24;

fn table() -> Arc<Table> {
    let columns = ["n", "m"].map(|name| Column::new(name, ColumnType::Int8, true, Origin::Property));
    Arc::new(Table::of_topic("deep", columns.to_vec(), false))
}

async fn fill(client: &Client, table: &Table) {
    let fill = format!(
        "insert into deep (_id, _source, _published_at, _stored_at, n, m)
           select gen_random_uuid(), 's', now(), timestamptz '2024-01-01' + i * interval '1 ms',
                  case when i % 10 > 0 then i % 4999 end, nullif(i % 50, 7)
             from generate_series(1, {ROWS}) i;
         create index on deep (n, _id);
         create index on deep (_stored_at, _id);
         create index on deep (m, n desc, _id desc);
         vacuum analyze deep"
    );
    for statement in std::iter::once(create_sql(table)).chain(fill.split(';').map(str::to_owned)) {
        client.batch_execute(&statement).await.expect("filled");
    }
}

/// Blocks that a page touches, by its ranges until it is full, and how many of those were asked for.
async fn blocks(client: &Client, ranges: &[ReadPlan]) -> (u64, usize) {
    let (mut left, mut blocks, mut asked) = (PAGE, 0, 0);
    for range in ranges {
        if left == 0 {
            break;
        }
        let sql = select(&ReadPlan { limit: Some(left), ..range.clone() });
        let params: Vec<_> = sql.values.iter().map(|(value, ty)| (value as _, ty.clone())).collect();
        let text = format!("explain (analyze, buffers, timing off, format text) {}", sql.text);
        let lines = client.query_typed(&text, &params).await.expect("explained");
        let lines: Vec<String> = lines.iter().map(|row| row.get(0)).collect();
        let number = |line: &str, key: &str| -> u64 {
            let rest = line.split_once(key).map_or("", |(_, rest)| rest);
            rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
        };
        // The first line of each is the whole statement's.
        let buffers = lines.iter().find(|line| line.trim_start().starts_with("Buffers:")).expect("buffers");
        blocks += number(buffers, "shared hit=") + number(buffers, "read=");
        left -= number(lines[0].split_once("actual").map_or("", |(_, rest)| rest), "rows=").min(left);
        asked += 1;
    }
    (blocks, asked)
}

/// The place of the row before which there are `offset` others.
async fn place(client: &Client, plan: &ReadPlan, offset: u64) -> Place {
    let sql = select(&ReadPlan { select: plan.ordered_values(), offset, limit: Some(1), ..plan.clone() });
    let params: Vec<_> = sql.values.iter().map(|(value, ty)| (value as _, ty.clone())).collect();
    let rows = client.query_typed(&sql.text, &params).await.expect("a row");
    let mut batch = RowBatch::default();
    push_row(&mut batch, &rows[0], 0).expect("values");
    plan.place(batch.row(0))
}

#[tokio::test]
async fn a_deep_page_touches_no_more_than_the_first() {
    let url = postgres::database().await.expect("a database");
    let client = postgres::client(&url).await.expect("a connection");
    let table = table();
    fill(&client, &table).await;
    let column = |name: &str| OrderBy::column(table.column(name).expect("a column"));
    let down = |name: &str| OrderBy { descending: true, nulls_first: true, ..column(name) };
    let orders = [
        vec![column("_id")],
        vec![down("_id")],
        vec![column("n")],
        vec![down("n")],
        vec![down("_stored_at")],
        vec![column("m"), down("n")],
    ];
    for order in orders {
        let plan = ReadPlan { order, limit: Some(PAGE), ..ReadPlan::all(table.clone()) };
        let names: Vec<_> = plan.order.iter().map(|o| (&table.columns[o.field.column].name, o.descending)).collect();
        let (first, _) = blocks(&client, std::slice::from_ref(&plan)).await;
        for part in [1, 5, 9] {
            let offset = ROWS * part / 10;
            let (deep, ranges) = blocks(&client, &plan.after(&place(&client, &plan, offset).await)).await;
            println!("{names:?} after {offset} of {ROWS}: {deep} blocks in {ranges} ranges, the first page {first}");
            assert!(deep <= first + MORE_BLOCKS, "{names:?} after {offset}: {deep} blocks, the first page {first}");
        }
        // What it is compared with: the same page by offset.
        let by_offset = ReadPlan { offset: ROWS * 9 / 10, ..plan.clone() };
        let (counted, _) = blocks(&client, &[by_offset]).await;
        println!("{names:?} by offset: {counted} blocks");
    }
}
