//! The URL of an endpoint: a host that the configuration names, and a path that a record may fill.

use std::fmt;
use std::net::IpAddr;

use caudal_core::confirm::template::Text;
use http::uri::{Authority, PathAndQuery};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::address::{Place, place};
use crate::fill::{self, Filler};

/// What a value of a record may put into a URL as it is: RFC 3986's unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Whom to connect to.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) tls: bool,
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// As the configuration writes it.
    pub(super) authority: String,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority)
    }
}

impl Target {
    /// The address, when the host is one.
    pub(super) fn literal(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether the configuration itself names one's own machine or network.
    pub(super) fn is_private(&self) -> bool {
        let host = self.host.trim_end_matches('.').to_ascii_lowercase();
        match self.literal() {
            Some(address) => place(address) == Place::Private,
            None => host == "localhost" || host.ends_with(".localhost"),
        }
    }
}

/// Path and query, to be filled.
#[derive(Debug)]
pub(super) struct Path(Text);

/// Cuts a URL template into who is called and what is asked there.
///
/// # Errors
/// A sentence that says what is wrong with it. It does not repeat the URL, which may hold a token.
pub(super) fn parse(url: &str) -> Result<(Target, Path), String> {
    let lower = url.get(..8).unwrap_or(url).to_ascii_lowercase();
    let (tls, rest) = match (lower.starts_with("https://"), lower.starts_with("http://")) {
        (true, _) => (true, &url[8..]),
        (_, true) => (false, &url[7..]),
        _ => return Err("the URL begins with https:// or http://".to_owned()),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let target = target(tls, authority)?;
    if path.contains('#') {
        return Err("a fragment (#…) is never sent, so the URL must not have one".to_owned());
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let text = Text::parse(&path).map_err(|e| format!("the URL cannot be used: {}", fill::unreadable(&e)))?;
    PathAndQuery::try_from(sample(&path)).map_err(|e| format!("the URL's path cannot be sent: {e}"))?;
    Ok((target, Path(text)))
}

fn target(tls: bool, authority: &str) -> Result<Target, String> {
    if authority.contains("${") {
        return Err(
            "the host must not come from a record, which would choose whom Caudal calls: write it out".to_owned()
        );
    }
    if authority.contains('@') {
        return Err("credentials do not belong into a URL, which is shown: put them into a header".to_owned());
    }
    let parsed: Authority = authority.parse().map_err(|_| "the URL names no host".to_owned())?;
    let host = parsed.host().trim_start_matches('[').trim_end_matches(']');
    let port = match parsed.as_str().rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        None => {
            if tls {
                443
            } else {
                80
            }
        }
        Some((_, port)) => port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| format!("{port:?} is no port: a number from 1 to 65535 stands after the host"))?,
    };
    if host.is_empty() {
        return Err("the URL names no host".to_owned());
    }
    let target = Target { tls, host: host.to_owned(), port, authority: authority.to_owned() };
    if target.literal().is_some_and(|address| place(address) == Place::Never) {
        return Err(format!("{host} is link-local, multicast or reserved: no confirmation is ever sent there"));
    }
    Ok(target)
}

/// The text with an `x` for every placeholder.
fn sample(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, from)) = rest.split_once("${") {
        let Some((_, after)) = from.split_once('}') else { break };
        out.push_str(before);
        out.push('x');
        rest = after;
    }
    out + rest
}

impl Path {
    pub(super) fn reads(&self) -> bool {
        fill::reads(&self.0)
    }

    pub(super) fn properties(&self) -> impl Iterator<Item = &str> {
        self.0.properties()
    }

    /// # Errors
    /// A sentence, when the record does not fit. That includes values which would make it another path: `..` is no name of a
    /// payment, and where a name is empty, a probe would ask for the list of all payments, which is there.
    pub(super) fn fill(&self, filler: &Filler) -> Result<PathAndQuery, String> {
        let empty = std::cell::Cell::new(false);
        let filled = filler.text(&self.0, |value, out| {
            empty.set(empty.get() || value.is_empty());
            out.extend(utf8_percent_encode(value, ESCAPED));
        });
        let filled = filled.map_err(|e| format!("the URL cannot be made: {e}"))?;
        if empty.get() {
            return Err("the URL cannot be made: a value in it is empty".to_owned());
        }
        let path = filled.split('?').next().unwrap_or_default();
        if path.split('/').any(|segment| segment == "." || segment == "..") {
            return Err("the URL cannot be made: a value in it is . or .., which names another path".to_owned());
        }
        PathAndQuery::try_from(filled).map_err(|e| format!("the URL cannot be made: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_cut_into_who_and_what() {
        let cut = |url: &str| {
            let (target, _) = parse(url).expect(url);
            (target.tls, target.host, target.port)
        };
        assert_eq!(cut("https://bank.example/confirm"), (true, "bank.example".into(), 443));
        assert_eq!(cut("HTTP://bank.example:8080?x=${id}"), (false, "bank.example".into(), 8080));
        assert_eq!(cut("http://[::1]:9/${key}"), (false, "::1".into(), 9));
        assert_eq!(cut("http://[2606:4700::1111]"), (false, "2606:4700::1111".into(), 80));
    }

    #[test]
    fn urls_that_could_lead_elsewhere_are_refused() {
        let table = [
            ("ftp://bank.example/", "begins with https://"),
            ("bank.example/confirm", "begins with https://"),
            ("https://${host}/confirm", "must not come from a record"),
            ("https://bank.${domain}/confirm", "must not come from a record"),
            ("https://bank.example:${port}/", "must not come from a record"),
            ("https://me:secret@bank.example/", "into a header"),
            ("https:///confirm", "no host"),
            ("https://", "no host"),
            ("https://bank.example:/", "no port"),
            ("https://bank.example:0/", "no port"),
            ("https://bank.example:65536/", "no port"),
            ("https://bank.example/a#b", "fragment"),
            ("https://bank.example/a b", "cannot be sent"),
            ("https://bank.example/${", "does not close it"),
            ("http://169.254.169.254/latest", "no confirmation is ever sent"),
            ("http://[::ffff:169.254.169.254]/", "no confirmation is ever sent"),
            ("http://[fe80::1]/", "no confirmation is ever sent"),
        ];
        for (url, expected) in table {
            let said = parse(url).map(|_| ()).expect_err(url);
            assert!(said.contains(expected), "{url}: {said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn ones_own_machine_is_known_by_its_names() {
        for (url, expected) in [
            ("http://localhost:1/", true),
            ("http://LOCALHOST./", true),
            ("http://a.localhost/", true),
            ("http://127.0.0.1/", true),
            ("http://[::1]/", true),
            ("http://10.0.0.1/", true),
            ("http://localhost.example/", false),
            ("http://bank.example/", false),
            ("http://8.8.8.8/", false),
        ] {
            assert_eq!(parse(url).expect(url).0.is_private(), expected, "{url}");
        }
    }
}
