//! A stand-in for SNS's signing key, made and used by openssl: real RSA keys and certificates, and an implementation of
//! signing that is not the one under test.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

pub(crate) struct Signer {
    dir: TempDir,
}

fn openssl(args: &[&str], dir: &TempDir, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(args)
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs; if it is missing: apt-get install openssl");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

impl Signer {
    pub(crate) fn new() -> Self {
        Self::rsa("2048")
    }

    pub(crate) fn rsa(bits: &str) -> Self {
        let dir = TempDir::new().unwrap();
        openssl(&["genrsa", "-out", "key.pem", bits], &dir, b"");
        Self { dir }
    }

    pub(crate) fn elliptic() -> Self {
        let dir = TempDir::new().unwrap();
        openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key.pem"], &dir, b"");
        Self { dir }
    }

    /// A certificate of this key that is valid now.
    pub(crate) fn certificate(&self) -> Vec<u8> {
        let args =
            ["req", "-x509", "-new", "-key", "key.pem", "-subj", "/CN=sns.amazonaws.com", "-days", "30", "-sha256"];
        openssl(&args, &self.dir, b"")
    }

    /// A certificate of this key for another time: both as `YYMMDDHHMMSSZ`.
    pub(crate) fn certificate_for(&self, from: &str, to: &str) -> Vec<u8> {
        let path = |name: &str| -> PathBuf { self.dir.path().join(name) };
        std::fs::write(path("index.txt"), "").unwrap();
        std::fs::write(
            path("ca.cnf"),
            "[ca]\ndefault_ca = own\n[own]\ndatabase = index.txt\nnew_certs_dir = .\nserial = serial\nrand_serial = yes\n\
             default_md = sha256\npolicy = any\nunique_subject = no\n[any]\ncommonName = supplied\n",
        )
        .unwrap();
        openssl(
            &["req", "-new", "-key", "key.pem", "-subj", "/CN=sns.amazonaws.com", "-out", "csr.pem"],
            &self.dir,
            b"",
        );
        let args = [
            "ca",
            "-config",
            "ca.cnf",
            "-selfsign",
            "-keyfile",
            "key.pem",
            "-in",
            "csr.pem",
            "-batch",
            "-notext",
            "-startdate",
            from,
            "-enddate",
            to,
            "-out",
            "cert.pem",
        ];
        openssl(&args, &self.dir, b"");
        std::fs::read(path("cert.pem")).unwrap()
    }

    pub(crate) fn sign(&self, digest: &str, text: &str) -> String {
        STANDARD.encode(openssl(&["dgst", digest, "-sign", "key.pem"], &self.dir, text.as_bytes()))
    }

    /// Signs what SNS's documentation says is signed, and adds the signature.
    pub(crate) fn signed(&self, mut fields: Map<String, Value>, version: &str) -> Map<String, Value> {
        let names: &[&str] = match fields["Type"].as_str().unwrap() {
            "Notification" => &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
            _ => &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"],
        };
        let lines = names.iter().filter_map(|name| Some(format!("{name}\n{}\n", fields.get(*name)?.as_str()?)));
        let text: String = lines.collect();
        let digest = if version == "1" { "-sha1" } else { "-sha256" };
        fields.insert("SignatureVersion".into(), json!(version));
        fields.insert("Signature".into(), json!(self.sign(digest, &text)));
        fields
    }
}
