//! What every broker that is not Caudal's own is told.

use std::collections::HashMap;

use caudal_core::topic::TopicName;

/// How to reach a broker and what may be done there.
#[derive(Clone)]
pub struct RemoteConfig {
    /// With credentials, if it has any: never to be logged.
    pub url: String,
    /// Topics whose places have names of their own.
    pub places: HashMap<TopicName, Place>,
    /// Make what is missing there. Otherwise what is missing is an error that says how to make it.
    pub create: bool,
    /// Names the group that subscriptions made here belong to, where the broker wants to know at publish time so that nothing
    /// published before the first subscription is lost.
    pub subscriptions: Vec<String>,
}

/// Where a topic lives in a broker. What is left out follows from the topic's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// What is published to: an exchange, a subject, a stream, a topic's ARN.
    pub publish: Option<String>,
    /// What is consumed from, where that is something else: a queue, its URL, a durable consumer.
    pub consume: Option<String>,
}

impl RemoteConfig {
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), places: HashMap::new(), create: true, subscriptions: vec!["store".to_owned()] }
    }

    pub(crate) fn place(&self, topic: &TopicName) -> Place {
        self.places.get(topic).cloned().unwrap_or_default()
    }
}

impl std::fmt::Debug for RemoteConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteConfig")
            .field("places", &self.places)
            .field("create", &self.create)
            .finish_non_exhaustive()
    }
}
