//! From an event to the HTTP request that somebody sent.
//!
//! The fronts differ in what they have done to it. REST APIs, function URLs and load balancers leave the path percent-encoded,
//! HTTP APIs decode it. REST APIs decode the query, load balancers do not. HTTP APIs put the stage before the path, REST APIs
//! do not; both put a custom domain's base path there.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::event::{Fields, Front, HttpEvent, MultiValues, Text, Values};

/// Everything but the unreserved characters of RFC 3986.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// # Errors
/// What is wrong with the event. No front sends such a thing.
pub(super) fn request(event: HttpEvent<'_>) -> Result<Request<Bytes>, String> {
    let HttpEvent { front, fields } = event;
    let method = method(front, &fields)?;
    let path = escaped(path(front, &fields), b"/");
    let query = query(front, &fields);
    let target = if query.is_empty() { path.into_owned() } else { format!("{path}?{query}") };
    let uri: Uri = target.parse().map_err(|error| format!("the event's path cannot be one: {error}"))?;
    let mut headers = headers(&fields);
    let body = match (fields.body, fields.is_base64_encoded) {
        (None, _) => Bytes::new(),
        (Some(body), Some(true)) => {
            let decoded = STANDARD.decode(body.as_bytes());
            decoded.map_err(|error| format!("the event's body is said to be base64 and is not: {error}"))?.into()
        }
        (Some(body), _) => Bytes::from(body.into_owned()),
    };
    // As it is now; what the front was sent may have had another length.
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

fn method(front: Front, fields: &Fields<'_>) -> Result<Method, String> {
    let context = fields.request_context.as_ref();
    let name = match front {
        Front::HttpApi2 => context.and_then(|context| context.http.as_ref()?.method.as_deref()),
        _ => fields.http_method.as_deref(),
    };
    let name = name.unwrap_or_default();
    Method::from_bytes(name.as_bytes())
        .map_err(|_| format!("the event's method is {:?}", caudal_http::problem::excerpt(name)))
}

/// The path below the place where the API is mounted.
fn path<'a>(front: Front, fields: &'a Fields<'_>) -> &'a str {
    let (path, route) = match front {
        Front::RestApi | Front::HttpApi1 => (&fields.path, fields.resource.as_deref()),
        Front::HttpApi2 => (&fields.raw_path, fields.route_key.as_deref().and_then(|key| Some(key.split_once(' ')?.1))),
        Front::LoadBalancer { .. } => (&fields.path, None),
    };
    let path = path.as_deref().filter(|path| path.starts_with('/')).unwrap_or("/");
    // The route that matched says where the path begins.
    if let Some(below) = route.and_then(|route| routed(route, &fields.path_parameters))
        && path.ends_with(&below)
    {
        return &path[path.len() - below.len()..];
    }
    let stage = fields.request_context.as_ref().and_then(|context| context.stage.as_deref());
    match (front, stage) {
        (Front::HttpApi1 | Front::HttpApi2, Some(stage)) if stage != "$default" => {
            match path[1..].strip_prefix(stage) {
                Some("") => "/",
                Some(below) if below.starts_with('/') => below,
                _ => path,
            }
        }
        _ => path,
    }
}

/// A route's template with its parameters put in; `None` when one has no value.
fn routed(route: &str, parameters: &Values<'_>) -> Option<String> {
    if !route.starts_with('/') {
        return None;
    }
    let parts = route.split('/').map(|part| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        Some(name) => parameters.as_ref()?.get(name.trim_end_matches('+'))?.as_deref(),
        None => Some(part),
    });
    Some(parts.collect::<Option<Vec<_>>>()?.join("/"))
}

fn query<'a>(front: Front, fields: &'a Fields<'_>) -> Cow<'a, str> {
    let (single, multi) = (&fields.query_string_parameters, &fields.multi_value_query_string_parameters);
    match front {
        Front::HttpApi2 => escaped(fields.raw_query_string.as_deref().unwrap_or_default(), b"/?"),
        Front::RestApi | Front::HttpApi1 => {
            pairs(single, multi, |text| utf8_percent_encode(text, COMPONENT).to_string().into()).into()
        }
        Front::LoadBalancer { .. } => pairs(single, multi, |text| escaped(text, b"/?")).into(),
    }
}

fn pairs<'a>(single: &'a Values<'_>, multi: &'a MultiValues<'_>, write: impl Fn(&'a str) -> Cow<'a, str>) -> String {
    let mut out = String::new();
    for (name, value) in each(single, multi) {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(&write(name));
        out.push('=');
        out.push_str(&write(value));
    }
    out
}

/// Names and values, from the multi-valued form where there is one: it has them all.
fn each<'a>(single: &'a Values<'_>, multi: &'a MultiValues<'_>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let single = single.iter().flatten().filter(|_| multi.is_none());
    let single = single.filter_map(|(name, value)| Some((&**name, value.as_deref()?)));
    let multi = multi.iter().flatten();
    let multi = multi.flat_map(|(name, values)| values.iter().flatten().map(move |value| (&**name, &**value)));
    single.chain(multi)
}

/// Percent-encodes what cannot stand in a request's target as it is, and leaves alone what is encoded already. Of what a front
/// has decoded, a `?` belongs to the path that it stands in.
fn escaped<'a>(text: &'a str, also: &[u8]) -> Cow<'a, str> {
    let bytes = text.as_bytes();
    let stays = |at: usize| match bytes[at] {
        b'%' => bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)),
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'@' => true,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => true,
        other => also.contains(&other),
    };
    if (0..bytes.len()).all(stays) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for (at, byte) in bytes.iter().enumerate() {
        match stays(at) {
            true => out.push(char::from(*byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out.into()
}

/// A header that HTTP could not carry is left out.
fn headers(fields: &Fields<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in each(&fields.headers, &fields.multi_value_headers) {
        let pair = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()));
        if let (Ok(name), Ok(value)) = pair {
            headers.append(name, value);
        }
    }
    // Of the connection to the front, not of the request.
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONNECTION);
    if let Some(cookies) = fields.cookies.as_ref().filter(|cookies| !cookies.is_empty())
        && let Ok(cookies) = HeaderValue::from_str(&cookies.join("; "))
    {
        headers.insert(header::COOKIE, cookies);
    }
    if !headers.contains_key(header::HOST) {
        let host = fields.request_context.as_ref().and_then(|context| named(&context.domain_name));
        headers.insert(header::HOST, host.unwrap_or(HeaderValue::from_static("lambda")));
    }
    headers
}

fn named(name: &Text<'_>) -> Option<HeaderValue> {
    HeaderValue::from_str(name.as_deref()?).ok()
}

#[cfg(test)]
mod tests {
    use super::super::event::Event;
    use super::*;

    fn read(json: &serde_json::Value) -> Request<Bytes> {
        let json = json.to_string();
        match Event::read(&json) {
            Ok(Event::Http(event)) => request(*event).unwrap(),
            _ => panic!("not an HTTP event: {json}"),
        }
    }

    fn target(json: serde_json::Value) -> String {
        read(&json).uri().to_string()
    }

    fn http_api(stage: &str, route: &str, path: &str, proxy: &str) -> String {
        target(serde_json::json!({"version": "2.0", "routeKey": route, "rawPath": path, "rawQueryString": "a=%20b&c",
            "pathParameters": {"proxy": proxy}, "requestContext": {"stage": stage, "http": {"method": "GET"}}}))
    }

    #[test]
    fn the_stage_and_the_base_path_are_left_out() {
        assert_eq!(http_api("$default", "$default", "/v1/topics", ""), "/v1/topics?a=%20b&c");
        assert_eq!(http_api("dev", "$default", "/dev/v1/topics", ""), "/v1/topics?a=%20b&c");
        assert_eq!(http_api("dev", "$default", "/dev", ""), "/?a=%20b&c");
        assert_eq!(http_api("dev", "$default", "/develop", ""), "/develop?a=%20b&c");
        // A stage of the same name as the first part of the path, with and without a custom domain.
        assert_eq!(http_api("v1", "ANY /{proxy+}", "/v1/v1/topics", "v1/topics"), "/v1/topics?a=%20b&c");
        assert_eq!(http_api("v1", "ANY /{proxy+}", "/v1/topics", "v1/topics"), "/v1/topics?a=%20b&c");
    }

    fn rest_api(resource: &str, path: &str, proxy: Option<&str>) -> String {
        target(serde_json::json!({"resource": resource, "path": path, "httpMethod": "GET", "headers": null,
            "multiValueHeaders": null, "queryStringParameters": {"id": "eq.2"}, "pathParameters": {"proxy": proxy},
            "multiValueQueryStringParameters": {"id": ["gt.1 &", "eq.2"], "or": ["(a.eq.ñ)"]},
            "requestContext": {"stage": "v1", "path": "/v1/v1/topics"}}))
    }

    #[test]
    fn a_rest_apis_query_is_encoded_again_and_its_path_is_not() {
        let query = "id=gt.1%20%26&id=eq.2&or=%28a.eq.%C3%B1%29";
        assert_eq!(rest_api("/{proxy+}", "/v1/topics", Some("v1/topics")), format!("/v1/topics?{query}"));
        assert_eq!(rest_api("/{proxy+}", "/base/v1/a%2Fb", Some("v1/a%2Fb")), format!("/v1/a%2Fb?{query}"));
        assert_eq!(rest_api("/v1/{proxy+}", "/v1/topics", Some("topics")), format!("/v1/topics?{query}"));
        assert_eq!(rest_api("/ping", "/base/ping", None), format!("/ping?{query}"));
        assert_eq!(rest_api("/{proxy+}", "/v1/topics", None), format!("/v1/topics?{query}"));
    }

    #[test]
    fn what_a_front_decoded_is_a_path_again() {
        let path = |path: &str| {
            target(
                serde_json::json!({"version": "2.0", "rawPath": path, "requestContext": {"http": {"method": "GET"}}}),
            )
        };
        assert_eq!(path("/data/a b?#%zz%41ñ\""), "/data/a%20b%3F%23%25zz%41%C3%B1%22");
        assert_eq!(path("/data/%41%2F"), "/data/%41%2F");
        assert_eq!(path(""), "/");
    }

    #[test]
    fn a_load_balancers_query_is_left_as_it_came() {
        let event = serde_json::json!({"requestContext": {"elb": {}}, "httpMethod": "GET", "path": "/rest/v1/a",
            "multiValueQueryStringParameters": {"a": ["gt.%2B1", "lt.a+b"], "select": ["x,y"]},
            "multiValueHeaders": {"accept": ["a", "b"], "host": ["h"], "bad name": ["x"]}, "body": "", "isBase64Encoded": false});
        let request = read(&event);
        assert_eq!(request.uri().to_string(), "/rest/v1/a?a=gt.%2B1&a=lt.a+b&select=x,y");
        assert_eq!(request.headers().get_all("accept").iter().count(), 2);
        assert_eq!(request.headers().get_all("host").iter().count(), 1);
    }

    #[test]
    fn cookies_hosts_and_bodies() {
        let mut event = serde_json::json!({"version": "2.0", "rawPath": "/", "cookies": ["a=1", "b=2"], "body": "AP9h",
            "isBase64Encoded": true, "headers": {"Content-Type": "x/y", "content-length": "4"},
            "requestContext": {"domainName": "abc.lambda-url.eu-west-1.on.aws", "http": {"method": "POST"}}});
        let request = read(&event);
        assert_eq!(request.headers()["cookie"], "a=1; b=2");
        assert_eq!(request.headers()["host"], "abc.lambda-url.eu-west-1.on.aws");
        assert_eq!(request.headers()["content-length"], "3");
        assert_eq!(request.body().as_ref(), b"\0\xffa");
        event["body"] = "not base64".into();
        let json = event.to_string();
        let Ok(Event::Http(event)) = Event::read(&json) else { panic!("{json}") };
        assert!(super::request(*event).unwrap_err().contains("base64"));
    }
}
