//! A real function, in another language than ours, behind cargo-lambda's emulator of Lambda.

use std::time::Duration;

use caudal_confirm::lambda::{LambdaConfig, LambdaConfirmer};
use caudal_core::confirm::Fact;
use caudal_core::confirm::answer::{Answer, Rules, Verdict};
use caudal_testkit::lambda::Function;

use super::{asked, asked_for, verdict};

struct Running {
    function: Function,
    books: tempfile::TempDir,
}

impl Running {
    async fn start() -> Self {
        let books = tempfile::TempDir::new().unwrap();
        let file = books.path().join("books").display().to_string();
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lambda/function.py");
        let path = std::env::var("PATH").unwrap();
        let environment = [("BOOKS", file.as_str()), ("PATH", path.as_str()), ("PYTHONDONTWRITEBYTECODE", "1")];
        let function = Function::start(program, &[], &environment).await.unwrap();
        Self { function, books }
    }

    async fn confirmer(&self, timeout: Duration) -> LambdaConfirmer {
        let endpoint = Some(self.function.url().to_owned());
        let config = LambdaConfig { endpoint, probes: true, timeout, ..LambdaConfig::new("_") };
        LambdaConfirmer::open(&config).await.unwrap()
    }

    /// What it did, ever.
    fn effects(&self) -> usize {
        std::fs::read_to_string(self.books.path().join("books")).unwrap_or_default().lines().count()
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_real_function_confirms_declines_and_fails() {
    let running = Running::start().await;
    let confirmer = running.confirmer(PATIENCE).await;
    let said = asked(&confirmer, true).await;
    assert_eq!(verdict(&said), Verdict::NotFound, "{said:?}");
    for (record, expected, effects) in [
        (r#"{"do":"decline"}"#, Verdict::Fact(Fact::Rejected), 0),
        (r#"{"do":"wait"}"#, Verdict::NotDone { retry_after: Some(Duration::from_secs(7)) }, 0),
        (r#"{"do":"raise"}"#, Verdict::Doubt, 0),
        (r#"{"do":"mumble"}"#, Verdict::Doubt, 0),
        (r#"{"do":"raise_after"}"#, Verdict::Doubt, 1),
        (r#"{"do":"confirm"}"#, Verdict::Fact(Fact::Confirmed), 1),
    ] {
        let said = asked_for(&confirmer, false, record).await;
        assert_eq!(verdict(&said), expected, "{record}: {said:?}");
        assert_eq!(running.effects(), effects, "{record}");
    }
    let said = asked(&confirmer, true).await;
    assert_eq!(Rules::http().judge_probe(&said), Verdict::Fact(Fact::Confirmed), "{said:?}");
}

/// It works on after nobody waits any more. The doubt is cleared by asking, and nothing is done twice.
#[tokio::test]
async fn an_answer_that_comes_too_late_is_asked_for() {
    let running = Running::start().await;
    let said = asked_for(&running.confirmer(Duration::from_millis(1_000)).await, false, r#"{"do":"sleep"}"#).await;
    assert!(matches!(said, Answer::Unknown(_)), "{said:?}");
    let said = asked(&running.confirmer(PATIENCE).await, true).await;
    assert_eq!(Rules::http().judge_probe(&said), Verdict::Fact(Fact::Confirmed), "{said:?}");
    assert_eq!(running.effects(), 1);
}
