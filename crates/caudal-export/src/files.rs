//! The files of one run: one open file a day, as many days as rows come for, in bounded memory.

use std::collections::BTreeMap;

use caudal_core::row::{Row, RowBatch, field};
use caudal_core::schema::{ColumnType, Table};
use caudal_core::time::Date;
use sha2::{Digest, Sha256};

use crate::encoder::{Encoder, Format};
use crate::error::ExportError;
use crate::manifest::ManifestFile;
use crate::place::{Place, Sink};

/// Files open at once. Each holds up to a row group, and as much again on its way to S3. Rows arrive about in order of storing, so
/// with days of `_stored_at` there are one or two.
const OPEN_MAX: usize = 4;
/// A file is closed at this size, so that readers can take several at a time.
const FILE_BYTES: u64 = 256 * 1024 * 1024;
const DAY_MICROS: i64 = 86_400_000_000;

/// What the folders are called before the `=`. The column that they are made from keeps its name and its place in the files.
pub(crate) const PARTITION_KEY: &str = "caudal_day";
/// Hive's name for the partition of rows without a value.
const NULL_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

pub(crate) struct Files<'a> {
    place: &'a Place,
    format: Format,
    columns: Vec<(String, ColumnType)>,
    /// The column whose day names the folder.
    day_of: usize,
    day_type: ColumnType,
    /// `flights/`, and what the files of this run begin with: `00000001-<run>`.
    folder: String,
    stem: String,
    open: BTreeMap<Option<i32>, Open>,
    done: Vec<ManifestFile>,
    begun: u64,
}

struct Open {
    path: String,
    encoder: Encoder,
    sink: Sink,
    rows: u64,
    bytes: u64,
    digest: Sha256,
    /// When it was last written to, as a count of batches.
    used: u64,
}

impl<'a> Files<'a> {
    pub(crate) fn new(place: &'a Place, format: Format, table: &Table, day_of: usize, stem: String) -> Self {
        Self {
            place,
            format,
            columns: table.columns.iter().map(|c| (c.name.clone(), c.ty)).collect(),
            day_of,
            day_type: table.columns[day_of].ty,
            folder: table.name.clone(),
            stem,
            open: BTreeMap::new(),
            done: Vec::new(),
            begun: 0,
        }
    }

    /// Takes a batch in and sends what is ready.
    pub(crate) async fn write(&mut self, batch: &RowBatch, count: u64) -> Result<(), ExportError> {
        for row in batch.rows() {
            let day = self.day(row);
            if !self.open.contains_key(&day) {
                self.begin(day).await?;
            }
            if let Some(file) = self.open.get_mut(&day) {
                file.encoder.push(row)?;
                file.rows += 1;
                file.used = count;
            }
        }
        for file in self.open.values_mut().filter(|file| file.used == count) {
            let ready = file.encoder.ready();
            file.send(ready).await?;
        }
        let full =
            self.open.iter().filter(|(_, file)| file.bytes >= FILE_BYTES).map(|(day, _)| *day).collect::<Vec<_>>();
        for day in full {
            self.close(day).await?;
        }
        Ok(())
    }

    fn day(&self, mut row: Row<'_>) -> Option<i32> {
        let value = row.nth(self.day_of).flatten()?;
        Some(match self.day_type {
            ColumnType::Date => field::date(value).0,
            _ => field::timestamp(value).0.div_euclid(DAY_MICROS) as i32,
        })
    }

    async fn begin(&mut self, day: Option<i32>) -> Result<(), ExportError> {
        if self.open.len() >= OPEN_MAX
            && let Some(oldest) = self.open.iter().min_by_key(|(_, file)| file.used).map(|(day, _)| *day)
        {
            self.close(oldest).await?;
        }
        let partition = day.map_or(NULL_PARTITION.to_owned(), |day| Date(day).to_string());
        let extension = self.format.name();
        let name = format!("{}-{:04}.{extension}", self.stem, self.begun);
        let path = format!("{}/{PARTITION_KEY}={partition}/{name}", self.folder);
        let encoder = Encoder::new(self.format, &self.columns)?;
        let sink = self.place.create(&path).await?;
        self.begun += 1;
        let file = Open { path, encoder, sink, rows: 0, bytes: 0, digest: Sha256::new(), used: u64::MAX };
        self.open.insert(day, file);
        Ok(())
    }

    async fn close(&mut self, day: Option<i32>) -> Result<(), ExportError> {
        if let Some(file) = self.open.remove(&day) {
            self.done.push(file.finish().await?);
        }
        Ok(())
    }

    /// Closes all files; they are there, whole and durable.
    pub(crate) async fn finish(&mut self) -> Result<Vec<ManifestFile>, ExportError> {
        while let Some((_, file)) = self.open.pop_first() {
            self.done.push(file.finish().await?);
        }
        Ok(std::mem::take(&mut self.done))
    }

    /// Gives up what is open. Files that are whole stay until a later run has committed, and no manifest lists them.
    pub(crate) async fn abort(&mut self) {
        while let Some((_, file)) = self.open.pop_first() {
            file.sink.abort().await;
        }
    }
}

impl Open {
    async fn send(&mut self, bytes: Vec<u8>) -> Result<(), ExportError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.digest.update(&bytes);
        self.bytes += bytes.len() as u64;
        self.sink.write(bytes.into()).await
    }

    async fn finish(self) -> Result<ManifestFile, ExportError> {
        let Open { path, encoder, mut sink, rows, mut bytes, mut digest, .. } = self;
        let rest = encoder.end()?;
        digest.update(&rest);
        bytes += rest.len() as u64;
        sink.write(rest.into()).await?;
        sink.finish().await?;
        let sha256 = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(ManifestFile { path, rows, bytes, sha256 })
    }
}
