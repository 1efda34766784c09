//! Whether a key comes twice.

use std::borrow::Cow;

use foldhash::HashSet;

/// The keys of one object seen so far: a short list, then a set.
#[derive(Debug, Default)]
pub(super) struct Keys<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> Keys<'a> {
    const FEW: usize = 16;

    /// `false`: it was there.
    pub(super) fn insert(&mut self, key: Cow<'a, str>) -> bool {
        if self.many.is_empty() {
            if self.few.contains(&key) {
                return false;
            }
            self.few.push(key);
            if self.few.len() > Self::FEW {
                self.many.extend(self.few.drain(..));
            }
            return true;
        }
        self.many.insert(key)
    }

    pub(super) fn len(&self) -> usize {
        self.few.len() + self.many.len()
    }
}
