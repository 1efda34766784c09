//! Programs that speak AWS's language, installed by `tests/install-python` into a cache, and the road to them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A program of a Python environment: where `variable` says (the program, or its environment), or in the cache.
///
/// # Errors
/// Names the commands that install it when it is missing: a suite that silently tests something else is no test.
pub(crate) fn program(variable: &str, environment: &str, program: &str) -> Result<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let cache = || {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
        cache.or_else(home).map(|cache| cache.join("caudal-test").join(environment))
    };
    let place = named.or_else(cache).context("neither XDG_CACHE_HOME nor HOME is set")?;
    let found = if place.is_dir() { place.join("bin").join(program) } else { place };
    if !found.is_file() {
        let name = environment.split('-').next().unwrap_or_default();
        bail!(
            "{} is missing: run apt-get install -y python3 python3-venv && tests/install-python {name}, or name it in {variable}",
            found.display()
        );
    }
    Ok(found)
}

/// Waits until a GET of the path is answered with 200.
pub(crate) fn wait_for(port: u16, path: &str) -> Result<()> {
    let deadline = Instant::now() + ANSWER_WITHIN;
    loop {
        match get(port, path) {
            Ok(answer) if answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200") => return Ok(()),
            answer if Instant::now() > deadline => bail!("nothing good at port {port}{path}: {answer:?}"),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 64];
    let read = stream.read(&mut head)?;
    Ok(String::from_utf8_lossy(&head[..read]).into_owned())
}

/// The road to an emulator: a port that passes everything on until it is cut. An emulator keeps its messages in memory, so its
/// own death cannot stand for an outage of AWS, which forgets nothing.
#[derive(Debug)]
pub struct Road {
    port: u16,
    to: u16,
    state: Arc<Mutex<Vec<TcpStream>>>,
    open: Mutex<Option<Arc<AtomicBool>>>,
    held: Arc<AtomicBool>,
}

impl Road {
    pub fn to(port: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let own = listener.local_addr()?.port();
        let road = Self { port: own, to: port, state: Arc::default(), open: Mutex::new(None), held: Arc::default() };
        road.serve(listener);
        Ok(road)
    }

    /// Where AWS's clients find it.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// For `broker.url`.
    pub fn url(&self) -> String {
        format!("sqs:?endpoint={}&region=us-east-1", self.endpoint())
    }

    /// Cuts every connection off and refuses new ones.
    pub fn cut(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(open) = open {
            open.store(false, Ordering::SeqCst);
            // Wakes the thread that waits for a connection, which then lets go of the port.
            while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        for stream in self.state.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets connections through again, at the same port.
    pub fn mend(&self) -> Result<()> {
        self.serve(TcpListener::bind(("127.0.0.1", self.port))?);
        Ok(())
    }

    /// Lets nothing pass, in either direction, and cuts nothing off: whoever asks waits.
    pub fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
    }

    pub fn let_go(&self) {
        self.held.store(false, Ordering::SeqCst);
    }

    fn serve(&self, listener: TcpListener) {
        let open = Arc::new(AtomicBool::new(true));
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(open.clone());
        let (state, held, to) = (self.state.clone(), self.held.clone(), self.to);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if !open.load(Ordering::SeqCst) {
                    return;
                }
                // What cannot be passed on is dropped, which its client notices.
                let _ = stream.and_then(|stream| pass(stream, to, &state, &held));
            }
        });
    }
}

impl Drop for Road {
    fn drop(&mut self) {
        self.cut();
    }
}

fn pass(client: TcpStream, to: u16, state: &Mutex<Vec<TcpStream>>, held: &Arc<AtomicBool>) -> std::io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", to))?;
    let mut kept = state.lock().unwrap_or_else(PoisonError::into_inner);
    for (from, into) in [(client.try_clone()?, server.try_clone()?), (server.try_clone()?, client.try_clone()?)] {
        let held = held.clone();
        std::thread::spawn(move || {
            let _ = copy(&from, &into, &held);
            let _ = into.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
    kept.extend([client, server]);
    Ok(())
}

fn copy(mut from: &TcpStream, mut into: &TcpStream, held: &AtomicBool) -> std::io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        while held.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        into.write_all(&buffer[..read])?;
    }
}
