//! Tables that Caudal did not make: keys of several columns, types of the database's own, orders by a related row.

use caudal_testkit::api::Api;
use caudal_testkit::postgres;
use caudal_testkit::server::Server;

use super::{SQLITE, rows, serving, walk};

/// In SQL that PostgreSQL and SQLite both speak.
const BOTH: &str = "
  create table maker (id integer primary key, name varchar(20), rank numeric(30, 10));
  create table part (code varchar(10) not null, maker_id integer not null references maker (id), price numeric(30, 15),
    weight real, born timestamp, note text, primary key (maker_id, code));
  create table keyless (a integer);
  insert into maker values (1, 'zoo', 1.5), (2, null, 123456789012345678.0000000001), (3, 'Ab', null);
";

fn filled(rows: u32) -> String {
    let mut sql = BOTH.to_owned();
    for n in 0..rows {
        let pick = |every: u32, values: &[&str]| match n.is_multiple_of(every) {
            true => "null".to_owned(),
            false => values[(n / 2) as usize % values.len()].to_owned(),
        };
        let price = pick(4, &["0.1", "123456789012345.000000000000001", "-7", "0.10"]);
        let weight = pick(5, &["0.1", "1e30", "-3", "16777217"]);
        let born = pick(3, &["'2024-01-01 00:00:00.000001'", "'2024-01-01 00:00:00'"]);
        let note = pick(6, &["'it''s'", "''", "'é'", "'12'"]);
        sql.push_str(&format!(
            "insert into part values ('c{}', {}, {price}, {weight}, {born}, {note});",
            n / 3,
            n % 3 + 1
        ));
    }
    sql
}

const ORDERS: [&str; 14] = [
    "price",
    "price.desc",
    "price.desc.nullslast,weight",
    "weight.asc.nullsfirst",
    "weight.desc,price",
    "born",
    "born.desc,note.nullsfirst",
    "note",
    "note.desc.nullslast,born.desc",
    "code,maker_id.desc",
    "maker(name)",
    "maker(name).desc,price",
    "maker(rank).nullsfirst,code.desc",
    "maker(rank).desc.nullslast,note",
];

async fn compare(api: &Api, orders: &[&str]) {
    for order in orders {
        let path = format!("/rest/v1/part?select=code,maker_id,price,maker!inner(name)&order={order}");
        let whole = rows(&api.get(&path).await.unwrap());
        let (paged, pages) = walk(api, &format!("{path}&limit=7")).await;
        assert_eq!(paged, whole, "{order}");
        assert_eq!((whole.len(), pages), (60, 9), "{order}");
    }
    let filtered =
        "/rest/v1/maker?select=id,part(code)&part.order=code.desc&part.limit=2&part.price=gt.0&order=name.desc";
    let whole = rows(&api.get(filtered).await.unwrap());
    let (paged, _) = walk(api, &format!("{filtered}&limit=1")).await;
    assert_eq!((paged.len(), &paged), (3, &whole));
}

#[tokio::test]
async fn on_postgres() {
    let url = postgres::database().await.unwrap();
    let more = "
      create type mood as enum ('sad', 'ok', 'happy');
      create table odd (id integer[] primary key, mood mood, span interval, raw bytea, net inet, days daterange, f4 float4, bits varbit);
      insert into odd select array[n % 7, n], (enum_range(null::mood))[n % 4], make_interval(mins => n * 7 % 50, secs => 0.000001 * n),
        decode(lpad(to_hex(n % 9), 2, '0'), 'hex'), ('10.0.0.' || n % 5)::inet, daterange(current_date, current_date + n % 6),
        (n % 11)::float4 / 3, (n % 5)::bit(4)::varbit from generate_series(1, 60) n;
      create schema kept; alter table maker set schema kept; alter table part set schema kept; alter table odd set schema kept;
      alter table keyless set schema kept; alter type mood set schema kept; insert into kept.keyless select generate_series(1, 9)";
    postgres::execute(&url, &format!("{} {more}", filled(60))).await.unwrap();
    let (_server, api) = serving(&url, &[("CAUDAL_READ__SCHEMAS", "[\"kept\"]")]).await;
    compare(&api, &ORDERS).await;
    for order in
        ["id.desc", "mood,raw.desc", "span.desc", "raw", "net.desc,bits", "days", "f4", "f4.desc,mood.desc.nullslast"]
    {
        let path = format!("/rest/v1/odd?select=id&order={order}");
        let whole = rows(&api.get(&path).await.unwrap());
        let (paged, pages) = walk(&api, &format!("{path}&limit=7")).await;
        assert_eq!((paged, pages), (whole, 9), "{order}");
    }
    let keyless = api.get("/rest/v1/keyless?order=a&limit=3").await.unwrap();
    assert_eq!((rows(&keyless).len(), keyless.header("link")), (3, ""), "without a key no page is certain");
}

/// Values of every kind in one column, as SQLite lets them be.
#[tokio::test]
async fn on_sqlite() {
    let mut server = Server::new(env!("CARGO_BIN_EXE_caudal")).unwrap().store(SQLITE).broker("none:");
    server.set_env("CAUDAL_READ__SCHEMAS", "[\"main\"]");
    std::fs::create_dir_all(server.data_dir()).unwrap();
    let conn = rusqlite::Connection::open(server.data_dir().join("caudal.db")).unwrap();
    let more = "create table mixed (k primary key, v, w numeric, x text collate nocase);
      insert into mixed values (1, 1, 1, 'a'), (1.5, '1', '1', 'A'), ('1', x'31', 'one', 'b'), (x'01', 1.0, x'00', 'B'), ('a', null, null, null),
        (9007199254740993, 9007199254740992, 0.1, ''), (null, 'é', '0.10', 'é'), (null, -1e300, 1e300, 'É'), (x'', x'', '', '1');";
    conn.execute_batch(&format!("{} {more}", filled(60))).unwrap();
    server.start().await.unwrap();
    let api = server.api();
    compare(&api, &ORDERS).await;
    // A null in a primary key, which only SQLite lets be, is no key of a row: those that have one are told apart by the rest.
    for order in ["k", "k.desc.nullslast", "v,k", "v.desc", "w.nullsfirst", "x,v", "x.desc,w"] {
        let path = format!("/rest/v1/mixed?select=k,v,w,x&order={order}&or=(k.not.is.null,v.eq.-1e300)");
        let whole = rows(&api.get(&path).await.unwrap());
        let (paged, pages) = walk(&api, &format!("{path}&limit=2")).await;
        assert_eq!((paged, pages), (whole, 4), "{order}");
    }
}
