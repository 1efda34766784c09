//! A function's life: it starts quickly, is frozen and thawed, loses its database, and runs out of time.

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use caudal_testkit::lambda::{Invoked, RuntimeApi};
use caudal_testkit::postgres::{self, Postgres};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::http::get;
use crate::{BINARY, Deployed, FILES, OPEN, environment, event};

const TERMINATE: &str = "select pg_terminate_backend(pid)::text from pg_stat_activity
    where datname = current_database() and application_name like 'caudal %'";
const CONNECTIONS: &str = "select count(*)::text from pg_stat_activity
    where datname = current_database() and application_name like 'caudal %'";

/// A message that is new each time.
fn message(n: u32) -> Value {
    let mut event = event!("sqs-fifo");
    event["Records"][0]["messageId"] = format!("m{n}").into();
    event["Records"][0]["body"] = json!({"n": n, "customer": "c"}).to_string().into();
    event
}

#[tokio::test]
async fn dead_connections_are_noticed_and_replaced() {
    let deployed = Deployed::open().await;
    for n in 0..6 {
        assert_eq!(deployed.answer(&message(n)).await, json!({"batchItemFailures": []}));
        let stored = deployed.answer(&event!("function-url")).await;
        assert_eq!(stored["statusCode"], 201, "{stored}");
        for path in ["/rest/v1/payments", "/v1/reconcile", stored["headers"]["location"].as_str().unwrap()] {
            assert_eq!(deployed.answer(&get(path, "")).await["statusCode"], 200, "{path}");
        }
        match n % 3 {
            0 => drop(deployed.column(TERMINATE).await),
            1 => {
                // The server goes while nobody looks, and the function wakes up to it.
                deployed.function.freeze().unwrap();
                assert!(!deployed.column(TERMINATE).await.is_empty());
                tokio::time::sleep(Duration::from_millis(200)).await;
                deployed.function.thaw().unwrap();
            }
            _ => {}
        }
    }
    assert_eq!(deployed.customers("payments").await.len(), 6);
    let connections: u32 = deployed.column(CONNECTIONS).await[0].parse().unwrap();
    assert!(connections <= 8, "{connections} connections for one function");
    deployed.balances().await;
}

#[tokio::test]
async fn a_queue_alone_takes_one_connection() {
    let deployed = Deployed::open().await;
    for n in 0..3 {
        assert_eq!(deployed.answer(&message(n)).await, json!({"batchItemFailures": []}));
    }
    assert_eq!(deployed.column(CONNECTIONS).await, ["1"]);
}

#[tokio::test]
async fn while_the_store_is_away_everything_comes_again() {
    let server = Postgres::start().unwrap();
    let store = postgres::create_database(&server.url()).await.unwrap();
    let mut deployed = Deployed::over(&store, &[OPEN, ("CAUDAL_STORE__PATIENCE_MS", "500")]).await;
    assert_eq!(deployed.answer(&message(0)).await, json!({"batchItemFailures": []}));
    server.stop_immediate().unwrap();
    let away = deployed.function.invoke(&message(1)).await.unwrap();
    assert!(matches!(&away, Invoked::Error(kind, _) if kind == "NothingSettled"), "{away:?}");
    for event in [event!("function-url"), event!("alb"), get("/rest/v1/orders", "")] {
        let answer = deployed.answer(&event).await;
        assert_eq!(answer["statusCode"], 503, "{answer}");
    }
    assert_eq!(deployed.answer(&get("/ping", "")).await["statusCode"], 200);
    // One that starts now gets ready later.
    let late = Deployed { function: start_over(&store).await, database: deployed.database };
    let away = late.function.invoke(&message(2)).await.unwrap();
    assert!(matches!(&away, Invoked::Error(kind, _) if kind == "NothingSettled"), "{away:?}");
    server.start_again().unwrap();
    deployed.database = postgres::client(&store).await.unwrap();
    for n in 0..3 {
        assert_eq!(deployed.answer(&message(n)).await, json!({"batchItemFailures": []}));
        assert_eq!(late.answer(&message(n)).await, json!({"batchItemFailures": []}));
    }
    assert_eq!(deployed.customers("payments").await.len(), 3);
    deployed.balances().await;
}

/// A way to the database that forgets the connections it has, without a word to either end, when told so.
async fn forgetful(store: &str) -> (String, Arc<AtomicUsize>) {
    let (before, after) = store.split_once("@").unwrap();
    let (server, database) = after.split_once('/').unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("{before}@{}/{database}", listener.local_addr().unwrap());
    let (server, forgotten) = (server.to_owned(), Arc::new(AtomicUsize::new(0)));
    let remembered = forgotten.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.unwrap();
            let generation = remembered.load(Ordering::SeqCst);
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            tokio::spawn(pass(from_client, to_server, remembered.clone(), generation));
            tokio::spawn(pass(from_server, to_client, remembered.clone(), generation));
        }
    });
    (url, forgotten)
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, forgotten: Arc<AtomicUsize>, generation: usize) {
    let mut piece = [0; 16 * 1024];
    while let Ok(read) = from.read(&mut piece).await
        && read > 0
    {
        // What came after is lost: nobody says so.
        if forgotten.load(Ordering::SeqCst) == generation && to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
    if forgotten.load(Ordering::SeqCst) != generation {
        std::future::pending::<()>().await;
    }
}

/// A request on one of them would wait until its client gave up.
#[tokio::test]
async fn connections_that_the_network_forgot_are_not_waited_for() {
    let store = postgres::database().await.unwrap();
    let (road, forgotten) = forgetful(&store).await;
    let deployed = Deployed::over(&road, &[OPEN, ("CAUDAL_STORE__IDLE_MS_MAX", "200")]).await;
    for n in 0..3 {
        assert_eq!(deployed.answer(&message(n)).await, json!({"batchItemFailures": []}));
        let stored = deployed.answer(&event!("function-url")).await;
        assert_eq!(stored["statusCode"], 201, "{stored}");
        for path in ["/rest/v1/payments", "/v1/reconcile", stored["headers"]["location"].as_str().unwrap()] {
            assert_eq!(deployed.answer(&get(path, "")).await["statusCode"], 200, "{path}");
        }
        forgotten.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
}

async fn start_over(store: &str) -> caudal_testkit::lambda::Function {
    let environment = [environment(store), vec![OPEN, ("CAUDAL_STORE__PATIENCE_MS", "500")]].concat();
    caudal_testkit::lambda::Function::start(BINARY, FILES, &environment).await.unwrap()
}

#[tokio::test]
async fn there_is_an_answer_before_the_time_is_over() {
    let store = postgres::database().await.unwrap();
    let mut api = RuntimeApi::start(BINARY, FILES, &[environment(&store), vec![OPEN]].concat()).await.unwrap();
    println!("asked for work {:?} after its start", api.init);
    let enough = Duration::from_secs(60);
    assert_eq!(api.invoke(&message(0), enough).await.unwrap(), Invoked::Answer(json!({"batchItemFailures": []})));
    let database = postgres::client(&store).await.unwrap();
    database.batch_execute("begin; lock table payments, orders in access exclusive mode").await.unwrap();
    let short = Duration::from_millis(1500);
    let late = api.invoke(&message(1), short).await.unwrap();
    assert!(matches!(&late, Invoked::Error(kind, _) if kind == "NothingSettled"), "{late:?}");
    for event in [event!("function-url"), get("/rest/v1/orders", "")] {
        let late = api.invoke(&event, short).await.unwrap().answer();
        assert_eq!(late["statusCode"], 504, "{late}");
    }
    database.batch_execute("rollback").await.unwrap();
    // What was cut off may have been stored after all; taking it again is harmless.
    for n in 0..2 {
        assert_eq!(api.invoke(&message(n), enough).await.unwrap(), Invoked::Answer(json!({"batchItemFailures": []})));
    }
    let rows = database.query("select n from payments", &[]).await.unwrap();
    assert_eq!(rows.len(), 2);
    let log = api.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// Starting is fast because nothing is waited for: no database, and none that answers late.
#[tokio::test]
async fn it_asks_for_work_before_the_store_answers() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = format!("postgres://u@{}/d", silent.local_addr().unwrap());
    let mut api = RuntimeApi::start(BINARY, FILES, &[environment(&store), vec![OPEN]].concat()).await.unwrap();
    let ping = api.invoke(&get("/ping", ""), Duration::from_secs(60)).await.unwrap().answer();
    assert_eq!(ping["statusCode"], 200);
    let late = api.invoke(&get("/v1/topics", ""), Duration::from_millis(900)).await.unwrap().answer();
    assert_eq!(late["statusCode"], 504, "{late}");
}

fn run(environment: &[(&str, &str)]) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(BINARY);
    command.arg("lambda").current_dir(home.path()).env_clear().envs(environment.iter().copied()).output().unwrap()
}

#[test]
fn what_a_function_cannot_do_is_said_at_its_start() {
    let lambda = [
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9"),
        ("AWS_LAMBDA_FUNCTION_NAME", "f"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
    ];
    let store = ("CAUDAL_STORE__URL", "postgres://u:s3cret@h/d");
    for (more, say) in [
        (vec![], "store.url is sqlite:caudal.db; a function needs PostgreSQL"),
        (vec![store, ("CAUDAL_BROKER__URL", "kafka://h")], "for a function it is none:"),
        (vec![store, ("CAUDAL_HTTP__KEYS", "[\"key\"]")], "caudal keys new"),
        (vec![store, ("CAUDAL_HTTP__LISTNE", "x")], "did you mean http.listen"),
        (vec![store, ("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")], "SnapStart is on"),
    ] {
        let output = run(&[&lambda[..], &more].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(say) && !said.contains("s3cret"), "{more:?}: {said}");
    }
    let elsewhere = run(&[store]);
    let said = String::from_utf8_lossy(&elsewhere.stderr).into_owned();
    assert!(!elsewhere.status.success() && said.contains("caudal serve"), "{said}");
}
