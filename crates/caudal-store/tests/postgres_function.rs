//! Functions in PostgreSQL that confirm: what each of their words, mistakes and ends leaves behind, and what is said of it.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::time::Duration;

use caudal_core::confirm::answer::{Answer, Rules, Verdict};
use caudal_core::confirm::ports::{Call, Confirmer};
use caudal_core::confirm::{Fact, Item};
use caudal_core::time::Instant;
use caudal_core::topic::TopicName;
use caudal_store::postgres::{FunctionConfig, FunctionConfirmer};
use caudal_testkit::postgres::{PgBouncer, client, database, execute};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);
const KEY: Uuid = Uuid::from_u128(9);

/// What a team would write: the key is unique, so that a repeat finds what was done and does nothing. `do` in the record is for the test.
const SCHEMA: &str = "
    create schema billing;
    create table billing.paid (key uuid primary key, attempt integer, record jsonb);
    create table billing.late (key uuid references billing.paid deferrable initially deferred);
    create table billing.doomed (key uuid);
    create function billing.die() returns trigger language plpgsql as $$
      begin perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(10); return null; end $$;
    create constraint trigger dies after insert on billing.doomed deferrable initially deferred
      for each row execute function billing.die();
    create function billing.confirm_payment(key uuid, attempt integer, record jsonb,
        out status text, out detail text, out retry_after_seconds integer) language plpgsql as $$
      begin
        insert into billing.paid values (key, attempt, record) on conflict do nothing;
        status := coalesce(record->>'status', 'confirmed');
        detail := coalesce(record->>'detail', 'paid');
        retry_after_seconds := record->>'seconds';
        case record->>'do'
          when 'raise' then raise 'no' using errcode = record->>'code';
          when 'sleep' then perform pg_sleep(30);
          when 'die' then perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(10);
          when 'die_at_commit' then insert into billing.doomed values (key);
          when 'break_at_commit' then insert into billing.late values (gen_random_uuid());
          else null;
        end case;
      end $$;
    create function billing.was_paid(key uuid, attempt integer, record jsonb,
        out status text, out detail text, out retry_after_seconds numeric) language sql as $$
      select case when exists (select from billing.paid p where p.key = $1) then 'confirmed' else 'not_found' end, null::text, null::numeric $$;";

async fn billing() -> String {
    let url = database().await.unwrap();
    execute(&url, SCHEMA).await.unwrap();
    url
}

fn open(config: FunctionConfig) -> FunctionConfirmer {
    FunctionConfirmer::open(&FunctionConfig { probe: Some("billing.was_paid".into()), ..config }).unwrap()
}

fn at(url: &str) -> FunctionConfig {
    FunctionConfig { timeout: PATIENCE, ..FunctionConfig::new(url, "billing.confirm_payment") }
}

async fn asked(confirmer: &FunctionConfirmer, key: Uuid, record: &str, probe: bool) -> Answer {
    let (topic, at) = (TopicName::parse("payments").unwrap(), Instant(0));
    let item = Item {
        id: Uuid::from_u128(1),
        attempts: 0,
        crashes: 0,
        doubt: false,
        since: at,
        first_sent: None,
        claimed: at,
        record: record.to_owned().into(),
    };
    let call = Call { topic: &topic, item: &item, key, attempt: 3 };
    if probe { confirmer.probe(call).await } else { confirmer.call(call).await }
}

async fn called(confirmer: &FunctionConfirmer, record: &str) -> Answer {
    asked(confirmer, KEY, record, false).await
}

async fn effects(url: &str) -> i64 {
    client(url).await.unwrap().query_one("select count(*) from billing.paid", &[]).await.unwrap().get(0)
}

fn verdict(answer: &Answer) -> Verdict {
    Rules::http().judge(answer)
}

#[tokio::test]
async fn each_status_has_its_meaning_and_only_an_answer_that_stands_is_kept() {
    let url = billing().await;
    let confirmer = open(at(&url));
    let wait = Some(Duration::from_secs(9));
    for (record, expected, kept) in [
        (r#"{"status":"retry","seconds":9}"#, Verdict::NotDone { retry_after: wait }, 0),
        (r#"{"status":"Confirmed"}"#, Verdict::Hold, 0),
        (r#"{"status":"not_found"}"#, Verdict::Hold, 0),
        (r#"{"status":"in_progress","seconds":9}"#, Verdict::InProgress { retry_after: wait }, 1),
        (r#"{"status":"doubt"}"#, Verdict::Doubt, 1),
        (r#"{"status":"rejected"}"#, Verdict::Fact(Fact::Rejected), 1),
        (r#"{"amount":12.50,"ñ":"$1'; drop table x"}"#, Verdict::Fact(Fact::Confirmed), 1),
    ] {
        execute(&url, "truncate billing.paid cascade").await.unwrap();
        let said = called(&confirmer, record).await;
        assert_eq!(verdict(&said), expected, "{record}: {said:?}");
        assert_eq!(effects(&url).await, kept, "{record}");
    }
    let row = client(&url).await.unwrap();
    let row = row.query_one("select key, attempt, record::text from billing.paid", &[]).await.unwrap();
    let got = (row.get::<_, Uuid>(0), row.get::<_, i32>(1), row.get::<_, String>(2));
    assert_eq!(got, (KEY, 3, r#"{"ñ": "$1'; drop table x", "amount": 12.50}"#.to_owned()));
}

#[tokio::test]
async fn a_repeat_under_the_same_key_is_answered_and_done_once() {
    let url = billing().await;
    let confirmer = open(at(&url));
    for _ in 0..3 {
        assert_eq!(verdict(&called(&confirmer, "{}").await), Verdict::Fact(Fact::Confirmed));
    }
    assert_eq!(effects(&url).await, 1);
}

/// Rolled back, so not done; with the database's own code for people. Which ones the engine's breaker counts is the difference between the
/// two kinds.
#[tokio::test]
async fn what_fails_before_the_commit_was_not_done() {
    let url = billing().await;
    let confirmer = open(at(&url));
    for (code, is_of_the_record) in [
        ("P0001", true),
        ("23505", true),
        ("22012", true),
        ("40001", true),
        ("40P01", true),
        ("55P03", true),
        ("53200", false),
        ("57014", false),
        ("08006", false),
        ("42P01", false),
        ("42501", false),
    ] {
        let said = called(&confirmer, &format!(r#"{{"do":"raise","code":"{code}"}}"#)).await;
        assert_eq!(verdict(&said), Verdict::NotDone { retry_after: None }, "{code}: {said:?}");
        assert!(said.detail().contains(&format!("{code}: no")), "{said:?}");
        assert_eq!(matches!(said, Answer::Said { .. }), is_of_the_record, "{code}: {said:?}");
    }
    assert_eq!(effects(&url).await, 0);
    assert_eq!(verdict(&called(&confirmer, "{}").await), Verdict::Fact(Fact::Confirmed), "and it works on");
}

/// The server ends it at the call's own time; what it did is rolled back.
#[tokio::test]
async fn out_of_time_nothing_is_left() {
    let url = billing().await;
    let confirmer = open(FunctionConfig { timeout: Duration::from_millis(300), ..at(&url) });
    let said = called(&confirmer, r#"{"do":"sleep"}"#).await;
    assert!(matches!(&said, Answer::NotSent(why) if why.contains("57014")), "{said:?}");
    // A lock that somebody else holds is waited for as long.
    let mut other = client(&url).await.unwrap();
    let transaction = other.transaction().await.unwrap();
    transaction.batch_execute("lock table billing.paid").await.unwrap();
    let said = called(&confirmer, "{}").await;
    assert_eq!(verdict(&said), Verdict::NotDone { retry_after: None }, "{said:?}");
    transaction.rollback().await.unwrap();
    assert_eq!(effects(&url).await, 0);
}

#[tokio::test]
async fn a_backend_killed_before_the_commit_did_nothing() {
    let url = billing().await;
    let confirmer = open(at(&url));
    let said = called(&confirmer, r#"{"do":"die"}"#).await;
    assert!(matches!(said, Answer::NotSent(_)), "{said:?}");
    assert_eq!(effects(&url).await, 0);
    assert_eq!(verdict(&called(&confirmer, "{}").await), Verdict::Fact(Fact::Confirmed), "over another connection");
}

/// The commit was sent and nobody said what became of it. Here it was rolled back; the probe finds that out.
#[tokio::test]
async fn a_backend_killed_at_the_commit_leaves_a_doubt() {
    let url = billing().await;
    let confirmer = open(at(&url));
    let said = called(&confirmer, r#"{"do":"die_at_commit"}"#).await;
    assert!(matches!(said, Answer::Unknown(_)), "{said:?}");
    let said = asked(&confirmer, KEY, "{}", true).await;
    assert_eq!(Rules::http().judge_probe(&said), Verdict::NotFound, "{said:?}");
}

/// The same, but it was committed: the answer to the commit is lost on its way.
#[tokio::test]
async fn a_lost_answer_to_the_commit_leaves_a_doubt_that_a_probe_clears() {
    let url = billing().await;
    let confirmer = open(at(&without_answers_to_commits(&url).await));
    let said = called(&confirmer, "{}").await;
    assert!(matches!(said, Answer::Unknown(_)), "{said:?}");
    assert_eq!(effects(&url).await, 1);
    let said = asked(&confirmer, KEY, "{}", true).await;
    assert_eq!(Rules::http().judge_probe(&said), Verdict::Fact(Fact::Confirmed), "{said:?}");
    assert_eq!(verdict(&called(&open(at(&url)), "{}").await), Verdict::Fact(Fact::Confirmed));
    assert_eq!(effects(&url).await, 1);
}

/// Passes everything on, until a client says `commit`: the server still hears it, the client hears nothing any more.
async fn without_answers_to_commits(url: &str) -> String {
    let (authority, name) = url.rsplit_once('/').unwrap();
    let server = authority.rsplit_once('@').unwrap().1.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(until_commit(client, server));
        }
    });
    format!("postgres://postgres@127.0.0.1:{port}/{name}")
}

async fn until_commit(mut client: TcpStream, mut server: TcpStream) {
    let (mut asked, mut said) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            bytes = client.read(&mut asked) => {
                let Ok(bytes @ 1..) = bytes else { return };
                server.write_all(&asked[..bytes]).await.unwrap();
                if asked[..bytes].windows(7).any(|seven| seven == b"commit\0") {
                    assert_ne!(server.read(&mut said).await.unwrap(), 0);
                    return;
                }
            }
            bytes = server.read(&mut said) => {
                let Ok(bytes @ 1..) = bytes else { return };
                client.write_all(&said[..bytes]).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_constraint_that_fails_at_the_commit_means_not_done() {
    let url = billing().await;
    let confirmer = open(at(&url));
    let said = called(&confirmer, r#"{"do":"break_at_commit"}"#).await;
    assert_eq!(verdict(&said), Verdict::NotDone { retry_after: None }, "{said:?}");
    assert!(said.detail().contains("23503"), "{said:?}");
    assert_eq!(effects(&url).await, 0);
}

#[tokio::test]
async fn functions_that_are_not_as_they_should_be_wait_for_somebody() {
    let url = billing().await;
    let sql = "create function billing.nothing(uuid, integer, jsonb) returns table (status text, detail text, retry_after_seconds integer)
                 language sql as $$ select '', '', 0 where false $$;
               create function billing.other_arguments(uuid, text, jsonb, out status text) language sql as $$ select '' $$;
               create function billing.other_row(uuid, integer, jsonb, out state text, out n integer) language sql as $$ select '', 1 $$;
               create function billing.\"Odd \"\"name\"(uuid, integer, jsonb, out status text, out detail text, out retry_after_seconds float8)
                 language sql as $$ select 'confirmed', null::text, null::float8 $$;
               create table billing.\"function\" (n int)";
    execute(&url, sql).await.unwrap();
    let named = |function: &str| open(FunctionConfig { function: function.into(), ..at(&url) });
    for (function, said_why) in [
        ("billing.no_such", "there is no function billing.no_such(uuid, integer, jsonb)"),
        ("billing.other_arguments", "there is no function"),
        ("billing.function", "there is no function"),
        ("confirm_payment", "there is no function"),
        ("billing.paid; drop schema billing cascade", "there is no function"),
        ("billing.other_row", "42703"),
    ] {
        let said = called(&named(function), "{}").await;
        assert!(matches!(&said, Answer::NotSent(why) if why.contains(said_why)), "{function}: {said:?}");
    }
    let said = called(&named("billing.nothing"), "{}").await;
    assert!(matches!(&said, Answer::Blocked(why) if why.contains("0 rows")), "{said:?}");
    let said = called(&named("billing.Odd \"name"), "{}").await;
    assert_eq!(verdict(&said), Verdict::Fact(Fact::Confirmed), "{said:?}");
    assert_eq!(effects(&url).await, 0);
    for bad in ["", ".", "a.", ".b", "a.b.c", "a\0"] {
        let config = FunctionConfig { function: bad.into(), ..at(&url) };
        let said = FunctionConfirmer::open(&config).expect_err(bad).to_string();
        assert!(said.contains("schema.name"), "{bad:?}: {said}");
    }
}

/// Made, changed and dropped while Caudal runs: each call takes the function that is there.
#[tokio::test]
async fn a_function_may_come_and_go() {
    let url = billing().await;
    let confirmer = open(at(&url));
    assert_eq!(verdict(&called(&confirmer, "{}").await), Verdict::Fact(Fact::Confirmed));
    execute(&url, "alter function billing.confirm_payment rename to gone").await.unwrap();
    for _ in 0..2 {
        assert!(matches!(called(&confirmer, "{}").await, Answer::NotSent(_)));
    }
    execute(&url, "alter function billing.gone rename to confirm_payment").await.unwrap();
    assert_eq!(verdict(&called(&confirmer, "{}").await), Verdict::Fact(Fact::Confirmed));
}

/// A probe that writes is refused, by the database.
#[tokio::test]
async fn a_probe_can_only_read() {
    let url = billing().await;
    let config = FunctionConfig { probe: Some("billing.confirm_payment".into()), ..at(&url) };
    let said = asked(&FunctionConfirmer::open(&config).unwrap(), KEY, "{}", true).await;
    assert!(matches!(&said, Answer::NotSent(why) if why.contains("25006")), "{said:?}");
    assert_eq!(Rules::http().judge_probe(&said), Verdict::Doubt);
    assert_eq!(effects(&url).await, 0);
    let config = FunctionConfig { probe: None, ..at(&url) };
    let said = asked(&FunctionConfirmer::open(&config).unwrap(), KEY, "{}", true).await;
    assert!(matches!(said, Answer::Blocked(_)), "{said:?}");
}

#[tokio::test]
async fn a_server_that_is_away_was_sent_nothing() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = called(&open(at(&format!("postgres://postgres@{closed}/d"))), "{}").await;
    assert!(matches!(said, Answer::NotSent(_)), "{said:?}");
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://postgres@{}/d", silent.local_addr().unwrap());
    let said = called(&open(FunctionConfig { connect_timeout: Duration::from_millis(300), ..at(&url) }), "{}").await;
    assert!(matches!(&said, Answer::NotSent(why) if why.contains("in time")), "{said:?}");
    let said = called(&open(at(&database().await.unwrap())), "{}").await;
    assert!(matches!(&said, Answer::NotSent(why) if why.contains("there is no function")), "{said:?}");
}

/// Many at once over few server connections, each in its own transaction with its own limits; nothing of a session is left behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_behind_pgbouncer_in_transaction_mode() {
    let url = billing().await;
    let (authority, name) = url.rsplit_once('/').unwrap();
    let port = authority.rsplit_once(':').unwrap().1.parse().unwrap();
    let bouncer = PgBouncer::start(port).unwrap();
    let confirmer = open(at(&bouncer.url(name)));
    let calls = (0..200u128).map(|n| {
        let confirmer = &confirmer;
        async move {
            let record = if n % 5 == 0 { r#"{"do":"raise","code":"P0001"}"# } else { "{}" };
            verdict(&asked(confirmer, Uuid::from_u128(n), record, false).await)
        }
    });
    let verdicts = futures_util::future::join_all(calls).await;
    let confirmed = verdicts.iter().filter(|verdict| **verdict == Verdict::Fact(Fact::Confirmed)).count();
    assert_eq!((confirmed, effects(&url).await), (160, 160));
    let said = asked(&confirmer, Uuid::from_u128(1), "{}", true).await;
    assert_eq!(Rules::http().judge_probe(&said), Verdict::Fact(Fact::Confirmed), "{said:?}");
}
