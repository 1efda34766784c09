//! SNS's signing certificates, and signatures held against them.
//!
//! What makes a certificate SNS's own is where it comes from: it is fetched over TLS from an address that only SNS can have
//! ([`super::address`]). On top of that it must be valid today and hold an RSA key of 2048 bits or more. Its chain to a
//! certificate authority and its revocation are not checked: SNS publishes the certificate alone, without the chain.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use http::StatusCode;
use reqwest::Url;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::Semaphore;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;

use super::{Message, address, unreachable};
use crate::fetch::{Fetch, FetchError};
use crate::problem::Problem;

/// Certificates kept. SNS has one or two a region at a time.
const KEPT_MAX: usize = 64;
/// How long a certificate is used before it is fetched again.
const GOOD_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long an address that held no certificate is not asked again.
const BAD_FOR: Duration = Duration::from_secs(60);
/// Fetches at once, whoever asks: a stranger can name certificates that are not there, but not make us busy with them.
const FETCHES_MAX: usize = 4;
/// How long a message waits for its turn to fetch before SNS is asked to repeat it.
const TURN_WITHIN: Duration = Duration::from_secs(5);
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// What a certificate says.
#[derive(Debug)]
struct SigningKey {
    /// `RSAPublicKey` in DER.
    rsa: Vec<u8>,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// The certificates that this process has seen, by address.
#[derive(Debug)]
pub(crate) struct Certificates {
    kept: Mutex<HashMap<Url, Kept>>,
    fetches: Semaphore,
}

#[derive(Debug, Clone)]
struct Kept {
    /// `None`: there is no certificate at this address.
    key: Option<Arc<SigningKey>>,
    until: Instant,
}

impl Default for Certificates {
    fn default() -> Self {
        Self { kept: Mutex::default(), fetches: Semaphore::new(FETCHES_MAX) }
    }
}

impl Certificates {
    /// Verifies a message of a topic in `region`.
    pub(crate) async fn verify(&self, fetch: &Fetch, message: &Message, region: &str) -> Result<(), Problem> {
        let url = address::certificate(&message.certificate_url, region)?;
        let algorithm = match message.version.as_str() {
            "1" => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            "2" => &RSA_PKCS1_2048_8192_SHA256,
            _ => return Err(forged("SignatureVersion is neither 1 nor 2")),
        };
        let key = self.key(fetch, url).await?.ok_or_else(|| forged("there is no certificate at SigningCertURL"))?;
        let now = SystemTime::now();
        if now < key.not_before || now > key.not_after {
            return Err(forged("the certificate at SigningCertURL is not valid today"));
        }
        UnparsedPublicKey::new(algorithm, &key.rsa)
            .verify(message.string_to_sign().as_bytes(), &message.signature)
            .map_err(|_| forged("the key at SigningCertURL did not make this signature over this message"))
    }

    async fn key(&self, fetch: &Fetch, url: Url) -> Result<Option<Arc<SigningKey>>, Problem> {
        if let Some(kept) = self.look(&url) {
            return Ok(kept.key);
        }
        let turn = tokio::time::timeout(TURN_WITHIN, self.fetches.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            let busy = FetchError::Unavailable("too many certificates are being fetched".to_owned());
            return Err(unreachable("SigningCertURL", &busy));
        };
        // Somebody else may have fetched it meanwhile.
        if let Some(kept) = self.look(&url) {
            return Ok(kept.key);
        }
        let key = match fetch.get(url.clone()).await {
            Ok(pem) => parse(&pem).map(Arc::new),
            Err(FetchError::Refused(why)) => {
                tracing::warn!(%url, why, "there is no certificate of SNS");
                None
            }
            Err(error) => return Err(unreachable("SigningCertURL", &error)),
        };
        self.keep(url, key.clone());
        Ok(key)
    }

    fn look(&self, url: &Url) -> Option<Kept> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(url).filter(|kept| kept.until > Instant::now()).cloned()
    }

    fn keep(&self, url: Url, key: Option<Arc<SigningKey>>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        kept.retain(|_, kept| kept.until > now);
        if kept.len() >= KEPT_MAX {
            // Those that are none go first, so that a stranger's inventions do not push out what is real.
            let least =
                kept.iter().min_by_key(|(_, kept)| (kept.key.is_some(), kept.until)).map(|(url, _)| url.clone());
            least.map(|url| kept.remove(&url));
        }
        let good_for = if key.is_some() { GOOD_FOR } else { BAD_FOR };
        kept.insert(url, Kept { key, until: now + good_for });
    }
}

/// The first certificate of a PEM file, if it holds an RSA key.
fn parse(pem: &[u8]) -> Option<SigningKey> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    let certificate = Certificate::from_der(&der).ok()?.tbs_certificate;
    let key = certificate.subject_public_key_info;
    let validity = certificate.validity;
    (key.algorithm.oid == RSA_ENCRYPTION).then_some(())?;
    Some(SigningKey {
        rsa: key.subject_public_key.as_bytes()?.to_vec(),
        not_before: validity.not_before.to_system_time(),
        not_after: validity.not_after.to_system_time(),
    })
}

fn forged(detail: &'static str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "sns_bad_signature", detail)
}
