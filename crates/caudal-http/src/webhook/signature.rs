//! Signatures over a webhook's raw body: Standard Webhooks, and the one-header HMAC that most others use.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};

/// How far a signed time may be from ours, either way.
pub(crate) const TOLERANCE_SECONDS: u64 = 300;
/// Signatures of one request that are looked at; a sender has one a secret, and two while it changes secrets.
const SIGNATURES_MAX: usize = 16;
/// What the specification asks of a secret.
const STANDARD_KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

pub(crate) const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Unsigned,
    Wrong,
    Stale,
}

/// Keys of one topic. Several may be valid at once, so that they can be changed without a gap.
pub(crate) struct Keys(Vec<hmac::Key>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Keys {
    /// Secrets as Standard Webhooks writes them: `whsec_` and base64.
    pub(crate) fn standard(secrets: &[&str]) -> Result<Self, String> {
        let key = |secret: &&str| {
            let text = secret.strip_prefix("whsec_").ok_or("a Standard Webhooks secret begins with whsec_")?;
            let bytes = STANDARD.decode(text).map_err(|_| "what follows whsec_ is not base64")?;
            match STANDARD_KEY_BYTES.contains(&bytes.len()) {
                true => Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes)),
                false => Err("a Standard Webhooks secret has 24 to 64 bytes"),
            }
        };
        Self::several(secrets.iter().map(key).collect::<Result<_, &str>>()?)
    }

    /// Secrets whose text is the key.
    pub(crate) fn plain(secrets: &[&str]) -> Result<Self, String> {
        if secrets.iter().any(|secret| secret.is_empty()) {
            return Err("a secret is empty".to_owned());
        }
        Self::several(secrets.iter().map(|s| hmac::Key::new(hmac::HMAC_SHA256, s.as_bytes())).collect())
    }

    fn several(keys: Vec<hmac::Key>) -> Result<Self, String> {
        if keys.is_empty() {
            Err("there is no secret, so nothing could be verified".to_owned())
        } else {
            Ok(Self(keys))
        }
    }

    /// Whether any key made any of the signatures. Tries them all: which one it was does not show in the time taken.
    fn made(&self, signed: &[u8], signatures: &[Vec<u8>]) -> bool {
        self.0.iter().fold(false, |found, key| {
            signatures.iter().fold(found, |found, signature| hmac::verify(key, signed, signature).is_ok() | found)
        })
    }
}

/// Verifies a request in the form of Standard Webhooks and returns its `webhook-id`. `now` is in Unix seconds.
pub(crate) fn standard<'h>(keys: &Keys, headers: &'h HeaderMap, body: &[u8], now: u64) -> Result<&'h str, Refusal> {
    let text = |name: &HeaderName| only(headers, name).filter(|text| !text.is_empty()).ok_or(Refusal::Unsigned);
    let (id, timestamp, signatures) = (text(&ID)?, text(&TIMESTAMP)?, text(&SIGNATURE)?);
    // `v1a` is a public-key signature, which needs no secret and is not configured here.
    let signatures: Vec<Vec<u8>> = signatures
        .split(' ')
        .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
        .take(SIGNATURES_MAX)
        .collect();
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    if !keys.made(&signed, &signatures) {
        return Err(Refusal::Wrong);
    }
    let at: u64 = timestamp.parse().map_err(|_| Refusal::Wrong)?;
    if now.abs_diff(at) > TOLERANCE_SECONDS { Err(Refusal::Stale) } else { Ok(id) }
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Hex,
    Base64,
}

impl Encoding {
    fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Base64 => STANDARD.decode(text).ok(),
            Self::Hex => {
                let digits = text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit());
                let byte = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).ok();
                digits.then(|| (0..text.len()).step_by(2).map_while(byte).collect())
            }
        }
    }
}

/// Verifies the one header that has the HMAC-SHA256 of the body.
pub(crate) fn single(
    keys: &Keys,
    headers: &HeaderMap,
    (name, prefix, encoding): (&HeaderName, &str, Encoding),
    body: &[u8],
) -> Result<(), Refusal> {
    let text = only(headers, name).filter(|text| !text.is_empty()).ok_or(Refusal::Unsigned)?;
    let signature = text.strip_prefix(prefix).and_then(|text| encoding.decode(text)).ok_or(Refusal::Wrong)?;
    if keys.made(body, &[signature]) { Ok(()) } else { Err(Refusal::Wrong) }
}

/// A header that is there once.
pub(crate) fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const MESSAGE: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
    const AT: u64 = 1_649_367_553;
    const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;
    const GOOD: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";

    fn headers(id: &str, at: &str, signature: &str) -> HeaderMap {
        [(ID, id), (TIMESTAMP, at), (SIGNATURE, signature)].map(|(n, v)| (n, v.parse().unwrap())).into_iter().collect()
    }

    fn verdict(id: &str, at: &str, signature: &str, body: &[u8], now: u64) -> Result<String, Refusal> {
        let keys = Keys::standard(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", SECRET]).unwrap();
        standard(&keys, &headers(id, at, signature), body, now).map(str::to_owned)
    }

    #[test]
    fn the_published_vector_verifies_and_its_neighbours_do_not() {
        let at = AT.to_string();
        assert_eq!(verdict(MESSAGE, &at, GOOD, BODY, AT).unwrap(), MESSAGE);
        let several = format!("v1a,AAAA v1,{} {GOOD} v2,x", STANDARD.encode([7; 32]));
        assert!(verdict(MESSAGE, &at, &several, BODY, AT).is_ok());
        for (now, wanted) in [
            (AT + TOLERANCE_SECONDS, Ok(MESSAGE.to_owned())),
            (AT - TOLERANCE_SECONDS, Ok(MESSAGE.to_owned())),
            (AT + TOLERANCE_SECONDS + 1, Err(Refusal::Stale)),
            (AT - TOLERANCE_SECONDS - 1, Err(Refusal::Stale)),
        ] {
            assert_eq!(verdict(MESSAGE, &at, GOOD, BODY, now), wanted);
        }
        assert_eq!(verdict("msg_other", &at, GOOD, BODY, AT), Err(Refusal::Wrong));
        assert_eq!(verdict(MESSAGE, &(AT + 1).to_string(), GOOD, BODY, AT), Err(Refusal::Wrong));
        assert_eq!(verdict(MESSAGE, &at, GOOD, b"{}", AT), Err(Refusal::Wrong));
        assert_eq!(verdict(MESSAGE, &at, &GOOD.replace("v1,", "v1a,"), BODY, AT), Err(Refusal::Wrong));
        assert_eq!(verdict(MESSAGE, &at, &GOOD[..40], BODY, AT), Err(Refusal::Wrong));
        assert_eq!(verdict(MESSAGE, &at, "v1,", BODY, AT), Err(Refusal::Wrong));
        assert_eq!(verdict(MESSAGE, &at, "", BODY, AT), Err(Refusal::Unsigned));
        assert_eq!(verdict("", &at, GOOD, BODY, AT), Err(Refusal::Unsigned));
    }

    #[test]
    fn a_header_that_is_there_twice_is_no_signature() {
        let keys = Keys::standard(&[SECRET]).unwrap();
        let mut twice = headers(MESSAGE, &AT.to_string(), GOOD);
        twice.append(SIGNATURE, GOOD.parse().unwrap());
        assert_eq!(standard(&keys, &twice, BODY, AT), Err(Refusal::Unsigned));
    }

    #[test]
    fn a_single_header_in_hex_and_base64() {
        // GitHub's own example, "Validating webhook deliveries".
        let (secret, body) = ("It's a Secret to Everybody", b"Hello, World!");
        let hex = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let keys = Keys::plain(&["another", secret]).unwrap();
        let name = HeaderName::from_static("x-hub-signature-256");
        let check = |value: &str, encoding, body: &[u8]| {
            let headers = [(name.clone(), value.parse().unwrap())].into_iter().collect();
            single(&keys, &headers, (&name, "sha256=", encoding), body)
        };
        assert_eq!(check(&format!("sha256={hex}"), Encoding::Hex, body), Ok(()));
        assert_eq!(check(&format!("sha256={}", hex.to_uppercase()), Encoding::Hex, body), Ok(()));
        let base64 = STANDARD.encode(Encoding::Hex.decode(hex).unwrap());
        assert_eq!(check(&format!("sha256={base64}"), Encoding::Base64, body), Ok(()));
        for wrong in [hex.to_owned(), format!("sha1={hex}"), format!("sha256={}", &hex[1..]), "sha256=é".to_owned()] {
            assert_ne!(check(&wrong, Encoding::Hex, body), Ok(()), "{wrong}");
        }
        assert_eq!(check(&format!("sha256={hex}"), Encoding::Hex, b"Hello, World?"), Err(Refusal::Wrong));
        assert_eq!(check("", Encoding::Hex, body), Err(Refusal::Unsigned));
    }

    #[test]
    fn secrets_that_protect_nothing_are_refused() {
        assert!(Keys::standard(&[]).is_err() && Keys::plain(&[]).is_err() && Keys::plain(&["a", ""]).is_err());
        assert!(Keys::standard(&["C2FVsBQIhrscChlQIMV+b5sSYspob7oD"]).unwrap_err().contains("whsec_"));
        assert!(Keys::standard(&["whsec_AAAA"]).unwrap_err().contains("24 to 64"));
        assert!(Keys::standard(&["whsec_*"]).unwrap_err().contains("base64"));
        assert_eq!(format!("{:?}", Keys::standard(&[SECRET]).unwrap()), "Keys(1)");
    }
}
