//! What subscriptions of this process are called in their consumer groups.
//!
//! A name is used again once its subscription is gone, so that whoever takes it next finds what a broken connection left
//! there and need not wait until it counts as abandoned.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

/// How the names of all Caudal's consumers begin.
pub(super) const OURS: &str = "caudal-";

#[derive(Debug)]
pub(super) struct Names {
    process: Uuid,
    places: Mutex<HashMap<Place, Known>>,
}

type Place = (Arc<str>, String);

/// What this process knows of a group.
#[derive(Debug, Default)]
struct Known {
    used: BTreeSet<u32>,
    /// Entries that are gone and that no delivery has told of yet.
    missing: u64,
}

impl Default for Names {
    fn default() -> Self {
        Self { process: Uuid::now_v7(), places: Mutex::default() }
    }
}

/// Free again when dropped.
#[derive(Debug)]
pub(super) struct Name {
    names: Arc<Names>,
    place: Place,
    number: u32,
}

impl Names {
    pub(super) fn take(self: &Arc<Self>, key: &Arc<str>, group: &str) -> Name {
        let place = (key.clone(), group.to_owned());
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let used = &mut places.entry(place.clone()).or_default().used;
        let number = (0..).find(|number| !used.contains(number)).unwrap_or_default();
        used.insert(number);
        drop(places);
        Name { names: self.clone(), place, number }
    }
}

impl Name {
    pub(super) fn consumer(&self) -> String {
        format!("{OURS}{}-{}", self.names.process.simple(), self.number)
    }

    fn known<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        let mut places = self.names.places.lock().unwrap_or_else(PoisonError::into_inner);
        change(places.entry(self.place.clone()).or_default())
    }

    /// Leaves word for the next subscription.
    pub(super) fn leave(&self, missing: u64) {
        self.known(|known| known.missing += missing);
    }

    pub(super) fn take_missing(&self) -> u64 {
        self.known(|known| std::mem::take(&mut known.missing))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        self.known(|known| known.used.remove(&self.number));
    }
}
