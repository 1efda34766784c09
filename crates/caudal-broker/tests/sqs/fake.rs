//! A small HTTP server that answers as AWS would in situations that no emulator gets into: refusals, and batches of which only
//! a part went in. What it proves is how answers are read, not what AWS answers.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A status and a body.
pub(crate) type Answer = (u16, String);

type Answers = dyn Fn(&str, &str) -> Answer + Send + Sync;

pub(crate) struct Fake {
    port: u16,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Fake {
    /// `answers` is given an action (`SendMessageBatch`) and the request's body.
    pub(crate) async fn start(answers: impl Fn(&str, &str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answers, log): (Arc<Answers>, _) = (Arc::new(answers), asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answers.clone(), log.clone()));
            }
        });
        Self { port, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("sqs:?endpoint=http://127.0.0.1:{}&region=us-east-1", self.port)
    }

    pub(crate) fn queue_url(&self) -> String {
        format!("http://127.0.0.1:{}/123456789012/q", self.port)
    }

    /// The bodies of the requests for an action.
    pub(crate) fn asked(&self, action: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(name, _)| name == action).map(|(_, body)| body.clone()).collect()
    }
}

async fn serve(mut stream: TcpStream, answers: Arc<Answers>, log: Arc<Mutex<Vec<(String, String)>>>) {
    let mut got = Vec::new();
    loop {
        let Some(end) = got.windows(4).position(|window| window == b"\r\n\r\n") else {
            match stream.read_buf(&mut got).await {
                Ok(0) | Err(_) => return,
                Ok(_) => continue,
            }
        };
        let head = String::from_utf8_lossy(&got[..end]).into_owned();
        let header = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let length: usize = header("content-length").map_or(0, |text| text.parse().unwrap());
        while got.len() < end + 4 + length {
            if stream.read_buf(&mut got).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let body = String::from_utf8_lossy(&got[end + 4..end + 4 + length]).into_owned();
        got.drain(..end + 4 + length);
        let target =
            header("x-amz-target").and_then(|target| target.split_once('.').map(|(_, action)| action.to_owned()));
        let in_form = || body.split('&').find_map(|pair| pair.strip_prefix("Action=")).map(str::to_owned);
        let action = target.or_else(in_form).unwrap_or_default();
        log.lock().unwrap().push((action.clone(), body.clone()));
        let (status, answer) = answers(&action, &body);
        let kind = if answer.starts_with('{') { "application/x-amz-json-1.0" } else { "text/xml" };
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", answer.len());
        if stream.write_all((head + &answer).as_bytes()).await.is_err() {
            return;
        }
    }
}

/// SQS's way to refuse.
pub(crate) fn refusal(code: &str, message: &str) -> Answer {
    (400, json!({"__type": format!("com.amazonaws.sqs#{code}"), "message": message}).to_string())
}

/// SNS's way to refuse.
pub(crate) fn xml_refusal(status: u16, code: &str, message: &str) -> Answer {
    let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
    (status, format!("<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\">{error}</ErrorResponse>"))
}

/// A queue that is there.
pub(crate) fn queue() -> Answer {
    let attributes = json!({"QueueArn": "arn:aws:sqs:us-east-1:123456789012:q", "MaximumMessageSize": "262144"});
    (200, json!({"Attributes": attributes}).to_string())
}

/// Nothing came in: as after a long poll, only sooner.
pub(crate) fn nothing() -> Answer {
    (200, "{}".to_owned())
}

/// A batch in which the entries of these numbers failed, for a moment or for what they are.
pub(crate) fn partly(body: &str, failed: &[usize], code: &str, sender_fault: bool) -> Answer {
    let request: Value = serde_json::from_str(body).unwrap();
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (number, entry) in request["Entries"].as_array().unwrap().iter().enumerate() {
        match failed.contains(&number) {
            true => bad.push(json!({"Id": entry["Id"], "Code": code, "SenderFault": sender_fault, "Message": "no"})),
            false => good.push(json!({"Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "x"})),
        }
    }
    (200, json!({"Successful": good, "Failed": bad}).to_string())
}
