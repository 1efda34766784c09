//! What is refused before any route sees it: oversized heads, foreign hosts, strangers.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, Request, StatusCode, header};
use percent_encoding::percent_decode_str;

use crate::keys::{self, KeyHash};
use crate::problem::Problem;

const URI_BYTES_MAX: usize = 8 * 1024;
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Who may come in.
#[derive(Debug, Clone)]
pub enum Access {
    /// Loopback without keys: only requests that name this machine as their host, so that a web page elsewhere cannot reach
    /// in through a visitor's browser.
    Local { listen: SocketAddr },
    /// Anybody who presents one of these keys as a bearer token.
    Keys(Vec<KeyHash>),
    /// Anybody at all; somebody decided so with a long flag.
    Open,
}

/// Who sent a request, for the routes that let strangers come as far as a signature check of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Presented an API key.
    KeyHolder,
    /// Needs none: this server is on loopback, or open to anybody.
    Welcome,
    /// Nothing is known about them.
    Stranger,
}

/// Routes that probes may ask without a key: they say nothing about the data.
pub(crate) const OPEN_PATHS: [&str; 3] = ["/ping", "/livez", "/readyz"];
/// Routes whose callers sign what they send instead of presenting a key: SNS and webhooks.
pub(crate) const SNS_PREFIX: &str = "/sns/";
pub(crate) const WEBHOOK_PREFIX: &str = "/webhooks/";

/// Checks a request's head. A request to a route that looks at signatures itself is told who its [`Caller`] is.
pub(crate) fn check<B>(request: &mut Request<B>, access: &Access) -> Result<(), Problem> {
    if request.uri().path_and_query().is_some_and(|p| p.as_str().len() > URI_BYTES_MAX) {
        let detail = format!("a request target has at most {URI_BYTES_MAX} bytes");
        return Err(Problem::new(StatusCode::URI_TOO_LONG, "uri_too_long", detail));
    }
    if percent_decode_str(request.uri().path()).decode_utf8().is_err() {
        return Err(Problem::bad_request("bad_path", "the path is not percent-encoded UTF-8"));
    }
    let headers = request.headers();
    let head: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if head > HEADER_BYTES_MAX {
        let detail = format!("request headers have at most {HEADER_BYTES_MAX} bytes");
        return Err(Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", detail));
    }
    if let Some(expect) = headers.get(header::EXPECT)
        && !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(Problem::new(
            StatusCode::EXPECTATION_FAILED,
            "bad_expectation",
            "only Expect: 100-continue is met",
        ));
    }
    if request.version() == http::Version::HTTP_11 && headers.get_all(header::HOST).iter().count() != 1 {
        return Err(Problem::bad_request("missing_host", "HTTP/1.1 requests carry one Host header"));
    }
    let door = Door::of(request.method(), request.uri().path());
    let caller = admit(request.uri().path(), door, headers, access)?;
    if door != Door::Usual {
        request.extensions_mut().insert(caller);
    }
    Ok(())
}

/// What a route asks of its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// The API key.
    Usual,
    /// A signature over what is sent, always.
    Signed,
    /// A signature by an AWS key pair, where those are configured.
    Aws,
}

impl Door {
    fn of(method: &Method, path: &str) -> Self {
        if *method != Method::POST {
            Self::Usual
        } else if path.starts_with(SNS_PREFIX) || path.starts_with(WEBHOOK_PREFIX) {
            Self::Signed
        } else if path == "/" || path.strip_prefix('/').is_some_and(|p| p.starts_with(crate::aws::ACCOUNT)) {
            Self::Aws
        } else {
            Self::Usual
        }
    }
}

fn admit(path: &str, door: Door, headers: &HeaderMap, access: &Access) -> Result<Caller, Problem> {
    match access {
        Access::Open => Ok(Caller::Welcome),
        Access::Local { listen } => {
            if local_host(headers, *listen) && local_origin(headers) {
                return Ok(Caller::Welcome);
            }
            // A tunnel keeps the name it is reached by, and a page in a browser cannot sign.
            if door == Door::Signed {
                return Ok(Caller::Stranger);
            }
            let detail = "this server listens on loopback without keys and answers only requests for localhost";
            Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "misdirected_request", detail))
        }
        Access::Keys(_) if OPEN_PATHS.contains(&path) => Ok(Caller::Stranger),
        Access::Keys(hashes) => {
            let authorization = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
            let presented = authorization.and_then(|b| b.strip_prefix("Bearer ")).or_else(|| {
                // PostgREST's clients send their key here.
                headers.get("apikey").and_then(|v| v.to_str().ok())
            });
            if presented.is_some_and(|key| keys::admitted(hashes, key.trim())) {
                return Ok(Caller::KeyHolder);
            }
            if door != Door::Usual {
                let password = authorization.filter(|_| path.starts_with(SNS_PREFIX)).and_then(password);
                let known = password.is_some_and(|key| keys::admitted(hashes, &key));
                return Ok(if known { Caller::KeyHolder } else { Caller::Stranger });
            }
            let detail = "send a valid key as Authorization: Bearer <key>; `caudal keys new` makes one";
            Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
                .header(header::WWW_AUTHENTICATE, "Bearer realm=\"caudal\""))
        }
    }
}

/// The password of HTTP Basic: the only credentials that SNS can be given, in the endpoint's URL.
fn password(authorization: &str) -> Option<String> {
    let pair = STANDARD.decode(authorization.strip_prefix("Basic ")?.trim()).ok()?;
    let (_, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    Some(password.to_owned())
}

fn local_host(headers: &HeaderMap, listen: SocketAddr) -> bool {
    // HTTP/1.0 clients may leave it out; browsers, which are what this protects, never do.
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = host.strip_suffix(&format!(":{}", listen.port())).unwrap_or(host);
    is_local(name) || name == listen.ip().to_string()
}

fn local_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Some((_, host)) = origin.to_str().ok().and_then(|o| o.split_once("://")) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    is_local(name)
}

fn is_local(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name == "127.0.0.1" || name == "[::1]"
}
