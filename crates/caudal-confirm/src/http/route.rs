//! What is sent for a call: method, path, headers and body from their templates.

use std::sync::Arc;

use bytes::Bytes;
use caudal_core::confirm::ports::Call;
use caudal_core::confirm::template::{Json, Text};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use super::pool::{Body, Pool};
use super::sign::Signer;
use super::target::Path;
use crate::fill::{self, Filler};

/// Headers that say where a message ends or who is asked are not a template's business.
const OURS: [HeaderName; 6] = [
    HOST,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    HeaderName::from_static("connection"),
    HeaderName::from_static("upgrade"),
    HeaderName::from_static("expect"),
];
const AGENT: &str = concat!("caudal/", env!("CARGO_PKG_VERSION"));

/// One kind of request: the call, or the probe.
pub(super) struct Route {
    pub(super) pool: Arc<Pool>,
    pub(super) method: Method,
    pub(super) path: Path,
    pub(super) body: Content,
    pub(super) headers: Arc<Headers>,
}

pub(super) enum Content {
    Nothing,
    Record,
    Made(Json),
}

/// What both kinds have in common.
pub(super) struct Headers {
    fixed: HeaderMap,
    filled: Vec<(HeaderName, Text)>,
    key: HeaderName,
    signer: Signer,
}

/// A request that can be written more than once.
pub(super) struct Prepared {
    method: Method,
    path: PathAndQuery,
    headers: HeaderMap,
    body: Bytes,
}

impl Headers {
    /// # Errors
    /// A sentence that names the header and not its value.
    pub(super) fn new(given: &[(String, String)], key: &str, signer: Signer) -> Result<Self, String> {
        let mut headers = Self { fixed: HeaderMap::new(), filled: Vec::new(), key: header_name(key)?, signer };
        headers.fixed.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.fixed.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in given {
            let name = header_name(name)?;
            if value.contains("${") {
                let text = Text::parse(value)
                    .map_err(|e| format!("the header {name} cannot be used: {}", fill::unreadable(&e)))?;
                headers.filled.push((name, text));
            } else {
                let mut value = HeaderValue::from_str(value).map_err(|_| unfit(&name))?;
                value.set_sensitive(true);
                headers.fixed.insert(name, value);
            }
        }
        Ok(headers)
    }

    fn reads(&self) -> bool {
        self.filled.iter().any(|(_, text)| fill::reads(text))
    }

    pub(super) fn properties(&self) -> impl Iterator<Item = &str> {
        self.filled.iter().flat_map(|(_, text)| text.properties())
    }

    fn fill(&self, filler: &Filler, host: &HeaderValue, body: &[u8]) -> Result<HeaderMap, String> {
        let mut headers = self.fixed.clone();
        headers.insert(HOST, host.clone());
        for (name, text) in &self.filled {
            let text =
                filler.text(text, fill::verbatim).map_err(|e| format!("the header {name} cannot be made: {e}"))?;
            // A line end in a value would make another header of it.
            let mut value = HeaderValue::from_str(&text).map_err(|_| unfit(name))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let key = HeaderValue::from_str(filler.key()).map_err(|_| unfit(&self.key))?;
        headers.insert(&self.key, key);
        self.signer.sign(&mut headers, filler.key(), body);
        Ok(headers)
    }
}

fn unfit(name: &HeaderName) -> String {
    format!("the value of the header {name} has characters that a header cannot have")
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is not a header's name"))?;
    if OURS.contains(&name) {
        return Err(format!("the header {name} is Caudal's own business: leave it out"));
    }
    Ok(name)
}

impl Route {
    /// # Errors
    /// A sentence, when the record does not fit the templates.
    pub(super) fn prepare(&self, call: &Call<'_>, host: &HeaderValue) -> Result<Prepared, String> {
        let reads = self.path.reads() || self.headers.reads() || matches!(self.body, Content::Made(_));
        let filler = Filler::new(call, reads)?;
        let body = match &self.body {
            Content::Nothing => Bytes::new(),
            Content::Record => call.item.record.clone(),
            Content::Made(template) => filler.json(template).map_err(|e| format!("the body cannot be made: {e}"))?,
        };
        let mut headers = self.headers.fill(&filler, host, &body)?;
        if matches!(self.body, Content::Nothing) {
            headers.remove(CONTENT_TYPE);
        }
        Ok(Prepared { method: self.method.clone(), path: self.path.fill(&filler)?, headers, body })
    }
}

impl Prepared {
    pub(super) fn request(&self) -> Request<Body> {
        let mut request = Request::new(Body::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.path.clone());
        *request.headers_mut() = self.headers.clone();
        request
    }
}
