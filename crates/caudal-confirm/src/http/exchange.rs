//! One request and its answer over one connection.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use caudal_core::confirm::answer::Answer;
use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, Request};
use hyper::body::{Body as _, Incoming};

use super::pool::{Body, Connection};

/// No endpoint may set a transaction aside for longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// An answer, and whether the connection can be used again.
pub(super) struct Exchanged {
    pub(super) answer: Answer,
    pub(super) reusable: bool,
}

impl Connection {
    /// Sends, and reads the answer: its first `body_bytes_max` bytes, of which more are not waited for.
    ///
    /// # Errors
    /// What was wrong, when no whole answer came. `self.written` says whether anything left.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Body>,
        body_bytes_max: usize,
    ) -> Result<Exchanged, String> {
        let answer = self.sender.send_request(request);
        let mut answer = pin!(answer);
        let mut ended = false;
        let answer = poll_fn(|cx| {
            if !ended {
                ended = self.driver.as_mut().poll(cx).is_ready();
            }
            match answer.as_mut().poll(cx) {
                Poll::Pending if ended => Poll::Ready(Err("the connection was closed".to_owned())),
                other => other.map_err(|e| cause(&e)),
            }
        });
        let (head, mut incoming) = answer.await?.into_parts();
        let mut body = BytesMut::new();
        let broken = |read: usize, why: String| {
            format!("the answer {} broke off after {read} bytes of its body: {why}", head.status.as_u16())
        };
        while let Some(piece) = self.piece(&mut incoming, &mut ended).await {
            let piece = piece.map_err(|why| broken(body.len(), why))?;
            let room = body_bytes_max - body.len();
            body.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.len() > room {
                return Ok(exchanged(head.status.as_u16(), &head.headers, body.freeze(), false));
            }
        }
        Ok(exchanged(head.status.as_u16(), &head.headers, body.freeze(), !ended))
    }

    /// The next piece of the body.
    async fn piece(&mut self, incoming: &mut Incoming, ended: &mut bool) -> Option<Result<Bytes, String>> {
        poll_fn(|cx| {
            if !*ended {
                *ended = self.driver.as_mut().poll(cx).is_ready();
            }
            loop {
                return match std::pin::Pin::new(&mut *incoming).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => Poll::Ready(Some(Ok(data))),
                        // Trailers say nothing that is read.
                        Err(_) => continue,
                    },
                    Poll::Ready(Some(Err(e))) => Poll::Ready(Some(Err(cause(&e)))),
                    Poll::Ready(None) => Poll::Ready(None),
                    Poll::Pending if *ended => Poll::Ready(Some(Err("the connection was closed".to_owned()))),
                    Poll::Pending => Poll::Pending,
                };
            }
        })
        .await
    }
}

fn exchanged(code: u16, headers: &HeaderMap, body: Bytes, reusable: bool) -> Exchanged {
    let answer = Answer::Status { code, retry_after: retry_after(headers, SystemTime::now()), body };
    Exchanged { answer, reusable }
}

/// Seconds, or a date: which is compared with the endpoint's own `Date`, because its clock need not be ours.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let asked = text(RETRY_AFTER)?;
    let wait = match asked.bytes().all(|b| b.is_ascii_digit()) && !asked.is_empty() {
        // More digits than fit are more seconds than anybody waits.
        true => Duration::from_secs(asked.parse().unwrap_or(u64::MAX)),
        false => {
            let at = httpdate::parse_http_date(asked).ok()?;
            let now = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
            at.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The cause that says most: hyper's own words are the same for most failures.
fn cause(error: &hyper::Error) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_words = inner.to_string();
        if !words.contains(&inner_words) {
            words = format!("{words}: {inner_words}");
        }
        source = inner.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_by_the_endpoints_clock() {
        let now = httpdate::parse_http_date("Sun, 22 Nov 2026 12:00:00 GMT").expect("a date");
        let asked = |after: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, after.parse().expect("a value"));
            date.map(|date| headers.insert(DATE, date.parse().expect("a value")));
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(asked("120", None), Some(120));
        assert_eq!(asked("0", None), Some(0));
        assert_eq!(asked("Sun, 22 Nov 2026 12:00:30 GMT", None), Some(30));
        assert_eq!(asked("Sun, 22 Nov 2026 12:00:30 GMT", Some("Sun, 22 Nov 2026 12:00:20 GMT")), Some(10));
        assert_eq!(asked("Sun, 22 Nov 2026 11:00:00 GMT", None), Some(0), "it has passed");
        let day = RETRY_AFTER_MAX.as_secs();
        assert_eq!(asked("99999999999999999999999999", None), Some(day));
        assert_eq!(asked("Mon, 22 Nov 2027 12:00:00 GMT", None), Some(day));
        for strange in ["", "soon", "-1", "1.5", "+3", "1 2"] {
            assert_eq!(asked(strange, None), None, "{strange}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
