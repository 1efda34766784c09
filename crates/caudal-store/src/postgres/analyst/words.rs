//! The identifiers in a statement, found as PostgreSQL's own scanner finds them (`src/backend/parser/scan.l`).
//!
//! What the two read differently would be a hiding place, so text that depends on how a string is quoted is not taken at all.

use std::collections::BTreeSet;

/// PostgreSQL cuts longer identifiers, and so a function cannot have a longer name.
const IDENTIFIER_BYTES_MAX: usize = 63;

/// Every identifier and key word outside strings and comments, as PostgreSQL looks it up: unquoted in lower case, quoted as
/// written.
///
/// # Errors
/// Says what to write instead.
pub(super) fn identifiers(text: &str) -> Result<BTreeSet<String>, &'static str> {
    if text.contains("\\'") {
        return Err("a backslash before a quote means different things in '…' and E'…': write '' for a quote");
    }
    let mut scanner = Scanner { bytes: text.as_bytes(), at: 0 };
    let mut found = BTreeSet::new();
    while let Some(byte) = scanner.peek(0) {
        match (byte, scanner.peek(1)) {
            (b'-', Some(b'-')) => scanner.skip_while(|b| !matches!(b, b'\n' | b'\r')),
            (b'/', Some(b'*')) => scanner.skip_comment(),
            (b'\'', _) => {
                scanner.skip_quoted(b'\'');
            }
            (b'"', _) => {
                let start = scanner.at + 1;
                let end = scanner.skip_quoted(b'"');
                add(&mut found, text[start..end].replace("\"\"", "\""));
            }
            (b'$', _) => scanner.skip_dollar(),
            (first, _) if starts_identifier(first) => {
                let start = scanner.at;
                scanner.skip_while(|b| starts_identifier(b) || b.is_ascii_digit() || b == b'$');
                let word = text[start..scanner.at].to_ascii_lowercase();
                if word == "u" && scanner.peek(0) == Some(b'&') && matches!(scanner.peek(1), Some(b'"' | b'\'')) {
                    return Err("U&\"…\" and U&'…' are not taken: write the characters themselves");
                }
                add(&mut found, word);
            }
            _ => scanner.at += 1,
        }
    }
    Ok(found)
}

fn add(found: &mut BTreeSet<String>, mut word: String) {
    let mut end = word.len().min(IDENTIFIER_BYTES_MAX);
    while !word.is_char_boundary(end) {
        end -= 1;
    }
    word.truncate(end);
    found.insert(word);
}

fn starts_identifier(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn skip_while(&mut self, keep: impl Fn(u8) -> bool) {
        while self.peek(0).is_some_and(&keep) {
            self.at += 1;
        }
    }

    /// Comments nest.
    fn skip_comment(&mut self) {
        let mut depth = 0;
        while let Some(byte) = self.peek(0) {
            match (byte, self.peek(1)) {
                (b'/', Some(b'*')) => (depth, self.at) = (depth + 1, self.at + 2),
                (b'*', Some(b'/')) => (depth, self.at) = (depth - 1, self.at + 2),
                _ => self.at += 1,
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Goes on behind the closing quote, and returns where the text ended; a doubled quote is part of it.
    fn skip_quoted(&mut self, quote: u8) -> usize {
        self.at += 1;
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            if byte == quote {
                if self.peek(0) != Some(quote) {
                    return self.at - 1;
                }
                self.at += 1;
            }
        }
        self.at
    }

    /// `$tag$ … $tag$`, or a dollar that opens nothing.
    fn skip_dollar(&mut self) {
        let rest = &self.bytes[self.at..];
        let tag = rest[1..].iter().take_while(|b| starts_identifier(**b) || b.is_ascii_digit()).count();
        let opens = rest.get(tag + 1) == Some(&b'$') && (tag == 0 || starts_identifier(rest[1]));
        if !opens {
            self.at += 1;
            return;
        }
        let delimiter = &rest[..tag + 2];
        let body = &rest[delimiter.len()..];
        let end = body.windows(delimiter.len()).position(|w| w == delimiter);
        self.at += delimiter.len() + end.map_or(body.len(), |end| end + delimiter.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        identifiers(text).expect("text that is taken").into_iter().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn identifiers_are_found_and_strings_are_not() {
        for (text, expected) in [
            ("select PG_Sleep(1)", "pg_sleep select"),
            ("select \"pg_sleep\"(1), \"A\"\"b\"", "A\"b pg_sleep select"),
            ("select 'it''s pg_sleep' || x", "select x"),
            ("select $$ pg_sleep $$, $a$ $$ b $a$ c", "c select"),
            ("select 1-- pg_sleep\n+a", "a select"),
            ("select 1-- pg_sleep\r+a", "a select"),
            ("/* a /* b */ c */ d", "d"),
            ("select/**/pg_sleep/**/(1)", "pg_sleep select"),
            ("select 1pg_sleep, a$b$c", "a$b$c pg_sleep select"),
            ("select e'a\\\\n' x", "e select x"),
            ("select 1 where $1$$a$$b", "b select where"),
            ("('x'::text).pg_read_file", "pg_read_file text"),
            ("select ñandú", "select ñandú"),
            ("'open pg_sleep", ""),
            ("\"open \u{fe}", "open \u{fe}"),
            ("$a$ open pg_sleep $b$", ""),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn text_that_depends_on_quoting_is_not_taken() {
        for text in ["select E'a\\'b'", "select 'C:\\'", "select U&\"d\\0061ta\"", "select u&'x'"] {
            assert!(identifiers(text).is_err(), "{text}");
        }
    }

    /// Whatever is sent: quotes that do not close, characters of several bytes in every place.
    #[test]
    fn any_text_is_scanned_to_its_end() {
        const PIECES: [&str; 11] = ["\"", "'", "$", "a", "\u{fe}", "-", "/", "*", "\n", "u&", "1"];
        for number in 0..PIECES.len().pow(5) {
            let text: String = (0..5).map(|place| PIECES[number / PIECES.len().pow(place) % PIECES.len()]).collect();
            let _ = identifiers(&text);
        }
    }

    #[test]
    fn names_are_cut_as_the_server_cuts_them() {
        let long = "a".repeat(70);
        assert_eq!(words(&long), "a".repeat(63));
    }
}
