//! What is no cursor, and what is one of another read.

use super::{SQLITE, lines, next, publish, rows, serving, stores};

const PATH: &str = "/rest/v1/things?select=n&order=word,n&limit=5";

fn cursor(link: &str) -> &str {
    link.split_once("cursor=").unwrap().1
}

#[tokio::test]
async fn only_cursors_that_were_given_out_here_are_taken() {
    let mut verdicts = Vec::new();
    for store in stores().await {
        let (_server, api) = serving(&store, &[]).await;
        publish(&api, lines(0..50)).await;
        let link = next(&api.get(PATH).await.unwrap()).unwrap();
        let good = cursor(&link).to_owned();
        assert_eq!(rows(&api.get(&link).await.unwrap()).len(), 5, "{store}");
        let flipped = |at: usize| {
            let other = if good.as_bytes()[at] == b'A' { "B" } else { "A" };
            format!("{}{other}{}", &good[..at], &good[at + 1..])
        };
        let (middle, end) = (good.len() / 2, good.len() - 1);
        let forged = [
            String::new(),
            "1".into(),
            "eyJuIjo1fQ".into(),
            "..%2F..%2Fetc%2Fpasswd".into(),
            "'%20or%201=1--".into(),
            "%F0%9F%A6%80".into(),
            "A".repeat(6_000),
            good[..middle].into(),
            good[1..].into(),
            format!("{good}A"),
            format!("{good}{good}"),
            good.to_lowercase(),
            flipped(0),
            flipped(5),
            flipped(middle),
            flipped(end - 1),
        ];
        let mut verdict = Vec::new();
        for text in &forged {
            let reply = api.get(&format!("{PATH}&cursor={text}")).await.unwrap();
            verdict.push((reply.status, reply.json()["caudal_code"].as_str().unwrap_or_default().to_owned()));
            assert_eq!(reply.status, 400, "{store} {text:.60}: {}", reply.text());
            if !text.contains('.') {
                assert_eq!(verdict.last().unwrap().1, "bad_cursor", "{store} {text:.60}");
            }
        }
        // One that is good, and another read.
        for other in [
            "/rest/v1/things?select=n&order=word,n.desc",
            "/rest/v1/things?select=n&order=word",
            "/rest/v1/things?select=n&order=n,word",
            "/rest/v1/things?select=n,word&order=word,n",
            "/rest/v1/things?select=n&order=word,n&n=gt.3",
            "/rest/v1/things?select=n",
            "/rest/v1/_dead_letters?order=topic,key",
        ] {
            let sep = if other.contains('?') { '&' } else { '?' };
            let reply = api.get(&format!("{other}{sep}cursor={good}")).await.unwrap();
            let detail = reply.json()["message"].as_str().unwrap_or_default().to_owned();
            assert!(reply.status == 400 && detail.contains("another read"), "{store} {other}: {}", reply.text());
            verdict.push((reply.status, detail));
        }
        let reply = api.get(&format!("/rest/v1/things?select=count()&cursor={good}")).await.unwrap();
        assert_eq!((reply.status, &reply.json()["caudal_code"]), (400, &"bad_cursor".into()), "{store}");
        // The same read, written otherwise.
        let same = format!("/rest/v1/things?limit=9&order=word%2Cn&cursor={good}&select=n");
        assert_eq!(rows(&api.get(&same).await.unwrap()).len(), 9, "{store}");
        // What reads all or changes something takes none.
        let redrive = api.post(&format!("/v1/dead-letters/redrive?cursor={good}"), &[], "").await.unwrap();
        assert_eq!(redrive.status, 400, "{store}: {}", redrive.text());
        verdicts.push(verdict);
    }
    assert_eq!(verdicts[0], verdicts[1], "the same verdicts on both stores");
}

/// Every process of a deployment goes on with what another began, after a restart too; another deployment does not.
#[tokio::test]
async fn cursors_belong_to_the_database() {
    let [_, store] = stores().await;
    let (mut one, api) = serving(&store, &[]).await;
    publish(&api, lines(0..20)).await;
    let link = next(&api.get(PATH).await.unwrap()).unwrap();
    let expected = rows(&api.get(&link).await.unwrap());
    let (_two, other) = serving(&store, &[]).await;
    assert_eq!(rows(&other.get(&link).await.unwrap()), expected, "another process");
    one.stop().await.unwrap();
    one.start().await.unwrap();
    assert_eq!(rows(&one.api().get(&link).await.unwrap()), expected, "after a restart");
    for elsewhere in [SQLITE.to_owned(), caudal_testkit::postgres::database().await.unwrap()] {
        let (_server, api) = serving(&elsewhere, &[]).await;
        let reply = api.get(&link).await.unwrap();
        assert_eq!((reply.status, &reply.json()["caudal_code"]), (400, &"bad_cursor".into()), "{elsewhere}");
    }
}
