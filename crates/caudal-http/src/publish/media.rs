//! Which of the formats a request is in.

use http::{HeaderMap, header};

use crate::problem::{Problem, excerpt};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Ndjson,
    Csv,
    EventBinary,
    EventStructured,
    EventBatch,
}

const TAKEN: &str = "send application/json, application/x-ndjson, text/csv, application/cloudevents+json or \
                     application/cloudevents-batch+json, in UTF-8";

impl Format {
    /// Decides by Content-Type; CloudEvents in binary mode are recognised by their `ce-` headers. The batch type is tested
    /// before the structured one, whose name is its prefix (CloudEvents HTTP binding 1.0.2, §3).
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(value) = headers.get(header::CONTENT_TYPE) else {
            return Err(Problem::unsupported_media_type(format!("the request has no Content-Type; {TAKEN}")));
        };
        if value.as_bytes() == b"application/json" && !headers.contains_key("ce-specversion") {
            return Ok(Self::Json);
        }
        let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
        let (media, parameters) = text.split_once(';').unwrap_or((&text, ""));
        if !charset_is_utf8(parameters) {
            return Err(Problem::unsupported_media_type(format!("only UTF-8 is taken; {TAKEN}")));
        }
        let media = media.trim();
        let format = match media {
            "application/cloudevents-batch+json" => Self::EventBatch,
            "application/cloudevents+json" => Self::EventStructured,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => {
                Self::Ndjson
            }
            "text/csv" => Self::Csv,
            "application/json" => Self::Json,
            _ if media.starts_with("application/") && media.ends_with("+json") && !media.contains("cloudevents") => {
                Self::Json
            }
            _ => {
                let detail = format!("{:?} is not taken here; {TAKEN}", excerpt(media));
                return Err(Problem::unsupported_media_type(detail));
            }
        };
        let binary = format == Self::Json && headers.contains_key("ce-specversion");
        Ok(if binary { Self::EventBinary } else { format })
    }
}

fn charset_is_utf8(parameters: &str) -> bool {
    parameters
        .split(';')
        .filter_map(|p| p.trim().strip_prefix("charset="))
        .all(|charset| matches!(charset.trim_matches('"'), "utf-8" | "utf8" | "us-ascii"))
}
