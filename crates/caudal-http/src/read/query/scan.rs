//! A place in a text, and the small words of the grammar that all of its parts share.

use super::select::{Arrow, FieldName, JsonStep, StepKey};
use super::{SyntaxError, excerpt};

#[derive(Debug)]
pub(super) struct Scan<'a> {
    part: &'static str,
    text: &'a str,
    at: usize,
}

/// Names between dots, and a JSON path after the last.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) names: Vec<String>,
    pub(super) json: Vec<JsonStep>,
}

impl<'a> Scan<'a> {
    /// `part` is what errors call the text.
    pub(super) fn new(part: &'static str, text: &'a str) -> Self {
        Self { part, text, at: 0 }
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    pub(super) fn looks_at(&self, word: &str) -> bool {
        self.rest().starts_with(word)
    }

    pub(super) fn take(&mut self, word: &str) -> bool {
        let found = self.looks_at(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    /// Everything up to the first of `ends`.
    pub(super) fn until(&mut self, ends: &[char]) -> &'a str {
        let rest = self.rest();
        let taken = &rest[..rest.find(ends).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    /// Tries `read` and stays where it was when there is nothing of the kind.
    pub(super) fn attempt<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let start = self.at;
        let read = read(self);
        if read.is_none() {
            self.at = start;
        }
        read
    }

    pub(super) fn expect(&mut self, word: &str, called: &'static str) -> Result<(), SyntaxError> {
        if self.take(word) { Ok(()) } else { Err(self.expected(called)) }
    }

    pub(super) fn end(&self) -> Result<(), SyntaxError> {
        if self.is_at_end() { Ok(()) } else { Err(self.expected("the end, or a comma")) }
    }

    pub(super) fn expected(&self, expected: &'static str) -> SyntaxError {
        let at = self.text[..self.at].chars().count();
        SyntaxError::Expected { part: self.part.to_owned(), text: excerpt(self.text), at, expected }
    }

    /// At least one, with commas between them.
    pub(super) fn list<T>(&mut self, one: fn(&mut Self) -> Result<T, SyntaxError>) -> Result<Vec<T>, SyntaxError> {
        let mut all = vec![one(self)?];
        while self.take(",") {
            all.push(one(self)?);
        }
        Ok(all)
    }

    /// A name: quoted, or of characters that have no meaning here. PostgREST's unquoted names are letters, digits, `_`, `$` and
    /// space; every one of them is a name here too.
    pub(super) fn name(&mut self) -> Result<String, SyntaxError> {
        if self.looks_at("\"") {
            return self.quoted().ok_or_else(|| self.expected("the end of a quoted name"));
        }
        let rest = self.rest();
        let means_something = |(i, c): (usize, char)| match c {
            '-' => rest[i..].starts_with("->"),
            '!' | '(' | ')' | '*' | ',' | '.' | ':' | '"' | '{' | '}' => true,
            c => c.is_control(),
        };
        let end = rest.char_indices().find(|place| means_something(*place)).map_or(rest.len(), |(i, _)| i);
        if end == 0 {
            return Err(self.expected("a name"));
        }
        self.at += end;
        Ok(rest[..end].to_owned())
    }

    /// `"…"` with `\"` and `\\`; `None` when it does not end.
    pub(super) fn quoted(&mut self) -> Option<String> {
        let mut chars = self.rest().char_indices();
        if chars.next()?.1 != '"' {
            return None;
        }
        let mut text = String::new();
        loop {
            match chars.next()? {
                (_, '\\') => text.push(chars.next()?.1),
                (i, '"') => {
                    self.at += i + 1;
                    return Some(text);
                }
                (_, c) => text.push(c),
            }
        }
    }

    /// `a.b.c->d`: the whole text.
    pub(super) fn path(&mut self) -> Result<Path, SyntaxError> {
        let mut names = vec![self.name()?];
        while self.take(".") {
            names.push(self.name()?);
        }
        let json = self.json()?;
        self.end()?;
        Ok(Path { names, json })
    }

    /// A field before a dot that means something: a column's own name may hold dots, so names are joined until one of `words`
    /// follows.
    pub(super) fn dotted_field(&mut self, words: &[&str]) -> Result<FieldName, SyntaxError> {
        let mut name = self.name()?;
        while self.looks_at(".") && !self.word_follows(words) {
            let more = self.attempt(|scan| {
                scan.take(".");
                scan.name().ok()
            });
            let Some(more) = more else { break };
            name.push('.');
            name.push_str(&more);
        }
        Ok(FieldName { name, json: self.json()? })
    }

    /// Whether one of `words` stands after the dot here, whole.
    fn word_follows(&self, words: &[&str]) -> bool {
        let after = &self.rest()[1..];
        let word = &after[..after.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(after.len())];
        let whole = !after[word.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        whole && words.contains(&word)
    }

    /// `->key->0->>name`, or nothing.
    pub(super) fn json(&mut self) -> Result<Vec<JsonStep>, SyntaxError> {
        let mut steps = Vec::new();
        loop {
            let arrow = match () {
                () if self.take("->>") => Arrow::Text,
                () if self.take("->") => Arrow::Json,
                () => return Ok(steps),
            };
            steps.push(JsonStep { arrow, key: self.step_key()? });
        }
    }

    fn step_key(&mut self) -> Result<StepKey, SyntaxError> {
        let index = self.attempt(|scan| {
            let rest = scan.rest();
            let digits = rest.strip_prefix('-').unwrap_or(rest);
            let len = rest.len() - digits.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            scan.at += len;
            let ends = scan.is_at_end() || ["->", "::", ".", ",", ")"].iter().any(|end| scan.looks_at(end));
            if ends { rest[..len].parse().ok() } else { None }
        });
        match index {
            Some(index) => Ok(StepKey::Index(index)),
            None => self.name().map(StepKey::Key),
        }
    }
}
