//! Point reads, gathered: whatever waits when a connection is free goes out as one query, the mirror of group commit.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use caudal_core::error::StoreError;
use caudal_core::row::RowBatch;
use caudal_core::schema::{ID, Table};
use foldhash::HashMap;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::connect::{Conn, Connector};
use super::error::store_error;
use super::sql::{column_list, quoted};
use super::wire::push_row;

/// Connections shared by all point reads.
const CONNECTIONS: usize = 3;
/// Requests taken into one query.
const GATHERED_MAX: usize = 256;
/// Requests that may wait; beyond it callers wait to wait.
const WAITING_MAX: usize = 4096;

struct Request {
    table: Arc<Table>,
    id: Uuid,
    answer: oneshot::Sender<Result<Option<RowBatch>, StoreError>>,
}

/// Ends its readers when dropped: their channel closes.
#[derive(Debug)]
pub(super) struct PointReads {
    connector: Connector,
    idle_max: Option<Duration>,
    requests: OnceLock<mpsc::Sender<Request>>,
}

impl PointReads {
    pub(super) fn new(connector: Connector, idle_max: Option<Duration>) -> Self {
        Self { connector, idle_max, requests: OnceLock::new() }
    }

    pub(super) async fn get(&self, table: &Arc<Table>, id: Uuid) -> Result<Option<RowBatch>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let request = Request { table: table.clone(), id, answer };
        let gone = |_| StoreError::unavailable("the store is closing");
        self.requests.get_or_init(|| self.start()).send(request).await.map_err(|_| gone(()))?;
        answered.await.map_err(|_| gone(()))?
    }

    fn start(&self) -> mpsc::Sender<Request> {
        let (requests, waiting) = mpsc::channel(WAITING_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..CONNECTIONS {
            tokio::spawn(serve(self.connector.clone(), self.idle_max, waiting.clone()));
        }
        requests
    }
}

async fn serve(connector: Connector, idle_max: Option<Duration>, waiting: Arc<Mutex<mpsc::Receiver<Request>>>) {
    let mut conn: Option<Conn> = None;
    let mut used = Instant::now();
    let mut gathered = Vec::with_capacity(GATHERED_MAX);
    loop {
        if waiting.lock().await.recv_many(&mut gathered, GATHERED_MAX).await == 0 {
            return;
        }
        if idle_max.is_some_and(|max| used.elapsed() > max) {
            conn = None;
        }
        let mut by_table: HashMap<usize, Vec<Request>> = HashMap::default();
        for request in gathered.drain(..) {
            by_table.entry(Arc::as_ptr(&request.table).addr()).or_default().push(request);
        }
        for requests in by_table.into_values() {
            let found = find(&connector, &mut conn, &requests).await;
            answer(requests, found);
        }
        used = Instant::now();
    }
}

/// All requested rows of one table, by id. A read is safe to repeat: once more when the connection was found dead.
async fn find(
    connector: &Connector,
    conn: &mut Option<Conn>,
    requests: &[Request],
) -> Result<HashMap<Uuid, Row>, StoreError> {
    let fresh = conn.is_none();
    match find_once(connector, conn, requests).await {
        Err(StoreError::Unavailable(_)) if !fresh => {
            *conn = None;
            find_once(connector, conn, requests).await
        }
        result => result,
    }
    .inspect_err(|_| *conn = None)
}

async fn find_once(
    connector: &Connector,
    place: &mut Option<Conn>,
    requests: &[Request],
) -> Result<HashMap<Uuid, Row>, StoreError> {
    let conn = match place {
        Some(conn) => conn,
        None => place.insert(connector.connect().await?),
    };
    let Some(table) = requests.first().map(|r| &r.table) else { return Ok(HashMap::default()) };
    let id_at = table.column(ID).ok_or_else(|| StoreError::Setup(format!("table {} has no _id", table.name)))?;
    let columns = column_list(table.columns.iter().map(|c| c.name.as_str()));
    let sql = format!("select {columns} from {} where _id = any($1)", quoted(&table.name));
    let query = conn.prepare(&sql, &[Type::UUID_ARRAY]).await.map_err(store_error)?;
    let ids: Vec<Uuid> = requests.iter().map(|r| r.id).collect();
    let rows = conn.query(&query, &[&ids]).await.map_err(store_error)?;
    rows.into_iter().map(|row| Ok((row.try_get(id_at).map_err(store_error)?, row))).collect()
}

fn answer(requests: Vec<Request>, found: Result<HashMap<Uuid, Row>, StoreError>) {
    for request in requests {
        let one = match &found {
            Ok(rows) => rows.get(&request.id).map(one_row).transpose(),
            Err(error) => Err(copy_of(error)),
        };
        // Nobody waits any more: nothing to do.
        let _ = request.answer.send(one);
    }
}

fn one_row(row: &Row) -> Result<RowBatch, StoreError> {
    let mut batch = RowBatch::with_capacity(1, row.raw_size_bytes() + 2);
    push_row(&mut batch, row, 0).map_err(store_error)?;
    Ok(batch)
}

/// One failure told to everybody who shared the query.
fn copy_of(error: &StoreError) -> StoreError {
    match error {
        StoreError::Timeout => StoreError::Timeout,
        StoreError::Setup(text) => StoreError::Setup(text.clone()),
        StoreError::Fatal(cause) => StoreError::fatal(cause.to_string()),
        other => StoreError::unavailable(other.to_string()),
    }
}
