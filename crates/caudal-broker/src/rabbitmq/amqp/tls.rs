//! `amqps://`: rustls, with the public authorities or those in the URL's `cacertfile`.

use std::sync::Arc;

use caudal_core::error::BrokerError;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::rabbitmq::url::{Tls, Url};

pub(super) fn client(settings: &Tls) -> Result<TlsConnector, BrokerError> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(BrokerError::fatal)?
        .with_root_certificates(authorities(settings)?);
    let config = match (&settings.certificate_file, &settings.key_file) {
        (Some(certificate), Some(key)) => {
            let unusable = |e: &dyn std::fmt::Display| BrokerError::Setup(format!("keyfile {key} cannot be used: {e}"));
            let pair = PrivateKeyDer::from_pem_file(key).map_err(|e| unusable(&e))?;
            let config = config.with_client_auth_cert(certificates(certificate, "certfile")?, pair);
            config.map_err(|e| unusable(&e))?
        }
        _ => config.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

pub(super) fn name(url: &Url) -> Result<ServerName<'static>, BrokerError> {
    ServerName::try_from(url.host.clone())
        .map_err(|_| BrokerError::Setup(format!("{} is no name that a certificate could be made out to", url.host)))
}

fn authorities(settings: &Tls) -> Result<RootCertStore, BrokerError> {
    let Some(file) = &settings.authority_file else {
        return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    };
    let mut store = RootCertStore::empty();
    for certificate in certificates(file, "cacertfile")? {
        store.add(certificate).map_err(|e| BrokerError::Setup(format!("cacertfile {file} cannot be used: {e}")))?;
    }
    Ok(store)
}

fn certificates(file: &str, setting: &str) -> Result<Vec<CertificateDer<'static>>, BrokerError> {
    let unusable =
        |cause: &dyn std::fmt::Display| BrokerError::Setup(format!("{setting} {file} cannot be used: {cause}"));
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(|e| unusable(&e))?.collect();
    match all {
        Ok(all) if all.is_empty() => Err(unusable(&"it holds no certificate")),
        all => all.map_err(|e| unusable(&e)),
    }
}
