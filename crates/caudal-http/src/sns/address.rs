//! Which addresses in a message are SNS's own. A message that could name any other would have us fetch what its sender
//! likes, and believe a certificate that its sender made.

use http::StatusCode;
use reqwest::Url;

use super::Message;
use crate::problem::{Problem, excerpt};

/// The certificate's name, as SNS writes it.
const CERTIFICATE: &str = "/SimpleNotificationService";

/// The address of a signing certificate.
///
/// # Errors
/// `403` for anything but `https://sns.<region>.amazonaws.com[.cn]/SimpleNotificationService….pem`.
pub(crate) fn certificate(text: &str, region: &str) -> Result<Url, Problem> {
    let is_certificate = |url: &Url| {
        let name = url.path().strip_prefix(CERTIFICATE).and_then(|rest| rest.strip_suffix(".pem"));
        name.is_some_and(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')) && url.query().is_none()
    };
    checked(text, region).filter(is_certificate).ok_or_else(|| foreign("SigningCertURL", text))
}

/// The address that confirms a subscription.
pub(crate) fn confirmation(message: &Message, region: &str) -> Result<Url, Problem> {
    confirming(message.subscribe_url.as_deref().unwrap_or_default(), region)
}

fn confirming(text: &str, region: &str) -> Result<Url, Problem> {
    let confirms =
        |url: &Url| url.query_pairs().any(|(name, value)| name == "Action" && value == "ConfirmSubscription");
    checked(text, region).filter(confirms).ok_or_else(|| foreign("SubscribeURL", text))
}

fn checked(text: &str, region: &str) -> Option<Url> {
    // Parsed by what will connect, so that both see the same host.
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let host = url.host_str().filter(|host| is_sns(host, region));
    (url.scheme() == "https" && url.port().is_none() && plain && host.is_some()).then_some(url)
}

/// `^sns\.[a-zA-Z0-9\-]{3,}\.amazonaws\.com(\.cn)?$`, and the label in the middle is the topic's region: the pattern alone also
/// lets `sns.s3-us-west-2.amazonaws.com` through, which is anybody's bucket of that name.
fn is_sns(host: &str, region: &str) -> bool {
    let Some(rest) = host.strip_prefix("sns.") else { return false };
    let rest = rest.strip_suffix(".cn").unwrap_or(rest);
    let Some(label) = rest.strip_suffix(".amazonaws.com") else { return false };
    let shape = label.len() >= 3 && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    shape && !label.starts_with("s3-") && label == region
}

fn foreign(what: &str, text: &str) -> Problem {
    let detail = format!("{what} is {:?}, which is not an address of SNS in the topic's region", excerpt(text));
    Problem::new(StatusCode::FORBIDDEN, "sns_foreign_address", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str =
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-9c6465fa7f48f5cacd23014631ec1136.pem";

    #[test]
    fn sns_s_own_addresses_pass() {
        assert!(certificate(PEM, "us-east-1").is_ok());
        assert!(certificate(&PEM.replace(".com/", ".com:443/"), "us-east-1").is_ok());
        let china = PEM.replace("us-east-1.amazonaws.com", "cn-north-1.amazonaws.com.cn");
        assert!(certificate(&china, "cn-north-1").is_ok());
        let confirm = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=a&Token=b";
        assert_eq!(confirming(confirm, "eu-west-1").unwrap().as_str(), confirm);
    }

    #[test]
    fn forged_addresses_do_not() {
        for (from, to) in [
            ("https://", "http://"),
            ("https://", "ftp://"),
            ("sns.us-east-1.amazonaws.com", "evil.example"),
            ("sns.us-east-1.amazonaws.com", "sns.us-east-1.amazonaws.com.evil.example"),
            ("sns.us-east-1.amazonaws.com", "evil.example/sns.us-east-1.amazonaws.com"),
            ("sns.us-east-1.amazonaws.com", "sns.us-east-1.amazonaws.com@evil.example"),
            ("sns.us-east-1.amazonaws.com", "user@sns.us-east-1.amazonaws.com"),
            ("sns.us-east-1.amazonaws.com", "evil.sns.us-east-1.amazonaws.com"),
            ("sns.us-east-1.amazonaws.com", "sns.us-east-1.evil.amazonaws.com"),
            ("sns.us-east-1.amazonaws.com", "sns.us-east-1.amazonaws.com.au"),
            ("sns.us-east-1.amazonaws.com", "sns.us-east-1xamazonaws.com"),
            ("sns.us-east-1.amazonaws.com", "sns.us-east-1.amazonaws.com:8443"),
            ("sns.us-east-1.amazonaws.com", "sns.s3-us-east-1.amazonaws.com"),
            ("sns.us-east-1.amazonaws.com", "sns.s3.amazonaws.com"),
            ("sns.us-east-1.amazonaws.com", "sns.eu-west-1.amazonaws.com"),
            ("sns.us-east-1.amazonaws.com", "s3.amazonaws.com/bucket"),
            ("sns.us-east-1.amazonaws.com", "169.254.169.254"),
            (".pem", ".pem?x=y"),
            (".pem", ".pem#x"),
            (".pem", ".txt"),
            ("/Simple", "/bucket/Simple"),
            ("/Simple", "//Simple"),
            ("/Simple", "/..%2fSimple"),
            ("Simple", "Complex"),
            (PEM, ""),
            (PEM, "not an address"),
        ] {
            let forged = PEM.replace(from, to);
            assert!(certificate(&forged, "us-east-1").is_err(), "{forged}");
        }
        for region in ["s3-us-west-2", "s3", ""] {
            let bucket = PEM.replace("us-east-1", region);
            assert!(certificate(&bucket, region).is_err(), "{bucket}");
        }
        for forged in [
            "http://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&Token=b",
            "https://sns.us-east-1.amazonaws.com.evil.example/?Action=ConfirmSubscription",
            "https://169.254.169.254/?Action=ConfirmSubscription",
            "https://sns.us-east-1.amazonaws.com/?Action=DeleteTopic",
            "https://sns.us-east-1.amazonaws.com/",
        ] {
            assert!(confirming(forged, "us-east-1").is_err(), "{forged}");
        }
    }
}
