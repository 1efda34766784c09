//! The few pages of others that Caudal asks for itself: SNS's certificates and confirmation links.
//!
//! Which addresses may be asked for is decided before this, where the reason is known ([`crate::sns`]).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
pub use reqwest::Url;
use reqwest::redirect::Policy;

/// From the first byte sent to the last one received.
const TIMEOUT: Duration = Duration::from_secs(5);
const BYTES_MAX: usize = 64 * 1024;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The other side answered, and not with what was asked for: asking again gives the same.
    #[error("{0}")]
    Refused(String),
    /// Asking again may help.
    #[error("{0}")]
    Unavailable(String),
}

type Fetching = Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send>>;

/// How pages are fetched. Tests give their own, so that what decides about addresses is the same in both.
#[derive(Clone)]
pub struct Fetch(Arc<dyn Fn(Url) -> Fetching + Send + Sync>);

impl Fetch {
    pub fn new<F, R>(fetch: F) -> Self
    where
        F: Fn(Url) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Bytes, FetchError>> + Send + 'static,
    {
        Self(Arc::new(move |url| Box::pin(fetch(url))))
    }

    pub(crate) async fn get(&self, url: Url) -> Result<Bytes, FetchError> {
        (self.0)(url).await
    }
}

impl Default for Fetch {
    /// HTTPS with the machine's certificate authorities: no redirects, no proxy of the environment, bounded in time and size.
    /// The client is made when it is first needed, because most servers never do.
    fn default() -> Self {
        let client: Arc<OnceLock<Result<reqwest::Client, String>>> = Arc::default();
        Self::new(move |url| {
            let client = client.clone();
            async move {
                match client.get_or_init(|| make_client().map_err(|error| error.to_string())) {
                    Ok(client) => get(client, url).await,
                    Err(error) => Err(FetchError::Unavailable(error.clone())),
                }
            }
        })
    }
}

impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fetch")
    }
}

fn make_client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().https_only(true).redirect(Policy::none()).no_proxy().timeout(TIMEOUT).build()
}

async fn get(client: &reqwest::Client, url: Url) -> Result<Bytes, FetchError> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let away = |error: reqwest::Error| FetchError::Unavailable(format!("{host}: {}", cause(&error)));
    let mut response = client.get(url).send().await.map_err(away)?;
    let status = response.status();
    if status.is_server_error() || status == reqwest::StatusCode::TOO_MANY_REQUESTS {
        return Err(FetchError::Unavailable(format!("{host} answered {status}")));
    }
    if !status.is_success() {
        return Err(FetchError::Refused(format!("{host} answered {status}")));
    }
    let mut page = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(away)? {
        if page.len() + chunk.len() > BYTES_MAX {
            return Err(FetchError::Refused(format!("{host} answered with more than {BYTES_MAX} bytes")));
        }
        page.extend_from_slice(&chunk);
    }
    Ok(page.freeze())
}

/// What lies under an error that says no more than that there was one.
fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that gives each connection the same answer and counts them.
    async fn server(answer: Vec<u8>) -> (Url, Arc<std::sync::atomic::AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x.pem", listener.local_addr().unwrap());
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let _ = socket.read(&mut [0; 2048]).await;
                let _ = socket.write_all(&answer).await;
            }
        });
        (Url::parse(&url).unwrap(), asked)
    }

    /// The real client but for `https_only`.
    fn client() -> reqwest::Client {
        reqwest::Client::builder().redirect(Policy::none()).no_proxy().timeout(TIMEOUT).build().unwrap()
    }

    #[tokio::test]
    async fn answers_are_bounded_and_redirects_are_not_followed() {
        let (good, _) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi".to_vec()).await;
        assert_eq!(get(&client(), good.clone()).await.unwrap(), "hi");
        let moved = format!("HTTP/1.1 302 Found\r\nlocation: {good}\r\ncontent-length: 0\r\n\r\n");
        let (moved, _) = server(moved.into_bytes()).await;
        assert!(matches!(get(&client(), moved).await, Err(FetchError::Refused(_))));
        let mut long = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", BYTES_MAX + 1).into_bytes();
        long.resize(long.len() + BYTES_MAX + 1, b'x');
        assert!(matches!(get(&client(), server(long).await.0).await, Err(FetchError::Refused(_))));
        let (gone, _) = server(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
        assert!(matches!(get(&client(), gone).await, Err(FetchError::Refused(_))));
        let (down, _) = server(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
        assert!(matches!(get(&client(), down).await, Err(FetchError::Unavailable(_))));
    }

    #[tokio::test]
    async fn the_client_that_is_shipped_speaks_https_only() {
        let (plain, asked) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi".to_vec()).await;
        assert!(matches!(Fetch::default().get(plain).await, Err(FetchError::Unavailable(_))));
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 0);
    }
}
