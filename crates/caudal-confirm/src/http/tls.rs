//! TLS to an endpoint: rustls, with the public authorities or a private one, and a certificate of one's own where it is asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that may vouch for the endpoint, instead of the public ones.
    pub authority: Option<PathBuf>,
    /// What Caudal shows to the endpoint, with the chain behind it.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

pub(super) fn connector(files: &TlsFiles) -> Result<TlsConnector, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(authorities(files.authority.as_deref())?);
    let mut config = match (&files.certificate, &files.key) {
        (Some(certificate), Some(key)) => {
            let pair = PrivateKeyDer::from_pem_file(key).map_err(|e| unusable(key, &e))?;
            config.with_client_auth_cert(certificates(certificate)?, pair).map_err(|e| unusable(key, &e))?
        }
        (None, None) => config.with_no_client_auth(),
        _ => return Err("a client certificate is a certificate and its key: name both files".to_owned()),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn authorities(file: Option<&Path>) -> Result<RootCertStore, String> {
    let Some(file) = file else {
        return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    };
    let mut store = RootCertStore::empty();
    for certificate in certificates(file)? {
        store.add(certificate).map_err(|e| unusable(file, &e))?;
    }
    Ok(store)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(|e| unusable(file, &e))?.collect();
    match all {
        Ok(all) if all.is_empty() => Err(unusable(file, &"it holds no certificate")),
        all => all.map_err(|e| unusable(file, &e)),
    }
}

fn unusable(file: &Path, why: &dyn std::fmt::Display) -> String {
    format!("{} cannot be used: {why}", file.display())
}
