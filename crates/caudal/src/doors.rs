//! The doors that look at a signature instead of an API key: what their settings say, held against what they can do.

use anyhow::{Context, Result, bail};
use caudal_http::HttpConfig;
use caudal_http::aws::Keys;
use caudal_http::sns::AllowedTopics;
use caudal_http::webhook::{self, SingleHeader};
use serde::{Deserialize, Serialize};

use crate::secret::Secrets;
use crate::settings::Settings;

/// `[topics.<name>.webhook]`: Standard Webhooks, or an HMAC in one header.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Webhook {
    /// `whsec_…`; several while one is replaced by another.
    #[serde(skip_serializing_if = "Secrets::is_empty")]
    pub(crate) standard_secrets: Secrets,
    /// Headers that are kept as attributes of each message.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) attributes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hmac: Option<Hmac>,
}

/// HMAC-SHA256 of the body.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Hmac {
    pub(crate) header: String,
    /// What stands before the signature in the header.
    pub(crate) prefix: String,
    pub(crate) encoding: Encoding,
    pub(crate) secrets: Secrets,
    /// The header that names the delivery: the dedup key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id_header: Option<String>,
}

impl Default for Hmac {
    /// As GitHub signs.
    fn default() -> Self {
        Self {
            header: "X-Hub-Signature-256".to_owned(),
            prefix: "sha256=".to_owned(),
            encoding: Encoding::Hex,
            secrets: Secrets::default(),
            id_header: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    Hex,
    Base64,
}

/// Adds to `config` what the settings say of SNS, webhooks and AWS SDKs.
///
/// # Errors
/// The setting that cannot be used, and why.
pub(crate) fn open(settings: &Settings, mut config: HttpConfig) -> Result<HttpConfig> {
    for (name, topic) in &settings.topics {
        if !topic.sns_topic_arns.is_empty() {
            let allowed = AllowedTopics::new(&topic.sns_topic_arns);
            let allowed =
                allowed.map_err(anyhow::Error::msg).with_context(|| format!("topics.{name}.sns_topic_arns"))?;
            config.sns.insert(name.clone(), allowed);
        }
        if let Some(settings) = &topic.webhook {
            let webhook = settings.door().with_context(|| format!("topics.{name}.webhook"))?;
            config.webhooks.insert(name.clone(), webhook);
        }
    }
    let pairs = settings.http.aws_keys.iter().map(|(id, secret)| (id.as_str(), secret.expose()));
    config.aws_keys = Keys::new(pairs).map_err(anyhow::Error::msg).context("http.aws_keys")?;
    Ok(config)
}

impl Webhook {
    fn door(&self) -> Result<webhook::Webhook> {
        let webhook = match (&self.hmac, self.standard_secrets.is_empty()) {
            (None, false) => webhook::Webhook::standard(&self.standard_secrets.expose()),
            (Some(hmac), true) => webhook::Webhook::single(hmac.form(), &hmac.secrets.expose()),
            _ => bail!(
                "set either standard_secrets or hmac: it says how deliveries are signed, and unsigned ones are not taken"
            ),
        };
        webhook.and_then(|webhook| webhook.with_attributes(&self.attributes)).map_err(anyhow::Error::msg)
    }
}

impl Hmac {
    fn form(&self) -> SingleHeader<'_> {
        SingleHeader {
            header: &self.header,
            prefix: &self.prefix,
            encoding: match self.encoding {
                Encoding::Hex => webhook::Encoding::Hex,
                Encoding::Base64 => webhook::Encoding::Base64,
            },
            id_header: self.id_header.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(text: &str) -> Result<HttpConfig> {
        let settings: Settings = toml::from_str(text)?;
        open(&settings, HttpConfig::default())
    }

    #[test]
    fn each_door_opens_by_its_settings() {
        let config = opened(
            r#"
            [http.aws_keys]
            AKIDEXAMPLE = "s3cret"
            [topics.a]
            sns_topic_arns = ["arn:aws:sns:us-east-1:123456789012:a"]
            webhook.standard_secrets = ["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"]
            [topics.b.webhook]
            attributes = ["X-GitHub-Event"]
            hmac = { secrets = "only one", id_header = "X-GitHub-Delivery" }
            [topics.c]
            "#,
        )
        .unwrap();
        assert_eq!((config.sns.len(), config.webhooks.len()), (1, 2));
        let shown = format!("{config:?}");
        assert!(shown.contains("akidexample") && !shown.contains("s3cret") && !shown.contains("only one"), "{shown}");
    }

    #[test]
    fn settings_that_protect_nothing_are_refused_by_name() {
        let arn = "topics.a.sns_topic_arns = ['arn:aws:sqs:us-east-1:123456789012:a']";
        let both =
            "[topics.a.webhook]\nstandard_secrets = 'whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD'\nhmac = { secrets = 'x' }";
        for (text, place, why) in [
            (arn, "topics.a.sns_topic_arns", "not a topic's ARN"),
            ("[topics.a.webhook]", "topics.a.webhook", "either standard_secrets or hmac"),
            (both, "topics.a.webhook", "either standard_secrets or hmac"),
            ("topics.a.webhook.hmac = {}", "topics.a.webhook", "no secret"),
            ("topics.a.webhook.standard_secrets = 'whsec_AAAA'", "topics.a.webhook", "24 to 64 bytes"),
            ("topics.a.webhook.hmac = { secrets = 'x', header = 'a b' }", "topics.a.webhook", "not a header's name"),
            ("http.aws_keys = { A = 'x', a = 'y' }", "http.aws_keys", "twice"),
        ] {
            let error = format!("{:#}", opened(text).unwrap_err());
            assert!(error.contains(place) && error.contains(why), "{text}: {error}");
        }
    }
}
