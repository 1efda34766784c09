//! Any order: each column, each direction, nulls on either side, several terms, values within JSON; in every encoding, while rows are
//! stored.

use caudal_testkit::chance::Chance;
use serde_json::Value;

use super::{SQLITE, lines, next, publish, rows, serving, stores, walk};

const ROWS: u64 = 240;
const COLUMNS: [&str; 11] =
    ["_id", "n", "amount", "word", "flag", "at", "day", "ref", "more->>k", "_published_at", "_source"];

async fn compare(api: &caudal_testkit::api::Api, order: &str, size: u64, more: &str) {
    let path = format!("/rest/v1/things?select=n,word&order={order}{more}");
    let whole = rows(&api.get(&path).await.unwrap());
    let (paged, pages) = walk(api, &format!("{path}&limit={size}")).await;
    assert_eq!(paged, whole, "order={order}{more} by {size}");
    assert_eq!(pages as u64, (whole.len() as u64).div_ceil(size).max(1), "order={order}{more} by {size}");
}

#[tokio::test]
async fn pages_of_every_order_are_the_whole_answer() {
    let (mut chance, seed) = Chance::from_environment();
    println!("CAUDAL_SEED={seed}");
    for store in stores().await {
        let (_server, api) = serving(&store, &[]).await;
        publish(&api, lines(0..ROWS)).await;
        for column in COLUMNS {
            for direction in ["", ".desc", ".asc.nullsfirst", ".desc.nullslast"] {
                compare(&api, &format!("{column}{direction}"), 17, "").await;
            }
        }
        if store != SQLITE {
            compare(&api, "more.desc", 17, "").await;
            compare(&api, "more->k,flag.desc", 17, "").await;
        }
        for _ in 0..60 {
            let terms = (0..chance.between(1, 5)).map(|_| {
                let direction = if chance.one_in(2) { ".desc" } else { ".asc" };
                let nulls = *chance.pick(&["", ".nullsfirst", ".nullslast"]);
                format!("{}{direction}{nulls}", chance.pick(&COLUMNS))
            });
            let order = terms.collect::<Vec<_>>().join(",");
            let filter = *chance.pick(&["", "&n=gte.100", "&or=(flag.is.true,word.is.null)", "&n=lt.0", "&offset=13"]);
            let size = chance.between(1, 50);
            compare(&api, &order, size, filter).await;
        }
    }
}

#[tokio::test]
async fn a_page_longer_than_memory_ends_where_its_link_begins() {
    let word = "w".repeat(2_000);
    for store in stores().await {
        // Five megabytes in pages of three and of two; then by bytes.
        for (setting, value) in [("CAUDAL_READ__ROWS_MAX", "1500"), ("CAUDAL_READ__BYTES_MAX", "900000")] {
            let store =
                if store == SQLITE { store.clone() } else { caudal_testkit::postgres::database().await.unwrap() };
            let (_server, api) = serving(&store, &[(setting, value)]).await;
            let line = |n: u64| format!("{{\"n\": {n}, \"word\": \"{word}\", \"flag\": {}}}\n", n.is_multiple_of(3));
            publish(&api, (0..2_500).map(line).collect()).await;
            for order in ["", "&order=n", "&order=flag.desc.nullslast,n.desc"] {
                let reply = api.get(&format!("/rest/v1/things?select=n,word{order}")).await.unwrap();
                assert_eq!(reply.header("caudal-truncated"), "true", "{store} {order}");
                let (found, pages) = walk(&api, &format!("/rest/v1/things?select=n,word{order}")).await;
                let mut numbers: Vec<u64> = found.iter().map(|row| row["n"].as_u64().unwrap()).collect();
                numbers.sort_unstable();
                assert_eq!(numbers, (0..2_500).collect::<Vec<_>>(), "{store} {setting} {order}");
                assert!(pages > 1, "{store} {setting} {order}");
                if setting == "CAUDAL_READ__ROWS_MAX" {
                    assert_eq!((pages, rows(&reply).len()), (2, 1500), "{store} {order}");
                }
            }
            // A page of the caller's own that is as long says nothing, and is whole.
            if setting == "CAUDAL_READ__ROWS_MAX" {
                let reply = api.get("/rest/v1/things?select=n,word&order=n&limit=1200").await.unwrap();
                assert_eq!((rows(&reply).len(), next(&reply), reply.header("caudal-truncated")), (1200, None, ""));
            }
        }
    }
}

/// What was there before the first page is on exactly one page, whatever is stored in between.
#[tokio::test]
async fn rows_stored_between_pages_move_nothing() {
    for store in stores().await {
        for order in ["n.desc", "word,n", "amount.desc.nullslast", "_id"] {
            let store =
                if store == SQLITE { store.clone() } else { caudal_testkit::postgres::database().await.unwrap() };
            let (_server, api) = serving(&store, &[("CAUDAL_READ__ROWS_MAX", "20")]).await;
            publish(&api, lines(0..200)).await;
            let (mut path, mut found) = (Some(format!("/rest/v1/things?select=n&order={order}")), Vec::new());
            let mut fresh = 200;
            while let Some(current) = path {
                let reply = api.get(&current).await.unwrap();
                found.extend(rows(&reply).iter().filter_map(|row| row["n"].as_u64()).filter(|n| *n < 200));
                path = next(&reply);
                if fresh < 400 {
                    publish(&api, lines(fresh..fresh + 10)).await;
                    fresh += 10;
                }
            }
            found.sort_unstable();
            assert_eq!(found, (0..200).collect::<Vec<_>>(), "{store} {order}");
        }
    }
}

#[tokio::test]
async fn counts_and_encodings_go_on_with_the_pages() {
    for store in stores().await {
        let (_server, api) = serving(&store, &[("CAUDAL_READ__ROWS_MAX", "100")]).await;
        publish(&api, lines(0..250)).await;
        let counted = [("prefer", "count=exact")];
        let mut path = "/rest/v1/things?select=n&order=n".to_owned();
        for range in ["0-99/250", "100-199/250", "200-249/250"] {
            let reply = api.send("GET", &path, &counted, "").await.unwrap();
            assert_eq!((reply.status, reply.header("content-range")), (206, range), "{store}");
            path = next(&reply).unwrap_or_default();
        }
        assert!(path.is_empty(), "{store}: nothing comes after the last row");
        // The encoding and the size of a page may change on the way.
        let first = next(&api.get("/rest/v1/things?select=n&order=n").await.unwrap()).unwrap();
        let csv = api.send("GET", &format!("{first}&limit=2"), &[("accept", "text/csv")], "").await.unwrap();
        assert_eq!(csv.text(), "n\r\n100\r\n101\r\n", "{store}");
        let second = next(&csv).unwrap();
        let head = api.send("HEAD", &second, &[], "").await.unwrap();
        assert_eq!(next(&head), next(&api.get(&second).await.unwrap()), "{store}");
        let parquet = [("accept", "application/vnd.apache.parquet")];
        let file = api.send("GET", "/rest/v1/things?select=n&order=n&limit=3", &parquet, "").await.unwrap();
        assert!(file.body.starts_with(b"PAR1") && next(&file).is_some(), "{store}");
        // An offset beside a cursor is none; ranges, objects and groups go by what they say themselves.
        assert_eq!(rows(&api.get(&format!("{first}&offset=7&limit=1")).await.unwrap())[0]["n"], 100, "{store}");
        let ranged = api.send("GET", "/rest/v1/things?select=n&order=n", &[("range", "0-9")], "").await.unwrap();
        assert_eq!((rows(&ranged).len(), next(&ranged)), (10, None), "{store}");
        let one = [("accept", "application/vnd.pgrst.object+json")];
        assert_eq!(api.send("GET", "/rest/v1/things?order=n&limit=1", &one, "").await.unwrap().header("link"), "");
        let groups = api.get("/rest/v1/things?select=n,count()&order=n").await.unwrap();
        assert!(next(&groups).unwrap().ends_with("offset=100"), "{store}: {:?}", next(&groups));
        let groups = rows(&api.get(&next(&groups).unwrap()).await.unwrap());
        assert_eq!((&groups[0]["n"], groups.len()), (&Value::from(100), 100), "{store}");
    }
}
