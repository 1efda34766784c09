//! A connection that breaks at the worst moment: the server has committed, and nobody hears of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Passes bytes on until it is armed; then the next connection that commits is cut once the server has said that it did, before
/// its client hears it.
pub(crate) struct Lossy {
    port: u16,
    armed: Arc<AtomicBool>,
}

impl Lossy {
    /// In front of the server of this URL.
    pub(crate) async fn before(url: &str) -> Self {
        let server = address(url).to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let armed = Arc::new(AtomicBool::new(false));
        let arm = armed.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.expect("the server");
                tokio::spawn(pass(client, server, arm.clone()));
            }
        });
        Self { port, armed }
    }

    pub(crate) fn url(&self, url: &str) -> String {
        url.replacen(address(url), &format!("127.0.0.1:{}", self.port), 1)
    }

    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Whether it has cut a connection since it was armed.
    pub(crate) fn has_cut(&self) -> bool {
        !self.armed.load(Ordering::SeqCst)
    }
}

/// `host:port` of `postgres://user@host:port/database`.
fn address(url: &str) -> &str {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, address)| address)
}

async fn pass(mut client: TcpStream, mut server: TcpStream, armed: Arc<AtomicBool>) {
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read {
                Ok(n) if n > 0 => server.write_all(&asked[..n]).await.expect("the server reads"),
                _ => return,
            },
            read = server.read(&mut answered) => match read {
                // The tag of a completed COMMIT.
                Ok(n) if n > 0 && contains(&answered[..n], b"COMMIT\0") && armed.swap(false, Ordering::SeqCst) => return,
                Ok(n) if n > 0 => {
                    if client.write_all(&answered[..n]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
