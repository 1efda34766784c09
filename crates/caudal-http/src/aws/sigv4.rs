//! AWS Signature Version 4, verified: the request is written out in its canonical form and signed once more with the secret
//! of whoever claims to have sent it.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use http::{HeaderMap, Method, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::entry::hex;
use super::fault::{Answered, EXPIRED, Fault, INCOMPLETE, UNKNOWN_KEY, WRONG_SIGNATURE};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// How far the signed time may be from ours, either way.
const TOLERANCE_SECONDS: u64 = 15 * 60;
/// RFC 3986's unreserved characters stay as they are.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Access key ids and their secrets.
#[derive(Clone, Default)]
pub struct Keys(BTreeMap<String, String>);

impl Keys {
    /// Ids are compared without regard to case: an environment variable's name, by which one can be set, has none.
    ///
    /// # Errors
    /// Names an id that is there twice, or is empty, or has an empty secret.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let mut keys = BTreeMap::new();
        for (id, secret) in pairs {
            if id.is_empty() || secret.is_empty() {
                return Err(format!("the access key {id:?} has an empty id or an empty secret"));
            }
            if keys.insert(id.to_ascii_lowercase(), secret.to_owned()).is_some() {
                return Err(format!("the access key {id:?} is there twice"));
            }
        }
        Ok(Self(keys))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn secret(&self, id: &str) -> Option<&str> {
        self.0.get(&id.to_ascii_lowercase()).map(String::as_str)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What an `Authorization` header says.
#[derive(Debug)]
pub(crate) struct Claim<'h> {
    key_id: &'h str,
    /// `<date>/<region>/<service>/aws4_request`.
    scope: &'h str,
    date: &'h str,
    pub(crate) region: &'h str,
    pub(crate) service: &'h str,
    signed_headers: Vec<&'h str>,
    signature: Vec<u8>,
}

impl<'h> Claim<'h> {
    /// `None` without a signature of this kind.
    pub(crate) fn of(headers: &'h HeaderMap) -> Option<Answered<Self>> {
        let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix(ALGORITHM)?;
        let incomplete =
            || Fault::new(&INCOMPLETE, "Authorization header requires Credential, SignedHeaders and Signature.");
        Some(Self::read(text).ok_or_else(incomplete))
    }

    fn read(text: &'h str) -> Option<Self> {
        let part = |name: &str| text.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
        let (key_id, scope) = part("Credential")?.split_once('/')?;
        let [date, region, service, "aws4_request"] = scope.split('/').collect::<Vec<_>>()[..] else { return None };
        let signature = unhex(part("Signature")?)?;
        let signed_headers = part("SignedHeaders")?.split(';').collect();
        Some(Self { key_id, scope, date, region, service, signed_headers, signature })
    }

    /// Verifies the claim over the whole request. `now` is in Unix seconds.
    ///
    /// # Errors
    /// AWS's own: an unknown key, another time, another signature.
    pub(crate) fn verify(
        &self,
        keys: &Keys,
        (method, uri, headers): (&Method, &Uri, &HeaderMap),
        body: &[u8],
        now: u64,
    ) -> Answered<()> {
        let Some(secret) = keys.secret(self.key_id) else {
            return Err(Fault::new(&UNKNOWN_KEY, "The security token included in the request is invalid."));
        };
        let time = headers.get("x-amz-date").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some(at) = unix_seconds(time).filter(|_| time.starts_with(self.date)) else {
            return Err(Fault::new(
                &INCOMPLETE,
                "The request has no X-Amz-Date of the form YYYYMMDDTHHMMSSZ on the credential's date.",
            ));
        };
        if now.abs_diff(at) > TOLERANCE_SECONDS {
            return Err(Fault::new(
                &EXPIRED,
                format!("Signature expired: {time} is more than {TOLERANCE_SECONDS} s from now."),
            ));
        }
        // What decides where the request goes, when it was made and what it asks for must be signed.
        let decisive = ["host", "x-amz-date", "x-amz-target"].into_iter().filter(|name| headers.contains_key(*name));
        if let Some(unsigned) = decisive.into_iter().find(|name| !self.signed_headers.contains(name)) {
            return Err(Fault::new(&INCOMPLETE, format!("The header '{unsigned}' must be signed.")));
        }
        let canonical = self.canonical_request(method, uri, headers, body);
        let hash = hex(&Sha256::digest(canonical.as_bytes()));
        let to_sign = [ALGORITHM, time, self.scope, &hash].join("\n");
        let steps = [self.date, self.region, self.service, "aws4_request"];
        let key = steps.iter().fold(format!("AWS4{secret}").into_bytes(), |key, step| {
            hmac::sign(&hmac::Key::new(HMAC_SHA256, &key), step.as_bytes()).as_ref().to_vec()
        });
        hmac::verify(&hmac::Key::new(HMAC_SHA256, &key), to_sign.as_bytes(), &self.signature).map_err(|_| {
            let message = "The request signature we calculated does not match the signature you provided. Check your \
                           secret access key; a proxy in between must leave the Host header as it is.";
            Fault::new(&WRONG_SIGNATURE, message)
        })
    }

    fn canonical_request(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> String {
        let mut text = format!("{method}\n{}\n{}\n", canonical_path(uri.path()), canonical_query(uri.query()));
        for name in &self.signed_headers {
            text.push_str(name);
            text.push(':');
            for (i, value) in headers.get_all(*name).iter().enumerate() {
                let value = String::from_utf8_lossy(value.as_bytes());
                text.push_str(if i > 0 { "," } else { "" });
                text.push_str(&value.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
            }
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.signed_headers.join(";"));
        text.push('\n');
        text.push_str(&hex(&Sha256::digest(body)));
        text
    }
}

/// The path without its empty and dotted parts, encoded once more than it is.
fn canonical_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut text: String = parts.iter().flat_map(|part| ["/".to_owned(), encode(part)]).collect();
    if text.is_empty() || path.ends_with('/') {
        text.push('/');
    }
    text
}

fn canonical_query(query: Option<&str>) -> String {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let again = |text: &str| encode(&percent_decode_str(text).decode_utf8_lossy());
        (again(name), again(value))
    });
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let byte = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).ok();
    digits.then(|| (0..text.len()).step_by(2).map_while(byte).collect())
}

/// `20150830T123600Z`.
fn unix_seconds(text: &str) -> Option<u64> {
    let shape = text.len() == 16 && text.is_ascii() && &text[8..9] == "T" && text.ends_with('Z');
    let spelled = shape.then(|| {
        let (date, time) = (&text[..8], &text[9..15]);
        format!("{}-{}-{}T{}:{}:{}Z", &date[..4], &date[4..6], &date[6..], &time[..2], &time[2..4], &time[4..])
    })?;
    u64::try_from(caudal_core::time::Instant::parse(&spelled)?.unix_millis() / 1000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key, time and scope of AWS's published test suite (aws-sig-v4-test-suite).
    const ID: &str = "AKIDEXAMPLE";
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const AT: u64 = 1_440_938_160;

    struct Request<'a> {
        method: Method,
        target: &'a str,
        headers: &'a [(&'static str, &'a str)],
        signed: &'a str,
        body: &'a [u8],
        signature: &'a str,
    }

    impl Default for Request<'_> {
        fn default() -> Self {
            Self {
                method: Method::GET,
                target: "/",
                headers: &[],
                signed: "host;x-amz-date",
                body: b"",
                signature: "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            }
        }
    }

    fn verdict(request: &Request<'_>, id: &str, secret: &str, now: u64) -> Result<(), &'static str> {
        let Request { method, target, signed, signature, .. } = request;
        let mut headers = HeaderMap::new();
        headers.insert("host", "example.amazonaws.com".parse().unwrap());
        headers.insert("x-amz-date", "20150830T123600Z".parse().unwrap());
        for (name, value) in request.headers {
            headers.append(*name, value.parse().unwrap());
        }
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={id}/20150830/us-east-1/service/aws4_request, SignedHeaders={signed}, Signature={signature}"
        );
        headers.insert("authorization", authorization.parse().unwrap());
        let claim = Claim::of(&headers).unwrap().map_err(|fault| fault.kind.sns)?;
        let keys = Keys::new([("other", "x"), (ID, secret)]).unwrap();
        let parts = (method, &target.parse().unwrap(), &headers);
        claim.verify(&keys, parts, request.body, now).map_err(|fault| fault.kind.sns)
    }

    #[test]
    fn the_published_requests_verify() {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        for (name, request) in [
            ("get-vanilla", Request::default()),
            (
                "get-vanilla-query-order-key-case",
                Request {
                    target: "/?Param2=value2&Param1=value1",
                    signature: "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
                    ..Request::default()
                },
            ),
            (
                "post-vanilla",
                Request {
                    method: Method::POST,
                    signature: "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
                    ..Request::default()
                },
            ),
            (
                "post-x-www-form-urlencoded",
                Request {
                    method: Method::POST,
                    headers: &form,
                    signed: "content-type;host;x-amz-date",
                    body: b"Param1=value1",
                    signature: "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
                    ..Request::default()
                },
            ),
        ] {
            assert_eq!(verdict(&request, ID, SECRET, AT), Ok(()), "{name}");
            assert_eq!(verdict(&request, &ID.to_lowercase(), SECRET, AT), Ok(()), "{name}");
            let other = Request { body: b"Param1=value2", ..request };
            assert_eq!(verdict(&other, ID, SECRET, AT), Err("SignatureDoesNotMatch"), "{name}");
        }
    }

    #[test]
    fn what_differs_does_not() {
        let good = Request::default();
        assert_eq!(verdict(&good, ID, "wrong", AT), Err("SignatureDoesNotMatch"));
        assert_eq!(verdict(&good, "nobody", SECRET, AT), Err("InvalidClientTokenId"));
        for (now, wanted) in [
            (AT + TOLERANCE_SECONDS, Ok(())),
            (AT - TOLERANCE_SECONDS, Ok(())),
            (AT + TOLERANCE_SECONDS + 1, Err("RequestExpired")),
            (AT - TOLERANCE_SECONDS - 1, Err("RequestExpired")),
        ] {
            assert_eq!(verdict(&good, ID, SECRET, now), wanted);
        }
        let flipped = good.signature.replace("5fa0", "5fa1");
        for (request, wanted) in [
            (Request { signature: &flipped, ..Request::default() }, "SignatureDoesNotMatch"),
            (Request { signature: &good.signature[..62], ..Request::default() }, "IncompleteSignature"),
            (Request { signature: "", ..Request::default() }, "IncompleteSignature"),
            (Request { target: "/x", ..Request::default() }, "SignatureDoesNotMatch"),
            (Request { method: Method::POST, ..Request::default() }, "SignatureDoesNotMatch"),
            (Request { signed: "x-amz-date", ..Request::default() }, "IncompleteSignature"),
            (Request { signed: "host", ..Request::default() }, "IncompleteSignature"),
            (
                Request { headers: &[("x-amz-target", "AmazonSQS.SendMessage")], ..Request::default() },
                "IncompleteSignature",
            ),
        ] {
            assert_eq!(verdict(&request, ID, SECRET, AT), Err(wanted), "{} {}", request.target, request.signed);
        }
    }

    #[test]
    fn paths_queries_and_times_are_canonical() {
        for (path, wanted) in
            [("/", "/"), ("", "/"), ("//a/./b/../c", "/a/c"), ("/a%20b/", "/a%2520b/"), ("/é", "/%C3%A9")]
        {
            assert_eq!(canonical_path(path), wanted);
        }
        assert_eq!(canonical_query(Some("b=2&a=%2f&a=+&c")), "a=%2B&a=%2F&b=2&c=");
        assert_eq!(unix_seconds("20150830T123600Z"), Some(AT));
        for wrong in
            ["", "20150830T123600", "20151330T123600Z", "2015-08-30T12:36Z", "20150830 123600Z", "2015083éT12360Z"]
        {
            assert_eq!(unix_seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn keys_are_named_once_and_never_shown() {
        assert!(Keys::new([("A", "x"), ("a", "y")]).is_err());
        assert!(Keys::new([("A", "")]).is_err() && Keys::new([("", "x")]).is_err());
        assert!(!format!("{:?}", Keys::new([(ID, SECRET)]).unwrap()).contains("wJalr"));
    }
}
