//! Splitting a stream of bytes into lines without copying those that lie within one piece.

use bytes::{Bytes, BytesMut};
use caudal_core::limits::RECORD_BYTES_MAX;

/// What is kept of a line that is longer than a record may be.
const CUT_BYTES: usize = 64 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) bytes: Bytes,
    /// Only the beginning of a line that was too long.
    pub(crate) cut: bool,
}

/// Lines that end in LF or CRLF; blank ones are skipped, the last needs no end.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    chunk: Bytes,
    /// The beginning of a line whose end has not come yet.
    begun: BytesMut,
    /// The line under way is too long: its rest is dropped.
    overlong: bool,
}

impl Lines {
    /// Gives the next piece; take every line of it with [`next`](Self::next) before the next `feed`.
    pub(crate) fn feed(&mut self, chunk: Bytes) {
        self.chunk = chunk;
    }

    pub(crate) fn next(&mut self) -> Option<Line> {
        loop {
            let Some(end) = memchr::memchr(b'\n', &self.chunk) else {
                let rest = std::mem::take(&mut self.chunk);
                self.begin(&rest);
                return None;
            };
            let piece = self.chunk.split_to(end + 1);
            let line = self.complete(piece.slice(..end));
            if line.is_some() {
                return line;
            }
        }
    }

    /// The last line, when it had no end.
    pub(crate) fn finish(&mut self) -> Option<Line> {
        self.complete(Bytes::new())
    }

    fn begin(&mut self, piece: &[u8]) {
        if self.overlong {
            return;
        }
        self.begun.extend_from_slice(piece);
        if self.begun.len() > RECORD_BYTES_MAX {
            self.begun.truncate(CUT_BYTES);
            self.overlong = true;
        }
    }

    fn complete(&mut self, piece: Bytes) -> Option<Line> {
        let whole = if self.begun.is_empty() {
            piece
        } else {
            self.begin(&piece);
            self.begun.split().freeze()
        };
        let cut = std::mem::take(&mut self.overlong) || whole.len() > RECORD_BYTES_MAX;
        let bytes = if whole.len() > RECORD_BYTES_MAX { whole.slice(..CUT_BYTES) } else { whole };
        let blank = bytes.iter().all(u8::is_ascii_whitespace);
        (!blank || cut).then_some(Line { bytes, cut })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&str]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for piece in pieces {
            lines.feed(Bytes::copy_from_slice(piece.as_bytes()));
            while let Some(line) = lines.next() {
                out.push(String::from_utf8(line.bytes.to_vec()).unwrap());
            }
        }
        out.extend(lines.finish().map(|line| String::from_utf8(line.bytes.to_vec()).unwrap()));
        out
    }

    #[test]
    fn lines_are_the_same_however_the_stream_is_cut() {
        let text = "{\"a\":1}\r\n\n{\"b\":2}\n   \n{\"c\":3}";
        let whole = split(&[text]);
        assert_eq!(whole, ["{\"a\":1}\r", "{\"b\":2}", "{\"c\":3}"]);
        for i in 0..text.len() {
            for j in i..text.len() {
                assert_eq!(split(&[&text[..i], &text[i..j], &text[j..]]), whole, "cut at {i} and {j}");
            }
        }
    }

    #[test]
    fn an_overlong_line_is_cut_and_does_not_swallow_the_next() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for _ in 0..6 {
            lines.feed(Bytes::from(vec![b'x'; 1024 * 1024]));
            assert_eq!(lines.next(), None);
        }
        lines.feed(Bytes::from_static(b"tail\n{}\n"));
        while let Some(line) = lines.next() {
            seen.push((line.bytes.len(), line.cut));
        }
        assert_eq!(seen, [(CUT_BYTES, true), (2, false)]);
    }
}
