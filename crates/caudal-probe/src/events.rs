//! Server-sent events, as far as Caudal sends them.

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::Response;

use crate::client::ClientError;

/// Records as they are stored.
pub struct Events {
    chunks: BoxStream<'static, Result<Bytes, reqwest::Error>>,
    pending: Vec<u8>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("pending_bytes", &self.pending.len()).finish_non_exhaustive()
    }
}

impl Events {
    pub(crate) fn new(response: Response) -> Self {
        Self { chunks: response.bytes_stream().boxed(), pending: Vec::new() }
    }

    /// The next record as JSON text; `None` when the server ended the stream.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            while let Some(end) = self.pending.windows(2).position(|w| w == b"\n\n") {
                let event: Vec<u8> = self.pending.drain(..end + 2).collect();
                let event = String::from_utf8_lossy(&event);
                if let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) {
                    return Ok(Some(data.to_owned()));
                }
            }
            match self.chunks.next().await {
                Some(Ok(chunk)) => self.pending.extend_from_slice(&chunk),
                Some(Err(error)) => return Err(ClientError::Broken(error.to_string())),
                None => return Ok(None),
            }
        }
    }
}
