//! One connection to NATS, and what is known of the topics over it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Request, RequestErrorKind, Subject};
use bytes::Bytes;
use caudal_core::error::BrokerError;
use caudal_core::topic::TopicName;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::address::{Address, Login};
use super::confirm::Confirmations;
use super::error::{NO_JETSTREAM, Refusal, chain, connecting};
use super::fate::{Fate, Over};
use super::place::TopicStream;
use crate::current::Connection;

/// How long a server may take to answer before it counts as away.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// A server that answers no ping is noticed after three of these.
const PING_EVERY: Duration = Duration::from_secs(2);
/// Deliveries and confirmations that the driver may hold; above it, it throws them away. What we ask for stays below.
pub(super) const DRIVER_HOLDS: usize = 128 * 1024;

pub(super) struct Link {
    pub(super) client: Client,
    /// The server's id, which it has until it ends.
    pub(super) server: String,
    pub(super) fate: Arc<Fate>,
    pub(super) confirmations: Confirmations,
    pub(super) address: Arc<Address>,
    pub(super) making: tokio::sync::Mutex<()>,
    topics: Mutex<HashMap<TopicName, Arc<TopicStream>>>,
    /// Each subscription's task holds a receiver of it while it lives.
    pumps: watch::Sender<()>,
    /// The tasks of subscriptions that were dropped.
    leaving: Mutex<Vec<JoinHandle<()>>>,
    api: String,
}

impl Link {
    pub(super) async fn connect(address: &Arc<Address>) -> Result<Self, BrokerError> {
        let fate = Arc::new(Fate::new(address.user_named()));
        let options = options(address, &fate).await?;
        let connect = options.connect(address.servers.clone());
        let client = match tokio::time::timeout(PATIENCE, connect).await {
            Ok(client) => client.map_err(|error| connecting(error, address))?,
            Err(_) => {
                let servers = address.servers_named();
                return Err(BrokerError::unavailable(format!("NATS at {servers} does not answer")));
            }
        };
        if address.domain.is_none() && !client.server_info().jetstream {
            return Err(BrokerError::Setup(NO_JETSTREAM.to_owned()));
        }
        let api = match &address.domain {
            Some(domain) => format!("$JS.{domain}.API"),
            None => "$JS.API".to_owned(),
        };
        let confirmations = Confirmations::open(&client).await?;
        Ok(Self {
            server: client.server_info().server_id,
            client,
            fate,
            confirmations,
            address: address.clone(),
            making: tokio::sync::Mutex::default(),
            topics: Mutex::default(),
            pumps: watch::Sender::new(()),
            leaving: Mutex::default(),
            api,
        })
    }

    /// Asks JetStream. The outer error is about the connection, the inner one is JetStream's own.
    pub(super) async fn ask(&self, what: &str, request: &Value) -> Result<Result<Value, Refusal>, BrokerError> {
        let subject = format!("{}.{what}", self.api);
        let payload = match request {
            Value::Null => Bytes::new(),
            request => Bytes::from(request.to_string()),
        };
        let answer = self.request(Subject::from(subject.as_str()), payload).await?;
        let answer: Value = serde_json::from_slice(&answer).map_err(BrokerError::unavailable)?;
        Ok(match Refusal::of(&answer) {
            Some(refusal) => Err(refusal),
            None => Ok(answer),
        })
    }

    /// The subject of a JetStream request.
    pub(super) fn api_subject(&self, what: &str) -> Subject {
        Subject::from(format!("{}.{what}", self.api))
    }

    /// Sends and waits for the answer.
    pub(super) async fn request(&self, subject: Subject, payload: Bytes) -> Result<Bytes, BrokerError> {
        let named = subject.as_str().to_owned();
        let request = Request::new().payload(payload).timeout(Some(PATIENCE));
        tokio::select! {
            answer = self.client.send_request(subject, request) => match answer {
                Ok(answer) => Ok(answer.payload),
                Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                    Err(BrokerError::unavailable(format!("nobody in NATS answers {named}")))
                }
                Err(error) => Err(BrokerError::unavailable(format!("{named}: {}", chain(&error)))),
            },
            over = self.fate.ended() => Err(over.error()),
            refused = self.fate.refused(&named) => Err(refused),
        }
    }

    pub(super) fn known(&self, topic: &TopicName) -> Option<Arc<TopicStream>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).get(topic).cloned()
    }

    pub(super) fn learn(&self, topic: &TopicName, stream: Arc<TopicStream>) {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.clone(), stream);
    }

    /// Looks again, the next time, whether the topic is there.
    pub(super) fn forget(&self, topic: &TopicName) {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).remove(topic);
    }

    pub(super) fn pump(&self) -> watch::Receiver<()> {
        self.pumps.subscribe()
    }

    pub(super) fn leaves(&self, pump: JoinHandle<()>) {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        leaving.retain(|pump| !pump.is_finished());
        leaving.push(pump);
    }

    /// Waits until dropped subscriptions have given back what they had, so that it comes before what is newer.
    pub(super) async fn all_left(&self) {
        let leaving = std::mem::take(&mut *self.leaving.lock().unwrap_or_else(PoisonError::into_inner));
        let _ = tokio::time::timeout(PATIENCE, futures_util::future::join_all(leaving)).await;
    }

    /// Lets publishes end, has subscriptions give back what they hold, and sends what is to be sent.
    pub(super) async fn close(&self) {
        let _ = tokio::time::timeout(PATIENCE, self.confirmations.all_done()).await;
        self.fate.end(Over::Closing);
        let _ = tokio::time::timeout(PATIENCE, self.pumps.closed()).await;
        let _ = tokio::time::timeout(PATIENCE, self.client.flush()).await;
    }
}

impl Connection for Link {
    fn is_broken(&self) -> bool {
        self.fate.over().is_some()
    }
}

async fn options(address: &Address, fate: &Arc<Fate>) -> Result<ConnectOptions, BrokerError> {
    let fate = fate.clone();
    let mut options = ConnectOptions::new()
        .name("caudal")
        .connection_timeout(CONNECT_WITHIN)
        .ping_interval(PING_EVERY)
        .request_timeout(Some(PATIENCE))
        .subscription_capacity(DRIVER_HOLDS)
        .ignore_discovered_servers()
        // Each server once, then the driver gives up: see `fate`.
        .max_reconnects(address.servers.len())
        .event_callback(move |event| {
            fate.note(event);
            std::future::ready(())
        });
    options = match &address.login {
        Login::Nobody => options,
        Login::Token(token) => options.token(token.clone()),
        Login::User { name, password } => options.user_and_password(name.clone(), password.clone()),
    };
    if let Some(file) = &address.creds {
        options = options.credentials_file(file).await.map_err(|error| {
            BrokerError::Setup(format!("the credentials file {} cannot be used: {error}", file.display()))
        })?;
    }
    if let Some(file) = &address.tls_ca {
        std::fs::metadata(file).map_err(|error| BrokerError::Setup(format!("tls_ca {}: {error}", file.display())))?;
        options = options.add_root_certificates(file.clone());
    }
    if let (Some(certificate), Some(key)) = (&address.tls_cert, &address.tls_key) {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(options)
}
