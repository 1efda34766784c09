//! Signatures of requests as Standard Webhooks has them, which is also what Caudal verifies on the way in.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// What the specification asks of a secret.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// One key, and a second one while the endpoint changes its secret.
pub(super) struct Signer(Vec<hmac::Key>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.0.len())
    }
}

impl Signer {
    /// Secrets of the form `whsec_…`. Without any, nothing is signed.
    ///
    /// # Errors
    /// A sentence that does not repeat the secret.
    pub(super) fn new(secrets: &[String]) -> Result<Self, String> {
        let key = |secret: &String| {
            let text = secret.strip_prefix("whsec_").ok_or("a secret for signatures begins with whsec_")?;
            let bytes = STANDARD.decode(text).map_err(|_| "what follows whsec_ is not base64")?;
            match KEY_BYTES.contains(&bytes.len()) {
                true => Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes)),
                false => Err("a secret for signatures has 24 to 64 bytes"),
            }
        };
        Ok(Self(secrets.iter().map(key).collect::<Result<_, &str>>()?))
    }

    /// Adds the headers. `id` is what the receiver deduplicates by; the time is part of what is signed, so that an old request
    /// cannot be sent again by somebody who saw it.
    pub(super) fn sign(&self, headers: &mut HeaderMap, id: &str, body: &[u8]) {
        if self.0.is_empty() {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).to_string();
        let signature = |key: &hmac::Key| {
            let mut signed = hmac::Context::with_key(key);
            for part in [id.as_bytes(), b".", now.as_bytes(), b".", body] {
                signed.update(part);
            }
            format!("v1,{}", STANDARD.encode(signed.sign().as_ref()))
        };
        let signatures: Vec<_> = self.0.iter().map(signature).collect();
        for (name, value) in [(ID, id), (TIMESTAMP, &now), (SIGNATURE, &signatures.join(" "))] {
            // A key, digits and base64 are always a header's value.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_protect_nothing_are_refused() {
        let refused = |secret: &str| Signer::new(&[secret.to_owned()]).expect_err("refused");
        assert!(refused("C2FVsBQIhrscChlQIMV+b5sSYspob7oD").contains("whsec_"));
        assert!(refused("whsec_AAAA").contains("24 to 64"));
        assert!(refused("whsec_*").contains("base64"));
        let signer = Signer::new(&["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".to_owned()]).expect("a secret");
        assert_eq!(format!("{signer:?}"), "Signer(1)");
    }
}
