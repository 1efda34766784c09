//! The read grammar over HTTP on both stores: relations, aggregates, casts, operators, ranges, counts, and what is refused.

use caudal_testkit::api::Api;
use caudal_testkit::postgres;
use caudal_testkit::server::Server;
use serde_json::{Value, json};

use crate::{SQLITE, server};

const LIBRARY: &str = include_str!("library.sql");

async fn over_postgres() -> Server {
    let url = postgres::database().await.unwrap();
    postgres::execute(&url, &format!("create schema library; set search_path = library; {LIBRARY}")).await.unwrap();
    server(&url, "none:").env("CAUDAL_READ__SCHEMAS", "[\"library\"]")
}

async fn over_sqlite() -> Server {
    let server = server(SQLITE, "none:").env("CAUDAL_READ__SCHEMAS", "[\"main\"]");
    std::fs::create_dir_all(server.data_dir()).unwrap();
    let conn = rusqlite::Connection::open(server.data_dir().join("caudal.db")).unwrap();
    conn.execute_batch(LIBRARY).unwrap();
    server
}

async fn each(check: impl AsyncFn(&Api)) {
    for mut server in [over_postgres().await, over_sqlite().await] {
        server.start().await.unwrap();
        check(&server.api()).await;
    }
}

fn escaped(path: &str) -> String {
    path.replace('"', "%22").replace(' ', "%20").replace('<', "%3C").replace('>', "%3E").replace('^', "%5E")
}

async fn rows(api: &Api, path: &str) -> Value {
    let reply = api.get(&escaped(path)).await.unwrap();
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply.json()
}

async fn refused(api: &Api, path: &str, status: u16, code: &str) -> String {
    let reply = api.get(&escaped(path)).await.unwrap();
    let body = reply.json();
    assert_eq!((reply.status, body["caudal_code"].as_str()), (status, Some(code)), "{path}: {body}");
    for key in ["code", "message", "details", "hint"] {
        assert!(body.get(key).is_some(), "{path}: {body}");
    }
    body["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn relations_of_every_kind() {
    each(async |api| {
        let get = async |path: &str| rows(api, path).await;
        // To one, by table and by column; nothing is null.
        assert_eq!(
            get("/rest/v1/book?select=title,writer!writer_id(name)&order=id").await,
            json!([
                { "title": "Rivers", "writer": { "name": "Ana" } }, { "title": "Sand", "writer": { "name": "Ana" } },
                { "title": "Tides", "writer": { "name": "Ben" } }, { "title": "Unsigned", "writer": null },
            ])
        );
        assert_eq!(
            get("/rest/v1/book?select=id,by:writer_id(name),cut:editor_id(name)&id=eq.10").await,
            json!([{ "id": 10, "by": { "name": "Ana" }, "cut": { "name": "Ben" } }])
        );
        // To many, with its own filter, order and limit; none is an empty array.
        assert_eq!(
            get("/rest/v1/writer?select=name,book!writer_id(title)&book.order=title.desc&order=id").await,
            json!([
                { "name": "Ana", "book": [{ "title": "Sand" }, { "title": "Rivers" }] },
                { "name": "Ben", "book": [{ "title": "Tides" }] }, { "name": "Cid", "book": [] },
            ])
        );
        assert_eq!(
            get("/rest/v1/writer?select=name,books:book!writer_id(title)&books.year=gte.2000&books.limit=1&order=id").await,
            json!([
                { "name": "Ana", "books": [{ "title": "Sand" }] }, { "name": "Ben", "books": [{ "title": "Tides" }] },
                { "name": "Cid", "books": [] },
            ])
        );
        // Inner; and with nothing shown of it.
        assert_eq!(
            get("/rest/v1/writer?select=name,book!writer_id!inner(title)&book.year=eq.2005&order=name").await,
            json!([{ "name": "Ana", "book": [{ "title": "Sand" }] }, { "name": "Ben", "book": [{ "title": "Tides" }] }])
        );
        assert_eq!(get("/rest/v1/writer?select=name,book!writer_id()&book=is.null").await, json!([{ "name": "Cid" }]));
        assert_eq!(
            get("/rest/v1/writer?select=name,book!writer_id()&or=(book.not.is.null,name.eq.Cid)&order=name").await,
            json!([{ "name": "Ana" }, { "name": "Ben" }, { "name": "Cid" }])
        );
        assert_eq!(
            get("/rest/v1/writer?select=name,pupils:writer!mentor_id(name)&pupils.order=name&order=id&limit=1").await,
            json!([{ "name": "Ana", "pupils": [{ "name": "Ben" }, { "name": "Cid" }] }])
        );
        // One to one, many to many, and further in.
        assert_eq!(
            get("/rest/v1/book?select=title,cover(colour),tag(word)&order=id&tag.order=word").await,
            json!([
                { "title": "Rivers", "cover": { "colour": "blue" }, "tag": [{ "word": "dry" }, { "word": "water" }] },
                { "title": "Sand", "cover": null, "tag": [{ "word": "dry" }] },
                { "title": "Tides", "cover": { "colour": "grey" }, "tag": [{ "word": "water" }] },
                { "title": "Unsigned", "cover": null, "tag": [] },
            ])
        );
        assert_eq!(
            get("/rest/v1/tag?select=word,book(title,writer!writer_id(name,mentor:mentor_id(name)))&word=eq.water&book.order=id").await,
            json!([{ "word": "water", "book": [
                { "title": "Rivers", "writer": { "name": "Ana", "mentor": null } },
                { "title": "Tides", "writer": { "name": "Ben", "mentor": { "name": "Ana" } } },
            ] }])
        );
        // Spread, of one and of many; the order of a to-one relation.
        assert_eq!(
            get("/rest/v1/book?select=title,...writer!writer_id(author:name)&order=writer(name).desc.nullslast,id").await,
            json!([
                { "title": "Tides", "author": "Ben" }, { "title": "Rivers", "author": "Ana" },
                { "title": "Sand", "author": "Ana" }, { "title": "Unsigned", "author": null },
            ])
        );
        assert_eq!(
            get("/rest/v1/writer?select=name,...book!writer_id(titles:title,years:year)&book.order=id&order=id&limit=1").await,
            json!([{ "name": "Ana", "titles": ["Rivers", "Sand"], "years": [1999, 2005] }])
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregates_casts_and_operators() {
    each(async |api| {
        let get = async |path: &str| rows(api, path).await;
        assert_eq!(
            get("/rest/v1/book?select=year,count(),price.sum(),top:price.max()&order=year.nullsfirst").await,
            json!([
                { "year": null, "count": 1, "sum": 3.25, "top": 3.25 },
                { "year": 1999, "count": 1, "sum": 12.5, "top": 12.5 },
                { "year": 2005, "count": 2, "sum": 8.75, "top": 8.75 },
            ])
        );
        assert_eq!(get("/rest/v1/book?select=count()&year=eq.1").await, json!([{ "count": 0 }]));
        assert_eq!(
            get("/rest/v1/writer?select=name,book!writer_id(count(),year.min())&order=id&limit=1").await,
            json!([{ "name": "Ana", "book": [{ "count": 2, "min": 1999 }] }])
        );
        assert_eq!(
            get("/rest/v1/book?select=price::text,id::text&order=id&limit=2").await,
            json!([{ "price": "12.5", "id": "10" }, { "price": "8.75", "id": "11" }])
        );
        let titles = async |terms: &str| {
            let found = get(&format!("/rest/v1/book?select=title&order=title&{terms}")).await;
            let titles: Vec<String> =
                found.as_array().unwrap().iter().map(|row| row["title"].as_str().unwrap()[..1].to_owned()).collect();
            titles.concat()
        };
        assert_eq!(titles("title=ilike.*I*").await, "RTU");
        assert_eq!(titles("title=like(any).{R*,*s}").await, "RT");
        assert_eq!(titles("title=like(all).{*i*,*s}").await, "RT");
        assert_eq!(titles("title=match.^[RS]").await, "RS");
        assert_eq!(titles("title=imatch.^[rs]").await, "RS");
        assert_eq!(titles("year=isdistinct.2005").await, "RU");
        assert_eq!(titles("id=eq(any).{10,12}").await, "RT");
        assert_eq!(titles("title=in.(\"Sand\",Tides,\"no, not\")").await, "ST");
        assert_eq!(titles("id=in.()").await, "");
        assert_eq!(titles("id=not.in.()").await, "RSTU");
        assert_eq!(titles("or=(year.lt.2000,and(year.eq.2005,price.not.is.null))").await, "RS");
        assert_eq!(titles("not.or=(title.eq.\"Sand\",title.like.R*)").await, "TU");
        assert_eq!(titles("price=gt.5&price=lt.10").await, "S");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_counts() {
    each(async |api| {
        let ask = async |path: &str, headers: &[(&str, &str)]| {
            let reply = api.send("GET", path, headers, "").await.unwrap();
            let header = |name: &str| reply.header(name).to_owned();
            (reply.status, header("content-range"), header("preference-applied"))
        };
        let all = "/rest/v1/book?select=id&order=id";
        assert_eq!(ask(all, &[]).await, (200, "0-3/*".into(), String::new()));
        let exact = ("prefer", "count=exact");
        assert_eq!(ask(all, &[exact]).await, (200, "0-3/4".into(), "count=exact".into()));
        assert_eq!(ask(all, &[exact, ("range", "1-2")]).await, (206, "1-2/4".into(), "count=exact".into()));
        assert_eq!(ask(all, &[("range", "2-")]).await.1, "2-3/*");
        assert_eq!(ask(all, &[("range", "3-1")]).await.0, 416);
        assert_eq!(ask(all, &[("range", "rubbish")]).await.1, "0-3/*");
        let accept = [("accept", "application/vnd.pgrst.array+json;nulls=stripped")];
        let path = "/rest/v1/book?select=id,year,writer!writer_id(name,mentor_id)&id=in.(12,13)&order=id";
        let stripped = api.send("GET", path, &accept, "").await.unwrap().json();
        assert_eq!(
            stripped,
            json!([{ "id": 12, "year": 2005, "writer": { "name": "Ben", "mentor_id": 1 } }, { "id": 13 }])
        );
        assert_eq!(ask("/rest/v1/book?limit=0", &[]).await.1, "*/*");
        assert_eq!(ask("/rest/v1/book?offset=9", &[exact]).await, (416, "*/4".into(), String::new()));
        assert_eq!(ask("/rest/v1/book?offset=4", &[exact]).await.0, 206);
        assert_eq!(ask("/rest/v1/book?limit=-1", &[]).await.0, 416);
        assert_eq!(ask("/rest/v1/book?offset=-1", &[]).await.0, 200);
        assert_eq!(ask(all, &[("prefer", "count=estimated")]).await.1, "0-3/4");
        assert_eq!(ask(all, &[("prefer", "count=planned")]).await.0 / 100, 2);
        assert_ne!(ask("/rest/v1/book?offset=100000", &[("prefer", "count=planned")]).await.0, 416);
        assert_eq!(ask(all, &[("prefer", "handling=strict, speed=high")]).await.0, 400);
        assert_eq!(ask(all, &[("prefer", "handling=lenient, speed=high")]).await.0, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_with_what_there_is() {
    each(async |api| {
        let no = async |path: &str, status: u16, code: &str| refused(api, path, status, code).await;
        assert!(no("/rest/v1/book?select=titel", 400, "unknown_column").await.contains("\"title\""));
        assert!(no("/rest/v1/book?titel=eq.1", 400, "unknown_column").await.contains("\"title\""));
        assert!(no("/rest/v1/book?select=writers(name)", 400, "unknown_relation").await.contains("\"writer\""));
        assert!(no("/rest/v1/book?select=writer(name)", 300, "ambiguous_relation").await.contains("writer!"));
        assert!(no("/rest/v1/writer?select=writer(name)", 300, "ambiguous_relation").await.contains("mentor_id"));
        assert!(no("/rest/v1/book?select=id&cover.colour=eq.blue", 400, "not_embedded").await.contains("cover(*)"));
        no("/rest/v1/book?select=id,cover(colour)&cover=eq.blue", 400, "related_filter").await;
        assert!(no("/rest/v1/book?title=equals.x", 400, "bad_filter").await.contains("imatch"));
        assert!(no("/rest/v1/book?select=title.total()", 400, "bad_filter").await.contains("there are sum"));
        assert!(no("/rest/v1/book?select=title::txt", 400, "bad_filter").await.contains("\"text\""));
        no("/rest/v1/book?select=tag(word)&order=tag(word)", 400, "bad_filter").await;
        no("/rest/v1/book?select=year,count()&order=id", 400, "bad_filter").await;
        for path in [
            "select=(",
            "select=a(",
            "select=title,",
            "or=(",
            "or=()",
            "or=(id.eq.1",
            "order=.desc",
            "id=eq",
            "id=",
            "limit=x",
            "select=cover(colour",
        ] {
            if path != "id=" {
                no(&format!("/rest/v1/book?{path}"), 400, "bad_filter").await;
            }
        }
        let path = format!("/rest/v1/book?select=title{}", "->a".repeat(100));
        no(&path, 400, "bad_filter").await;
        no(&format!("/rest/v1/book?select={}:title", "a".repeat(64)), 400, "bad_filter").await;
        let twice = api.get("/rest/v1/writer?select=name,...book!writer_id(x:title,x:year)").await.unwrap();
        assert!([200, 400].contains(&twice.status), "{}", twice.text());
        let wide = ["tag(word)"; 100].join(",");
        let wide = api.get(&format!("/rest/v1/book?select=id,{wide}")).await.unwrap();
        assert!([200, 400].contains(&wide.status), "{}", wide.text());
        let deep = format!("/rest/v1/book?and={}id.eq.1{}", "(and".repeat(30) + "(", ")".repeat(31));
        no(&deep, 400, "bad_filter").await;
        let many = |count: u32| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let path = format!("/rest/v1/book?id=in.({})", many(1_500));
        assert!(no(&path, 400, "bad_filter").await.contains("1000"));
        assert_eq!(api.get(&format!("/rest/v1/book?id=in.({})", many(10_000))).await.unwrap().status, 414);
        no("/rest/v1/book?title=eq.%00", 400, "bad_filter").await;
        no("/rest/v1/book?title=eq.%zz", 400, "bad_filter").await;
        no("/rest/v1/book?title=match.(", 400, "bad_value").await;
        // Values are values, wherever they stand.
        for odd in ["x'; drop table book; --", "\\", "%25_", "{}", "()", "\"", "$1", "?1"] {
            for place in ["title=eq.", "title=like.", "title=not.ilike.", "title=in.("] {
                let end = if place.ends_with('(') { ")" } else { "" };
                let odd = odd.replace(' ', "%20").replace('"', "%22");
                let reply = api.get(&format!("/rest/v1/book?{place}{odd}{end}")).await.unwrap();
                assert!([200, 400].contains(&reply.status), "{place}{odd}: {}", reply.text());
            }
            let alias = escaped(&format!(
                "/rest/v1/book?select=\"{}\":title,tag(\"{0}\":word)&limit=1",
                odd.replace(['"', '\\'], "'")
            ));
            let reply = api.get(&alias).await.unwrap();
            assert_eq!(reply.status, 200, "{alias}: {}", reply.text());
        }
        assert_eq!(rows(api, "/rest/v1/book?select=count()").await, json!([{ "count": 4 }]));
    })
    .await;
}
