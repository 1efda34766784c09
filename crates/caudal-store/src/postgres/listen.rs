//! Being told that the catalogue has changed: by `NOTIFY pgrst, 'reload schema'`, as for PostgREST, and by reads that met a
//! table of another shape than it was read in.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use caudal_core::error::StoreError;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use tokio::sync::{Notify, mpsc};
use tokio_postgres::AsyncMessage;

use super::connect::Connector;
use super::error::store_error;

/// PostgREST's channel: whoever changes tables for one tells both.
const CHANNEL: &str = "pgrst";
const PAUSE: Duration = Duration::from_secs(1);

/// `listens` is false behind a transaction pool, where nobody can be told: there only reads tell.
pub(super) fn changes(connector: Connector, met: Arc<Notify>, listens: bool) -> BoxStream<'static, ()> {
    let (tell, told) = mpsc::channel(1);
    if listens {
        tokio::spawn(listen(connector, CHANNEL, |payload| matches!(payload, "" | "reload schema"), tell));
    }
    let stream = unfold((told, met, listens), |(mut told, met, listens)| async move {
        tokio::select! {
            Some(()) = told.recv(), if listens => {}
            () = met.notified() => {}
        }
        Some(((), (told, met, listens)))
    });
    stream.boxed()
}

/// What is said on a channel, as far as `meant` takes it for word: once for all that came since it was last asked for.
pub(super) fn words(connector: Connector, channel: &'static str, meant: Meant) -> BoxStream<'static, ()> {
    let (tell, told) = mpsc::channel(1);
    tokio::spawn(listen(connector, channel, meant, tell));
    unfold(told, |mut told| async move { told.recv().await.map(|()| ((), told)) }).boxed()
}

type Meant = fn(&str) -> bool;

/// Listens until nobody reads any more. A connection that broke may have missed something, so each new one counts as word.
async fn listen(connector: Connector, channel: &'static str, meant: Meant, tell: mpsc::Sender<()>) {
    let mut broken = false;
    while !tell.is_closed() {
        let listening = listen_once(&connector, channel, meant, &tell, broken);
        let ended = tokio::select! {
            ended = listening => ended,
            () = tell.closed() => return,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, channel, "not listening; trying again");
        }
        broken = true;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn listen_once(
    connector: &Connector,
    channel: &str,
    meant: Meant,
    tell: &mpsc::Sender<()>,
    broken: bool,
) -> Result<(), StoreError> {
    let (client, mut connection) = connector.open().await?;
    // Told once too often is no harm, so a full channel is none either.
    let word = || {
        let _ = tell.try_send(());
    };
    let heard = async {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(notification) = message.map_err(store_error)?
                && meant(notification.payload())
            {
                word();
            }
        }
        Ok(())
    };
    let listening = async {
        client.batch_execute(&format!("listen {channel}")).await.map_err(store_error)?;
        if broken {
            word();
        }
        std::future::pending().await
    };
    tokio::select! {
        ended = heard => ended,
        failed = listening => failed,
    }
}
