//! TLS with certificates that openssl made: who is trusted, who is let in, and what is known when it fails.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use caudal_confirm::http::{HttpConfig, HttpConfirmer, Resolve, TlsFiles};
use caudal_testkit::endpoint::{Behaviour, Endpoint};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use crate::{PATIENCE, called, not_sent, unknown};

/// Two authorities; one vouches for the bank and for Caudal.
struct Papers(TempDir);

impl Papers {
    fn new() -> Self {
        let papers = Self(TempDir::new().unwrap());
        for authority in ["ca", "stranger"] {
            papers.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={authority} -keyout {authority}.key -out {authority}.pem"
            ));
        }
        std::fs::write(papers.file("bank.ext"), "subjectAltName=DNS:bank.test").unwrap();
        std::fs::write(papers.file("caudal.ext"), "subjectAltName=DNS:caudal.test").unwrap();
        for (name, authority) in [("bank", "ca"), ("caudal", "ca")] {
            papers.openssl(&format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
            ));
            papers.openssl(&format!(
                "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.pem"
            ));
        }
        papers
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(&self.0).output();
        let output = output.expect("openssl runs; if it is missing: apt-get install openssl");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn files(&self, authority: &str, own: Option<&str>) -> TlsFiles {
        TlsFiles {
            authority: Some(self.file(authority)),
            certificate: own.map(|own| self.file(&format!("{own}.pem"))),
            key: own.map(|own| self.file(&format!("{own}.key"))),
        }
    }
}

/// The endpoint behind TLS that lets in who has a certificate of the authority.
async fn bank(papers: &Papers) -> (Arc<Endpoint>, u16) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut trusted = RootCertStore::empty();
    trusted.add(certificate(&papers.file("ca.pem"))).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(trusted.into(), provider.clone()).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![certificate(&papers.file("bank.pem"))],
            PrivateKeyDer::from_pem_file(papers.file("bank.key")).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let endpoint = Arc::new(Endpoint::start(Behaviour::default()).await.unwrap());
    let behind = endpoint.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, endpoint) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    endpoint.serve(stream).await;
                }
            });
        }
    });
    (endpoint, port)
}

fn certificate(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}

fn to_loopback() -> Resolve {
    Arc::new(|_, port| Box::pin(async move { Ok(vec![([127, 0, 0, 1], port).into()]) }))
}

fn confirmer(host: &str, port: u16, tls: TlsFiles) -> HttpConfirmer {
    let url = format!("https://{host}:{port}/payments");
    let config = HttpConfig { tls, timeout: PATIENCE, allow_private: Some(true), ..HttpConfig::new(&url) };
    HttpConfirmer::open_with(&config, to_loopback()).unwrap()
}

#[tokio::test]
async fn both_sides_show_certificates_and_connections_are_kept() {
    let papers = Papers::new();
    let (endpoint, port) = bank(&papers).await;
    let good = confirmer("bank.test", port, papers.files("ca.pem", Some("caudal")));
    for n in 0..3 {
        assert_eq!(called(&good, Uuid::from_u128(n)).await.code(), Some(200));
    }
    let totals = endpoint.totals();
    assert_eq!((totals.connections, totals.effects), (1, 3));
}

#[tokio::test]
async fn who_is_not_trusted_is_told_nothing() {
    let papers = Papers::new();
    let (endpoint, port) = bank(&papers).await;
    for (host, files) in [
        ("bank.test", papers.files("stranger.pem", Some("caudal"))),
        ("other.test", papers.files("ca.pem", Some("caudal"))),
        ("bank.test", TlsFiles { authority: None, ..papers.files("ca.pem", Some("caudal")) }),
    ] {
        let answer = called(&confirmer(host, port, files), Uuid::nil()).await;
        assert!(not_sent(&answer).contains("certificate"), "{answer:?}");
    }
    // A server that does not speak TLS.
    let plain = endpoint.address().port();
    let answer = called(&confirmer("bank.test", plain, papers.files("ca.pem", None)), Uuid::nil()).await;
    assert!(not_sent(&answer).contains("TLS"), "{answer:?}");
    assert_eq!(endpoint.totals().effects, 0);
}

/// With TLS 1.3 a server refuses a client's certificate only after the client has begun to write: nothing was done, but that is
/// not known here.
#[tokio::test]
async fn without_a_certificate_nobody_is_let_in() {
    let papers = Papers::new();
    let (endpoint, port) = bank(&papers).await;
    for own in [None, Some("stranger")] {
        let answer = called(&confirmer("bank.test", port, papers.files("ca.pem", own)), Uuid::nil()).await;
        unknown(&answer);
    }
    assert_eq!(endpoint.totals().connections, 0);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let papers = Papers::new();
    std::fs::write(papers.file("empty.pem"), "nothing").unwrap();
    let only_certificate = TlsFiles { key: None, ..papers.files("ca.pem", Some("caudal")) };
    let other_key = TlsFiles { key: Some(papers.file("bank.key")), ..papers.files("ca.pem", Some("caudal")) };
    for (tls, expected) in [
        (papers.files("missing.pem", None), "missing.pem cannot be used"),
        (papers.files("empty.pem", None), "holds no certificate"),
        (papers.files("ca.pem", Some("absent")), "absent.key cannot be used"),
        (only_certificate, "name both files"),
        (other_key, "bank.key cannot be used"),
    ] {
        let config = HttpConfig { tls, ..HttpConfig::new("https://bank.test/") };
        let said = HttpConfirmer::open(&config).expect_err(expected);
        assert!(said.contains(expected), "{said}");
    }
}
