//! Lanes on their way from one store to another: what both databases must do the same way.

use std::fmt;

use caudal_core::error::StoreError;
use uuid::Uuid;

/// How far a lane was read: part by part, each in the order of its key. A transaction that moves on meanwhile moves into a part that
/// comes later, so none is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Behind this one of those that are held or dead.
    Aside(Uuid),
    Deferred(Uuid),
    /// Behind this rank and position.
    Ready(i16, i64),
    Ended(Uuid),
}

impl Place {
    pub(crate) fn parse(after: Option<&str>) -> Result<Self, StoreError> {
        let Some(after) = after else { return Ok(Self::Aside(Uuid::nil())) };
        let mut words = after.split(' ');
        let (part, rest): (_, Vec<&str>) = (words.next(), words.collect());
        let place = match (part, rest.as_slice()) {
            (Some("aside"), [id]) => id.parse().ok().map(Self::Aside),
            (Some("deferred"), [id]) => id.parse().ok().map(Self::Deferred),
            (Some("ready"), [rank, pos]) => rank.parse().ok().zip(pos.parse().ok()).map(|(r, p)| Self::Ready(r, p)),
            (Some("ended"), [id]) => id.parse().ok().map(Self::Ended),
            _ => None,
        };
        place.ok_or_else(|| StoreError::Asked(format!("{after:?} is no place in a lane of this store")))
    }

    /// The beginning of the next part.
    pub(crate) fn next_part(self) -> Option<Self> {
        match self {
            Self::Aside(_) => Some(Self::Deferred(Uuid::nil())),
            Self::Deferred(_) => Some(Self::Ready(0, 0)),
            Self::Ready(..) => Some(Self::Ended(Uuid::nil())),
            Self::Ended(_) => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aside(id) => write!(f, "aside {id}"),
            Self::Deferred(id) => write!(f, "deferred {id}"),
            Self::Ready(rank, pos) => write!(f, "ready {rank} {pos}"),
            Self::Ended(id) => write!(f, "ended {id}"),
        }
    }
}

pub(crate) fn not_paused(topic: &str) -> StoreError {
    StoreError::Asked(format!("the lane of {topic} is not paused: nothing can be moved into it"))
}

pub(crate) fn adopts(topic: &str) -> StoreError {
    StoreError::Asked(format!(
        "the lane of {topic} adopts rows of another's table: its transactions are those rows, so none can be moved into it"
    ))
}

pub(crate) fn no_record(id: Uuid, topic: &str, why: &str) -> StoreError {
    StoreError::Asked(format!(
        "the record of transaction {id} cannot be one of {topic}: {why}. Let this lane end where it is, or store the record in \
         {topic} first"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        let mut place = Some(Place::parse(None).expect("the beginning"));
        let mut parts = 0;
        while let Some(here) = place {
            assert_eq!(Place::parse(Some(&here.to_string())).expect("a place"), here);
            (place, parts) = (here.next_part(), parts + 1);
        }
        assert_eq!(parts, 4);
        assert!(matches!(Place::parse(Some("ready 1")), Err(StoreError::Asked(_))));
    }
}
