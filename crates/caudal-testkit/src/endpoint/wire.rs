//! HTTP/1.1 by hand: what is to be misspelt cannot be left to a server that spells well.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const HEAD_BYTES_MAX: usize = 64 * 1024;
const BODY_BYTES_MAX: usize = 16 << 20;
const HEADERS_MAX: usize = 64;

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Request {
    /// The header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What is needed of a request to answer it fast; the body is behind it.
#[derive(Debug)]
struct Head {
    bytes: usize,
    body: usize,
}

/// A connection's bytes, cut into requests.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    read: BytesMut,
    out: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, read: BytesMut::with_capacity(8 * 1024), out: Vec::with_capacity(512) }
    }

    /// The next request; `None` when the client closed.
    pub(super) async fn request(&mut self) -> io::Result<Option<Request>> {
        loop {
            if let Some((head, mut request)) = parse(&self.read)? {
                while self.read.len() < head.bytes + head.body {
                    if self.stream.read_buf(&mut self.read).await? == 0 {
                        return Ok(None);
                    }
                }
                self.read.advance(head.bytes);
                request.body = self.read.split_to(head.body).freeze();
                return Ok(Some(request));
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// A good answer.
    pub(super) async fn answer(&mut self, status: u16, headers: &str, body: &[u8]) -> io::Result<()> {
        self.compose(status, headers, body);
        self.stream.write_all(&self.out).await
    }

    /// A good answer, `times` over.
    pub(super) async fn repeat(&mut self, times: usize, status: u16, body: &[u8]) -> io::Result<()> {
        self.compose(status, "", body);
        let all = self.out.repeat(times);
        self.stream.write_all(&all).await
    }

    pub(super) async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    pub(super) async fn drip(&mut self, status: u16, body: &[u8], pause: Duration) -> io::Result<()> {
        self.compose(status, "", body);
        for at in 0..self.out.len() {
            self.stream.write_all(&self.out[at..=at]).await?;
            self.stream.flush().await?;
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    pub(super) async fn huge(&mut self, bytes: u64) -> io::Result<()> {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {bytes}\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await?;
        let piece = [b'x'; 64 * 1024];
        let mut left = bytes;
        while left > 0 {
            let now = left.min(piece.len() as u64);
            self.stream.write_all(&piece[..now as usize]).await?;
            left -= now;
        }
        Ok(())
    }

    pub(super) async fn close(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    fn compose(&mut self, status: u16, headers: &str, body: &[u8]) {
        use std::io::Write;
        self.out.clear();
        let reason = http_reason(status);
        let length = body.len();
        // Writing to a vector cannot fail.
        let _ = write!(
            self.out,
            "HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n"
        );
        self.out.extend_from_slice(body);
    }
}

fn http_reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        404 => "Not Found",
        409 => "Conflict",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

/// A head that is complete, and the request without its body.
fn parse(bytes: &[u8]) -> io::Result<Option<(Head, Request)>> {
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes).map_err(|e| bad(e.to_string()))? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial if bytes.len() > HEAD_BYTES_MAX => {
            return Err(bad("the head is too long".to_owned()));
        }
        httparse::Status::Partial => return Ok(None),
    };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let found = Request {
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        headers: request.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect(),
        body: Bytes::new(),
    };
    if found.header("transfer-encoding").is_some() {
        return Err(bad("a body without a length".to_owned()));
    }
    let body = match found.header("content-length") {
        Some(length) => length.parse().map_err(|_| bad(format!("a content-length of {length:?}")))?,
        None => 0,
    };
    if body > BODY_BYTES_MAX {
        return Err(bad(format!("a body of {body} bytes")));
    }
    Ok(Some((Head { bytes: length, body }, found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_cut_wherever_the_bytes_were() {
        let text = b"POST /payments?x=1 HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nContent-Length: 4\r\n\r\nbodyGET / HTTP/1.1\r\n\r\n";
        for cut in 1..text.len() {
            let (ours, mut theirs) = tokio::io::duplex(4096);
            let mut wire = Wire::new(ours);
            let (first, rest) = text.split_at(cut);
            let writes = async {
                theirs.write_all(first).await.unwrap();
                tokio::task::yield_now().await;
                theirs.write_all(rest).await.unwrap();
            };
            let reads = async {
                let one = wire.request().await.unwrap().unwrap();
                let two = wire.request().await.unwrap().unwrap();
                assert_eq!((one.target.as_str(), one.header("idempotency-key")), ("/payments?x=1", Some("k")));
                assert_eq!((&one.body[..], two.method.as_str()), (&b"body"[..], "GET"));
            };
            tokio::join!(writes, reads);
        }
    }
}
