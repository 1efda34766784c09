//! AWS Step Functions without AWS: moto's interpreter of state machines, which calls functions back at a port where they are real
//! programs. Each function has sandboxes as Lambda gives them: one invocation at a time in each, killed when its time is over,
//! thrown away when it dies.
//!
//! moto's interpreter fails an execution when it has to repeat a step within a map, so what AWS repeats there is not shown.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::BufStream;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::api::Api;
use crate::emulator::Road;
use crate::lambda::{Function, Invoked, Request, serve};
use crate::moto::Moto;

const POLL: Duration = Duration::from_millis(20);
/// moto asks no more of a signature than which service it is for.
const STATES: &str =
    "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/states/aws4_request, SignedHeaders=host, Signature=0";
const ROLE: &str = "arn:aws:iam::123456789012:role/machine";

/// One emulator, and the functions that its machines call.
#[derive(Debug)]
pub struct StepFunctions {
    moto: Moto,
    functions: Functions,
    runtime: Runtime,
}

type Functions = Arc<Mutex<HashMap<String, Arc<Sandboxes>>>>;

/// A program as a function.
#[derive(Debug, Clone)]
pub struct Spec {
    pub binary: String,
    pub files: Vec<(String, String)>,
    pub environment: Vec<(String, String)>,
    /// After this an invocation is over, whatever it does.
    pub timeout: Duration,
    /// Invocations at the same time; one more is refused as Lambda does.
    pub concurrency: usize,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    /// `SUCCEEDED`, `FAILED`, …
    pub status: String,
    pub output: Value,
    pub cause: String,
}

/// The emulator that the tests of one process share. Started on first use, gone with the process.
pub fn shared() -> Result<&'static StepFunctions> {
    static OWN: OnceLock<Result<StepFunctions, String>> = OnceLock::new();
    // Not on a thread of the caller's runtime, which may not wait.
    let start = || std::thread::spawn(StepFunctions::start).join().unwrap_or_else(|_| bail!("it panicked"));
    match OWN.get_or_init(|| start().map_err(|error| format!("{error:#}"))) {
        Ok(own) => Ok(own),
        Err(why) => bail!("cannot start moto with Step Functions: {why}"),
    }
}

impl StepFunctions {
    fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let functions = Functions::default();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let moto = Moto::calling_back(listener.local_addr()?.port())?;
        runtime.spawn(answer_all(listener, functions.clone()));
        let own = Self { moto, functions, runtime };
        own.runtime.block_on(own.interpret())?;
        Ok(own)
    }

    /// Machines are run, and not only kept.
    async fn interpret(&self) -> Result<()> {
        let config = json!({ "stepfunctions": { "execute_state_machine": true } }).to_string();
        let reply = Api::new(self.moto.endpoint())?.post("/moto-api/config", &[], config).await?;
        ensure!(reply.status < 300, "{} {}", reply.status, reply.text());
        Ok(())
    }

    /// The end of what the emulator wrote.
    pub fn log(&self) -> String {
        let log = self.moto.log();
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("\" 200 -")).collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// Where AWS's other services are.
    pub fn endpoint(&self) -> String {
        self.moto.endpoint()
    }

    /// A way there that can be held up.
    pub fn road(&self) -> Result<Road> {
        self.moto.road()
    }

    /// Makes a function, and a machine of this definition in which `${FunctionArn}` is the function.
    pub async fn deploy(&'static self, name: &str, spec: Spec, definition: &str) -> Result<Deployed> {
        let sandboxes =
            Arc::new(Sandboxes { spec, idle: Mutex::default(), busy: Mutex::default(), calls: Mutex::default() });
        self.functions.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), sandboxes.clone());
        let mut deployed = Deployed { own: self, name: name.to_owned(), sandboxes, machine: String::new() };
        let definition = definition.replace("${FunctionArn}", name);
        let body = json!({ "name": name, "definition": definition, "roleArn": ROLE });
        let made = self.call("CreateStateMachine", &body).await?;
        deployed.machine = made["stateMachineArn"].as_str().context("no ARN")?.to_owned();
        Ok(deployed)
    }

    async fn call(&self, action: &str, body: &Value) -> Result<Value> {
        let target = format!("AWSStepFunctions.{action}");
        let headers = [
            ("x-amz-target", target.as_str()),
            ("content-type", "application/x-amz-json-1.0"),
            ("authorization", STATES),
        ];
        let reply = Api::new(self.moto.endpoint())?.post("/", &headers, body.to_string()).await?;
        ensure!(reply.status == 200, "{action}: {} {}", reply.status, reply.text());
        Ok(reply.json())
    }
}

/// A function and its machine; gone when dropped.
#[derive(Debug)]
pub struct Deployed {
    own: &'static StepFunctions,
    name: String,
    sandboxes: Arc<Sandboxes>,
    machine: String,
}

impl Deployed {
    /// Begins an execution. moto lets those without a name collide.
    pub async fn start(&self, name: &str) -> Result<String> {
        let body = json!({ "stateMachineArn": self.machine, "name": name, "input": "{}" });
        let started = self.own.call("StartExecution", &body).await?;
        Ok(started["executionArn"].as_str().context("no ARN")?.to_owned())
    }

    /// Waits for the end of an execution.
    pub async fn end_of(&self, execution: &str, patience: Duration) -> Result<Execution> {
        let begun = Instant::now();
        loop {
            let found = self.own.call("DescribeExecution", &json!({ "executionArn": execution })).await?;
            let status = found["status"].as_str().unwrap_or_default();
            if status != "RUNNING" {
                let output =
                    found["output"].as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
                let cause = found["cause"].as_str().unwrap_or_default().to_owned();
                return Ok(Execution { status: status.to_owned(), output, cause });
            }
            ensure!(begun.elapsed() < patience, "it still runs: {found:#}\n{:#?}\n{}", self.calls(), self.log());
            tokio::time::sleep(POLL).await;
        }
    }

    pub async fn execute(&self, name: &str, patience: Duration) -> Result<Execution> {
        self.end_of(&self.start(name).await?, patience).await
    }

    /// Invokes the function, as `aws lambda invoke` does.
    pub async fn invoke(&self, event: Value) -> Result<Invoked> {
        let sandboxes = self.sandboxes.clone();
        let invoked = self.own.runtime.spawn(async move { sandboxes.invoke(&event).await }).await??;
        invoked.context("all sandboxes are busy")
    }

    /// SIGKILL to every sandbox that has an invocation now; returns how many they were.
    pub fn kill_busy(&self) -> usize {
        let busy = self.sandboxes.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.iter().filter(|function| function.kill().is_ok()).count()
    }

    /// Every invocation so far: its event, and what came of it.
    pub fn calls(&self) -> Vec<(Value, Invoked)> {
        self.sandboxes.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the sandboxes that are there wrote.
    pub fn log(&self) -> String {
        let (idle, busy) = (&self.sandboxes.idle, &self.sandboxes.busy);
        let log = |functions: &Mutex<Vec<Arc<Function>>>| {
            let functions = functions.lock().unwrap_or_else(PoisonError::into_inner);
            functions.iter().map(|function| function.log()).collect::<Vec<_>>().join("\n---\n")
        };
        format!("{}\n---\n{}", log(idle), log(busy))
    }
}

impl Drop for Deployed {
    fn drop(&mut self) {
        self.own.functions.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
        for functions in [&self.sandboxes.idle, &self.sandboxes.busy] {
            functions.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

#[derive(Debug)]
struct Sandboxes {
    spec: Spec,
    idle: Mutex<Vec<Arc<Function>>>,
    busy: Mutex<Vec<Arc<Function>>>,
    calls: Mutex<Vec<(Value, Invoked)>>,
}

impl Sandboxes {
    /// `None`: throttled.
    async fn invoke(&self, event: &Value) -> Result<Option<Invoked>> {
        let Some(function) = self.claim().await? else { return Ok(None) };
        let invoked = tokio::select! {
            invoked = function.invoke(event) => invoked,
            () = ended(&function) => Ok(Invoked::Error("Runtime.ExitError".into(), "Runtime exited with error: signal: killed".into())),
            () = tokio::time::sleep(self.spec.timeout) => {
                let message = format!("Task timed out after {:.2} seconds", self.spec.timeout.as_secs_f64());
                function.kill()?;
                ended(&function).await;
                Ok(Invoked::Error("Sandbox.Timedout".into(), message))
            }
        }?;
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).retain(|busy| !Arc::ptr_eq(busy, &function));
        if function.is_alive() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(function);
        }
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push((event.clone(), invoked.clone()));
        Ok(Some(invoked))
    }

    async fn claim(&self) -> Result<Option<Arc<Function>>> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let function = match idle {
            Some(function) => function,
            None if self.busy.lock().unwrap_or_else(PoisonError::into_inner).len() >= self.spec.concurrency => {
                return Ok(None);
            }
            None => Arc::new(self.spec.start().await?),
        };
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).push(function.clone());
        Ok(Some(function))
    }
}

impl Spec {
    async fn start(&self) -> Result<Function> {
        let pairs = |pairs: &[(String, String)]| -> Vec<(&'static str, &'static str)> {
            // Leaked: a test makes a handful.
            let leak = |text: &String| -> &'static str { Box::leak(text.clone().into_boxed_str()) };
            pairs.iter().map(|(name, value)| (leak(name), leak(value))).collect()
        };
        Function::start(&self.binary, &pairs(&self.files), &pairs(&self.environment)).await
    }
}

async fn ended(function: &Function) {
    while function.is_alive() {
        tokio::time::sleep(POLL).await;
    }
}

/// Lambda's own interface, as far as machines use it.
async fn answer_all(listener: TcpListener, functions: Functions) {
    let (to, mut requests) = mpsc::channel::<Request>(16);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(serve(BufStream::new(connection), to.clone()));
        }
    });
    while let Some(request) = requests.recv().await {
        let functions = functions.clone();
        tokio::spawn(async move {
            let Request { line, body, answer } = request;
            let said = respond(&functions, &line, &body).await;
            let (status, headers, body) = said
                .unwrap_or_else(|error| ("500 Internal Server Error", "", json!({ "Message": format!("{error:#}") })));
            let body = body.to_string();
            let _ = answer.send(format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
                body.len()
            ));
        });
    }
}

async fn respond(functions: &Functions, line: &str, body: &[u8]) -> Result<(&'static str, &'static str, Value)> {
    let path = line.split(' ').nth(1).unwrap_or_default();
    let name = path.strip_prefix("/2015-03-31/functions/").and_then(|rest| rest.strip_suffix("/invocations"));
    let name = name.with_context(|| format!("{line}: only functions are called here"))?;
    let found = functions.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
    let Some(function) = found else {
        let body = json!({ "Message": format!("Function not found: {name}") });
        return Ok(("404 Not Found", "X-Amzn-ErrorType: ResourceNotFoundException\r\n", body));
    };
    Ok(match function.invoke(&serde_json::from_slice(body)?).await? {
        Some(Invoked::Answer(answer)) => ("200 OK", "", answer),
        Some(Invoked::Error(kind, message)) => {
            ("200 OK", "X-Amz-Function-Error: Unhandled\r\n", json!({ "errorType": kind, "errorMessage": message }))
        }
        None => {
            let body =
                json!({ "Reason": "ReservedFunctionConcurrentInvocationLimitExceeded", "Message": "Rate Exceeded." });
            ("429 Too Many Requests", "X-Amzn-ErrorType: TooManyRequestsException\r\n", body)
        }
    })
}
