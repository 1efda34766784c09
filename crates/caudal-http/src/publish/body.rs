//! Reading a body: decompressed as it comes, bounded in size, in memory and in patience.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use flate2::write::MultiGzDecoder;
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode, header};
use std::io::Write;
use zstd::stream::raw::{Decoder as ZstdDecoder, Operation};

use crate::problem::{Problem, excerpt};

/// A client that sends nothing for this long is told so.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Gzip expands at most about 1,032 times, so one step of input yields at most about 4 MiB.
const GZIP_STEP_BYTES: usize = 4 * 1024;
const ZSTD_STEP_BYTES: usize = 256 * 1024;
/// A stream may expand this often beyond its first megabytes; more is a bomb.
const EXPANSION_MAX: u64 = 200;
const EXPANSION_FREE_BYTES: u64 = 64 * 1024 * 1024;

/// A request's body.
pub(crate) struct BodyReader {
    stream: BodyDataStream,
    coding: Coding,
    /// Compressed bytes that wait for the decoder.
    pending: Bytes,
    declared: Option<u64>,
    bytes_in: u64,
    bytes_out: u64,
    ended: bool,
}

enum Coding {
    Identity,
    Gzip(Option<Box<MultiGzDecoder<Vec<u8>>>>),
    Zstd(Box<ZstdDecoder<'static>>, bool),
}

impl Coding {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
        let Some(coding) = codings.next() else { return Ok(Self::Identity) };
        let coding = coding.to_str().unwrap_or("?").trim().to_ascii_lowercase();
        if codings.next().is_some() || coding.contains(',') {
            return Err(Problem::unsupported_media_type("a body has one content coding at most"));
        }
        Ok(match coding.as_str() {
            "identity" | "" => Self::Identity,
            "gzip" | "x-gzip" => Self::Gzip(Some(Box::new(MultiGzDecoder::new(Vec::new())))),
            "zstd" => match ZstdDecoder::new() {
                Ok(decoder) => Self::Zstd(Box::new(decoder), true),
                Err(_) => return Err(Problem::overloaded()),
            },
            other => {
                let detail = format!("content coding {:?} is not taken; send gzip, zstd or none", excerpt(other));
                return Err(Problem::unsupported_media_type(detail));
            }
        })
    }
}

impl BodyReader {
    /// # Errors
    /// `415` for a content coding other than one of gzip, zstd and identity.
    pub(crate) fn new(body: Body, headers: &HeaderMap) -> Result<Self, Problem> {
        let declared = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        let coding = Coding::of(headers)?;
        let stream = body.into_data_stream();
        Ok(Self { stream, coding, pending: Bytes::new(), declared, bytes_in: 0, bytes_out: 0, ended: false })
    }

    /// The next decompressed piece, at most a few megabytes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            if self.pending.is_empty() && !self.ended {
                match self.read().await? {
                    Some(chunk) => self.pending = chunk,
                    None => self.ended = true,
                }
            }
            if self.ended && self.pending.is_empty() {
                return self.tail();
            }
            let piece = self.decode()?;
            self.bytes_out += piece.len() as u64;
            if self.bytes_out > EXPANSION_FREE_BYTES && self.bytes_out / self.bytes_in.max(1) > EXPANSION_MAX {
                let detail = format!("the body expands more than {EXPANSION_MAX} times");
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail));
            }
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }

    /// The whole body, for formats that need it whole.
    ///
    /// # Errors
    /// `413` when it has more than `bytes_max` bytes: before reading if that was declared, else as soon as it shows.
    pub(crate) async fn collect(mut self, bytes_max: usize) -> Result<Bytes, Problem> {
        if matches!(self.coding, Coding::Identity) && self.declared.is_some_and(|n| n > bytes_max as u64) {
            return Err(Problem::body_too_large(bytes_max));
        }
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        if first.len() > bytes_max {
            return Err(Problem::body_too_large(bytes_max));
        }
        let Some(second) = self.next().await? else { return Ok(first) };
        let mut whole = BytesMut::from(first);
        whole.extend_from_slice(&second);
        while let Some(piece) = self.next().await? {
            if whole.len() + piece.len() > bytes_max {
                return Err(Problem::body_too_large(bytes_max));
            }
            whole.extend_from_slice(&piece);
        }
        match whole.len() > bytes_max {
            true => Err(Problem::body_too_large(bytes_max)),
            false => Ok(whole.freeze()),
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Problem> {
        match tokio::time::timeout(SILENCE_MAX, self.stream.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(chunk))) => {
                self.bytes_in += chunk.len() as u64;
                Ok(Some(chunk))
            }
            Ok(Some(Err(_))) => Err(Problem::bad_request("incomplete_body", "the body ended early")),
            Err(_) => {
                let detail = "nothing of the body came for 30 seconds";
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "slow_body", detail).header(header::CONNECTION, "close"))
            }
        }
    }

    fn decode(&mut self) -> Result<Bytes, Problem> {
        match &mut self.coding {
            Coding::Identity => Ok(std::mem::take(&mut self.pending)),
            Coding::Gzip(Some(decoder)) => {
                let step = self.pending.split_to(self.pending.len().min(GZIP_STEP_BYTES));
                decoder.write_all(&step).map_err(corrupt)?;
                Ok(std::mem::take(decoder.get_mut()).into())
            }
            Coding::Gzip(None) => Err(corrupt("data after the end")),
            Coding::Zstd(decoder, at_end) => {
                let mut out = vec![0; ZSTD_STEP_BYTES];
                let status = decoder.run_on_buffers(&self.pending, &mut out).map_err(corrupt)?;
                let _ = self.pending.split_to(status.bytes_read);
                *at_end = status.remaining == 0;
                if *at_end && !self.pending.is_empty() {
                    decoder.reinit().map_err(corrupt)?;
                }
                out.truncate(status.bytes_written);
                Ok(out.into())
            }
        }
    }

    /// What the decoder still holds, and whether the stream was whole.
    fn tail(&mut self) -> Result<Option<Bytes>, Problem> {
        match &mut self.coding {
            Coding::Gzip(decoder) => match decoder.take() {
                Some(decoder) if self.bytes_in > 0 => {
                    let rest = decoder.finish().map_err(corrupt)?;
                    Ok(Some(Bytes::from(rest)).filter(|rest| !rest.is_empty()))
                }
                _ => Ok(None),
            },
            Coding::Zstd(decoder, at_end) if !*at_end => {
                let mut out = vec![0; ZSTD_STEP_BYTES];
                let status = decoder.run_on_buffers(&[], &mut out).map_err(corrupt)?;
                *at_end = status.remaining == 0;
                if status.bytes_written == 0 && !*at_end {
                    return Err(corrupt("it ends early"));
                }
                out.truncate(status.bytes_written);
                Ok(Some(out.into()))
            }
            _ => Ok(None),
        }
    }
}

fn corrupt(error: impl std::fmt::Display) -> Problem {
    Problem::bad_request("bad_encoding", format!("the compressed body is damaged: {}", excerpt(&error.to_string())))
}
