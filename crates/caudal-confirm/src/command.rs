//! A program that is run once for each call: the record on its standard input, its exit code as the status.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use caudal_core::confirm::answer::Answer;
use caudal_core::confirm::ports::{Call, Confirmer};
use caudal_core::confirm::template::Text;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::BODY_BYTES_MAX;
use crate::fill::{self, Filler};

/// How long a program that has ended may leave its output open, by a child that lives on.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);
const PIECE_BYTES: usize = 16 * 1024;

/// A program as configured. Arguments may hold placeholders ([`caudal_core::confirm::template`]); no shell reads them.
///
/// The program gets the environment of Caudal without the variables that begin with `CAUDAL_`, in which passwords are written,
/// and `CAUDAL_IDEMPOTENCY_KEY`, `CAUDAL_ATTEMPT` and `CAUDAL_TOPIC`.
#[derive(Clone)]
pub struct CommandConfig {
    pub program: String,
    pub arguments: Vec<String>,
    /// In addition; values are shown nowhere.
    pub environment: Vec<(String, String)>,
    /// The arguments with which the same program says what became of a transaction.
    pub probe: Option<Vec<String>>,
    /// After it the program and whatever it started are killed.
    pub timeout: Duration,
    /// What is kept of the standard output. More is read and dropped.
    pub body_bytes_max: usize,
}

impl CommandConfig {
    pub fn new(program: &str) -> Self {
        Self {
            program: program.to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            probe: None,
            timeout: Duration::from_secs(30),
            body_bytes_max: BODY_BYTES_MAX,
        }
    }
}

impl fmt::Debug for CommandConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandConfig").field("program", &self.program).finish_non_exhaustive()
    }
}

/// A program behind the port of confirmers.
pub struct CommandConfirmer {
    program: String,
    call: Vec<Argument>,
    probe: Option<Vec<Argument>>,
    environment: Vec<(String, String)>,
    timeout: Duration,
    body_bytes_max: usize,
}

impl fmt::Debug for CommandConfirmer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandConfirmer({})", self.program)
    }
}

struct Argument {
    text: Text,
    /// The configuration itself wrote an option here.
    is_option: bool,
}

impl Argument {
    fn parse(text: &String) -> Result<Self, String> {
        if text.contains('\0') {
            return Err("an argument has a NUL character".to_owned());
        }
        let parsed = Text::parse(text).map_err(|e| format!("an argument cannot be used: {}", fill::unreadable(&e)))?;
        Ok(Self { text: parsed, is_option: text.starts_with('-') })
    }

    fn fill(&self, filler: &Filler) -> Result<String, String> {
        let filled = filler.text(&self.text, fill::verbatim).map_err(|e| format!("an argument cannot be made: {e}"))?;
        if filled.contains('\0') {
            return Err("an argument cannot be made: a value in it has a NUL character".to_owned());
        }
        if filled.starts_with('-') && !self.is_option {
            return Err(
                "an argument cannot be made: a value would be taken for an option, because it begins with -; write --name=${value}"
                    .to_owned(),
            );
        }
        Ok(filled)
    }
}

impl CommandConfirmer {
    /// # Errors
    /// A sentence that says what is wrong with the configuration.
    pub fn open(config: &CommandConfig) -> Result<Self, String> {
        if config.program.is_empty() || config.program.contains('\0') {
            return Err("no program is named".to_owned());
        }
        if config.timeout.is_zero() {
            return Err("a call needs time: timeout is above 0".to_owned());
        }
        if let Some((name, _)) = config.environment.iter().find(|(name, value)| !is_variable(name, value)) {
            return Err(format!("{name:?} is no name of an environment variable, or its value has a NUL character"));
        }
        let parsed = |all: &Vec<String>| all.iter().map(Argument::parse).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            program: config.program.clone(),
            call: parsed(&config.arguments)?,
            probe: config.probe.as_ref().map(parsed).transpose()?,
            environment: config.environment.clone(),
            timeout: config.timeout,
            body_bytes_max: config.body_bytes_max,
        })
    }

    fn command(&self, arguments: &[Argument], call: &Call<'_>) -> Result<Command, String> {
        let filler = Filler::new(call, arguments.iter().any(|argument| fill::reads(&argument.text)))?;
        let filled: Vec<String> = arguments.iter().map(|argument| argument.fill(&filler)).collect::<Result<_, _>>()?;
        let mut command = Command::new(&self.program);
        command.args(filled);
        for name in std::env::vars_os().map(|(name, _)| name).filter(is_ours) {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("CAUDAL_IDEMPOTENCY_KEY", filler.key());
        command.env("CAUDAL_ATTEMPT", call.attempt.to_string()).env("CAUDAL_TOPIC", call.topic.as_str());
        // A group of its own, so that what it starts can be ended with it.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        Ok(command)
    }

    async fn run(&self, arguments: &[Argument], call: &Call<'_>) -> Answer {
        let mut command = match self.command(arguments, call) {
            Ok(command) => command,
            Err(why) => return Answer::Blocked(why),
        };
        let child = match command.spawn() {
            Ok(child) => child,
            Err(why) => return Answer::NotSent(format!("{} cannot be started: {why}", self.program)),
        };
        let mut group = Group::new(child);
        match tokio::time::timeout(self.timeout, group.run(call.item.record.clone(), self.body_bytes_max)).await {
            Ok(Ok((status, body))) => match status.code() {
                Some(code) => Answer::Status { code: code as u16, retry_after: None, body },
                None => Answer::Unknown(format!("{} was ended by a signal: {status}", self.program)),
            },
            Ok(Err(why)) => Answer::Unknown(format!("{}: {why}", self.program)),
            Err(_) => Answer::Unknown(format!("{} did not end in time and was killed", self.program)),
        }
    }
}

fn is_variable(name: &str, value: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
}

fn is_ours(name: &OsString) -> bool {
    name.as_encoded_bytes().starts_with(b"CAUDAL_")
}

/// The program and what it started. All of it is killed when this is dropped before the program has ended, whatever the reason.
struct Group {
    child: Child,
    leader: Option<Pid>,
    ended: bool,
}

impl Group {
    fn new(child: Child) -> Self {
        let leader = child.id().and_then(|id| Pid::from_raw(id as i32));
        Self { child, leader, ended: false }
    }

    /// Feeds the record, reads the output, and waits for the end, all at once: a program may do them in any order or not at all.
    async fn run(&mut self, record: Bytes, body_bytes_max: usize) -> io::Result<(ExitStatus, Bytes)> {
        let mut stdin = self.child.stdin.take().filter(|_| !record.is_empty());
        let mut stdout = self.child.stdout.take();
        let (mut rest, mut body) = (record, BytesMut::new());
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let mut status = None;
        let mut grace = std::pin::pin!(tokio::time::sleep(Duration::MAX));
        loop {
            tokio::select! {
                fed = feed(&mut stdin, &rest), if stdin.is_some() => match fed {
                    Ok(bytes) if bytes < rest.len() => rest.advance(bytes),
                    // All of it is there, or the program does not read it.
                    _ => stdin = None,
                },
                read = read(&mut stdout, &mut piece), if stdout.is_some() => {
                    if read? == 0 {
                        stdout = None;
                    }
                    body.extend_from_slice(&piece[..piece.len().min(body_bytes_max - body.len())]);
                    piece.clear();
                }
                ended = self.child.wait(), if status.is_none() => {
                    status = Some(ended?);
                    self.ended = true;
                    grace.as_mut().reset(tokio::time::Instant::now() + OUTPUT_GRACE);
                }
                () = &mut grace, if status.is_some() => stdout = None,
            }
            if let (Some(status), None) = (status, &stdout) {
                return Ok((status, body.freeze()));
            }
        }
    }
}

async fn feed(stdin: &mut Option<ChildStdin>, rest: &[u8]) -> io::Result<usize> {
    match stdin {
        Some(stdin) => stdin.write(rest).await,
        None => Ok(0),
    }
}

async fn read(stdout: &mut Option<ChildStdout>, piece: &mut Vec<u8>) -> io::Result<usize> {
    match stdout {
        Some(stdout) => stdout.read_buf(piece).await,
        None => Ok(0),
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Not after its end was seen: its number may be somebody else's by then.
        if let (false, Some(leader)) = (self.ended, self.leader) {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

#[async_trait]
impl Confirmer for CommandConfirmer {
    async fn call(&self, call: Call<'_>) -> Answer {
        self.run(&self.call, &call).await
    }

    async fn probe(&self, call: Call<'_>) -> Answer {
        match &self.probe {
            Some(arguments) => self.run(arguments, &call).await,
            None => Answer::Blocked("no probe is configured for this program".to_owned()),
        }
    }

    fn target(&self) -> &str {
        &self.program
    }
}
