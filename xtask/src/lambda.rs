//! `cargo xtask lambda`: the package for AWS Lambda, its size, and how soon it asks for work.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

const USAGE: &str = "\
usage: cargo xtask lambda [--features LIST] [--runs N]

Builds the program with the profile `lambda`, packs it as target/lambda/caudal-lambda.zip, and prints its size and how long it
takes from its start until it first asks for work, which is what a function's own part of a cold start is.

  --features LIST  of crates/caudal, instead of postgres,lambda; add sqs to publish to SNS and SQS
  --runs N         starts to measure, after one that is not counted; 20 by default";

/// Of `provided.al2023`, which runs the program. Built on a newer system it may need more: docs/lambda.md.
const GLIBC_THERE: (u32, u32) = (2, 34);
const MB: f64 = 1e6;
/// A start that takes longer has failed.
const INIT_MAX: Duration = Duration::from_secs(10);

pub(crate) fn run(root: &Path, args: &[String]) -> Result<ExitCode> {
    let (mut features, mut runs) = ("postgres,lambda".to_owned(), 20);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next()) {
            ("--features", Some(list)) => features.clone_from(list),
            ("--runs", Some(n)) => runs = n.parse().context("--runs takes a number")?,
            _ => {
                eprintln!("{USAGE}");
                return Ok(ExitCode::from(2));
            }
        }
    }
    let bootstrap = build(root, &features)?;
    let zip = pack(&bootstrap)?;
    let size = |file: &Path| -> Result<f64> { Ok(std::fs::metadata(file)?.len() as f64 / MB) };
    println!("features  {features}");
    println!("binary    {:.1} MB", size(&bootstrap)?);
    println!("zipped    {:.1} MB  {}", size(&zip)?, zip.display());
    let (major, minor) = glibc(&std::fs::read(&bootstrap)?);
    let verdict = if (major, minor) <= GLIBC_THERE { "runs on provided.al2023" } else { "too new for provided.al2023" };
    println!("glibc     {major}.{minor} or newer: {verdict}");
    init(&bootstrap)?;
    let mut seen = (0..runs).map(|_| init(&bootstrap)).collect::<Result<Vec<_>>>()?;
    seen.sort();
    if let (Some(first), Some(middle), Some(last)) = (seen.first(), seen.get(runs / 2), seen.last()) {
        let ms = |time: &Duration| time.as_secs_f64() * 1e3;
        println!("init      {:.1} ms (median of {runs}; {:.1} to {:.1})", ms(middle), ms(first), ms(last));
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the program; returns it under the name that Lambda wants, in a folder of its own.
fn build(root: &Path, features: &str) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root).args(["build", "--profile", "lambda", "--package", "caudal", "--no-default-features"]);
    let status = cargo.args(["--features", features]).status()?;
    ensure!(status.success(), "cargo build: {status}");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let package = target.join("lambda").join("package");
    std::fs::create_dir_all(&package)?;
    let bootstrap = package.join("bootstrap");
    std::fs::copy(target.join("lambda").join("caudal"), &bootstrap)?;
    Ok(bootstrap)
}

fn pack(bootstrap: &Path) -> Result<PathBuf> {
    let package = bootstrap.parent().context("the package has a folder")?;
    let zip = package.with_file_name("caudal-lambda.zip");
    let mut python = Command::new("python3");
    crate::output_of(python.args(["-m", "zipfile", "-c"]).arg(&zip).arg(bootstrap))?;
    Ok(zip)
}

/// The newest version of glibc whose symbols a program asks for.
fn glibc(program: &[u8]) -> (u32, u32) {
    let mark = b"GLIBC_2.";
    let minors = program.windows(mark.len() + 2).filter(|bytes| bytes.starts_with(mark)).filter_map(|bytes| {
        let digits: String =
            bytes[mark.len()..].iter().map(|b| char::from(*b)).take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    });
    (2, minors.max().unwrap_or(0))
}

/// From the start of the process to its first request for work. No database is there, and none is waited for.
fn init(bootstrap: &Path) -> Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut command = Command::new(bootstrap);
    command
        .env_clear()
        .env("AWS_LAMBDA_RUNTIME_API", listener.local_addr()?.to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", "init")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
        .env("CAUDAL_STORE__URL", "postgres://nobody@127.0.0.1:1/nothing")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn()?;
    let asked = first_request(&listener, begun);
    child.kill()?;
    child.wait()?;
    let (request, time) = asked?;
    ensure!(request.starts_with("GET /2018-06-01/runtime/invocation/next "), "the first request was {request}");
    Ok(time)
}

fn first_request(listener: &TcpListener, begun: Instant) -> Result<(String, Duration)> {
    listener.set_nonblocking(true)?;
    let stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error.into()),
            Err(_) => ensure!(begun.elapsed() < INIT_MAX, "it asks for no work within {INIT_MAX:?}"),
        }
        std::thread::sleep(Duration::from_micros(100));
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(INIT_MAX))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok((line, begun.elapsed()))
}
