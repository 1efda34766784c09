//! One run of an export: what was committed since the last manifest's mark, as files, and then a manifest of its own.
//!
//! Only the manifest counts, and it is made whole or not at all, under a number that only one run can take. A run that dies before
//! leaves files that no manifest lists; the next run begins at the same mark, writes others, and removes them after its own commit.
//! Not before: until then the other run, if it still lives, may be the one that commits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use caudal_core::ports::{Store, TailMark};
use caudal_core::schema::{ColumnType, STORED_AT, Table};
use caudal_core::time::Instant;
use futures_util::TryStreamExt;
use uuid::Uuid;

use crate::encoder::Format;
use crate::error::ExportError;
use crate::files::{Files, PARTITION_KEY};
use crate::manifest::{self, Manifest, ManifestFile, Partition};
use crate::place::Place;

/// What to export to where.
#[derive(Debug, Clone)]
pub struct Export {
    pub table: Arc<Table>,
    /// A directory, or `s3://bucket/prefix`.
    pub url: String,
    pub format: Format,
    /// The column whose days are the partitions.
    pub day_of: String,
    /// Do nothing while the last manifest is younger.
    pub every: Option<Duration>,
}

/// What a run has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Exported(Box<Manifest>),
    /// Every record was exported before; looked at then (RFC 3339).
    NothingNew {
        looked_at: String,
    },
    /// [`Export::every`] is not over: the last export ended then (RFC 3339).
    NotDue {
        finished_at: String,
    },
}

impl Export {
    /// Runs once. `progress` is told rows as they are written.
    ///
    /// # Errors
    /// See [`ExportError`]. After any of them a new run goes on where the last manifest ends.
    pub async fn run(&self, store: &dyn Store, progress: &mut (dyn FnMut(u64) + Send)) -> Result<Outcome, ExportError> {
        let day_of = self.partition_column()?;
        let place = Place::open(&self.url)?;
        let name = format!("export {} {}", self.table.name, self.url);
        let _held = store.exclusive(&name).await?.ok_or(ExportError::Busy)?;
        let last = manifest::last(&place, &self.table.name).await?;
        if let Some(last) = &last {
            self.goes_on_from(last)?;
            if self.every.is_some_and(|every| younger(&last.finished_at, every)) {
                return Ok(Outcome::NotDue { finished_at: last.finished_at.clone() });
            }
        }
        let run = Run { export: self, place: &place, last, id: Uuid::now_v7().simple().to_string(), started_at: now() };
        let outcome = run.go(store, day_of, progress).await?;
        if let Outcome::Exported(manifest) = &outcome {
            // It is exported already; what could not be removed is removed by a later run.
            if let Err(error) = remove_abandoned(&place, manifest).await {
                tracing::warn!(%error, "files of an earlier run that died are left");
            }
        }
        Ok(outcome)
    }

    /// How many rows the manifests list so far.
    pub async fn rows_so_far(&self) -> Result<u64, ExportError> {
        let last = manifest::last(&Place::open(&self.url)?, &self.table.name).await?;
        Ok(last.map_or(0, |last| last.total_rows))
    }

    fn partition_column(&self) -> Result<usize, ExportError> {
        let table = &self.table;
        if table.column(STORED_AT).is_none() {
            return Err(ExportError::Setup(format!("table {} is no topic's: only topics are exported", table.name)));
        }
        if table.column(PARTITION_KEY).is_some() {
            let say = format!(
                "table {} has a column {PARTITION_KEY}, which is what the folders are called: rename it",
                table.name
            );
            return Err(ExportError::Setup(say));
        }
        let dated = |ty| matches!(ty, ColumnType::Timestamptz | ColumnType::Date);
        table.column(&self.day_of).filter(|at| dated(table.columns[*at].ty)).ok_or_else(|| {
            let known: Vec<_> = table.columns.iter().filter(|c| dated(c.ty)).map(|c| c.name.as_str()).collect();
            let (name, day_of) = (&table.name, &self.day_of);
            ExportError::Setup(format!(
                "table {name} has no column {day_of:?} with days; there are {}",
                known.join(", ")
            ))
        })
    }

    /// One place holds one kind of export of a table.
    fn goes_on_from(&self, last: &Manifest) -> Result<(), ExportError> {
        let (format, day_of) = (self.format.name(), &self.day_of);
        if last.format == format && last.partition.day_of == *day_of {
            return Ok(());
        }
        Err(ExportError::Setup(format!(
            "{} holds an export as {} by day of {}, and this one is as {format} by day of {day_of}: export to another place",
            self.url, last.format, last.partition.day_of
        )))
    }
}

struct Run<'a> {
    export: &'a Export,
    place: &'a Place,
    last: Option<Manifest>,
    id: String,
    started_at: String,
}

impl Run<'_> {
    async fn go(
        self,
        store: &dyn Store,
        day_of: usize,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Outcome, ExportError> {
        let (table, from) = (&self.export.table, self.last.as_ref().map(|last| TailMark(last.mark.clone())));
        let (mut batches, mark) = store.changes(table, from.as_ref()).await?;
        let stem = format!("{:08}-{}", self.sequence(), self.id);
        let mut files = Files::new(self.place, self.export.format, table, day_of, stem);
        let written = async {
            let mut count = 0;
            while let Some(batch) = batches.try_next().await? {
                count += 1;
                files.write(&batch, count).await?;
                progress(batch.len() as u64);
            }
            files.finish().await
        };
        let written = match written.await {
            Ok(written) => written,
            Err(error) => {
                files.abort().await;
                return Err(error);
            }
        };
        if written.is_empty() {
            return Ok(Outcome::NothingNew { looked_at: self.started_at });
        }
        self.commit(written, mark).await.map(|manifest| Outcome::Exported(Box::new(manifest)))
    }

    fn sequence(&self) -> u64 {
        self.last.as_ref().map_or(1, |last| last.sequence + 1)
    }

    async fn commit(self, files: Vec<ManifestFile>, mark: TailMark) -> Result<Manifest, ExportError> {
        let rows = files.iter().map(|file| file.rows).sum();
        let manifest = Manifest {
            version: manifest::VERSION,
            table: self.export.table.name.clone(),
            sequence: self.sequence(),
            format: self.export.format.name().to_owned(),
            partition: Partition { key: PARTITION_KEY.to_owned(), day_of: self.export.day_of.clone() },
            mark: mark.0,
            started_at: self.started_at,
            finished_at: now(),
            rows,
            bytes: files.iter().map(|file| file.bytes).sum(),
            total_rows: rows + self.last.as_ref().map_or(0, |last| last.total_rows),
            columns: Manifest::columns(&self.export.table),
            from: self.last.map(|last| last.mark),
            run: self.id,
            files,
        };
        let path = manifest::path(&manifest.table, manifest.sequence);
        if self.place.put_new(&path, manifest.to_bytes().into()).await? {
            return Ok(manifest);
        }
        // A client that repeats a request may find the file that its first attempt has made.
        let there = manifest::read(self.place, &manifest.table, manifest.sequence).await?;
        if there.run == manifest.run {
            return Ok(manifest);
        }
        for file in &manifest.files {
            self.place.remove(&file.path).await?;
        }
        Err(ExportError::Overtaken)
    }
}

/// Removes files of runs whose number is taken by another: they can never be listed any more. Looks only into manifests of
/// numbers that more than one run has left files for.
async fn remove_abandoned(place: &Place, committed: &Manifest) -> Result<(), ExportError> {
    let paths = place.list(&committed.table).await?;
    let named = paths.iter().filter_map(|path| name_of(path).map(|(sequence, run)| (sequence, run, path)));
    let mut by_sequence: BTreeMap<u64, Vec<(&str, &String)>> = BTreeMap::new();
    for (sequence, run, path) in named.filter(|(sequence, ..)| *sequence <= committed.sequence) {
        by_sequence.entry(sequence).or_default().push((run, path));
    }
    for (sequence, files) in by_sequence {
        let first = files[0].0;
        if files.iter().all(|(run, _)| *run == first) && sequence != committed.sequence {
            continue;
        }
        let own = match sequence == committed.sequence {
            true => committed.run.clone(),
            false => manifest::read(place, &committed.table, sequence).await?.run,
        };
        for (_, path) in files.into_iter().filter(|(run, _)| *run != own) {
            place.remove(path).await?;
        }
    }
    Ok(())
}

/// The number and the run in the name of a data file, whole or not, or in that of a manifest that was not finished.
fn name_of(path: &str) -> Option<(u64, &str)> {
    let name = path.rsplit('/').next()?;
    if let Some((sequence, _)) = name.split_once(".json.") {
        return Some((sequence.parse().ok()?, ""));
    }
    let mut parts = name.splitn(3, '-');
    let (sequence, run) = (parts.next()?.parse().ok()?, parts.next()?);
    parts.next().filter(|_| run.len() == 32).map(|_| (sequence, run))
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant::from_unix_micros(since.as_micros() as i64).to_string()
}

/// Whether an instant lies less than `age` back; `false` for what is none, or lies ahead by more than that.
fn younger(instant: &str, age: Duration) -> bool {
    let (Some(then), Some(now)) = (Instant::parse(instant), Instant::parse(&now())) else { return false };
    now.0.abs_diff(then.0) < age.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_runs_have_a_number_and_a_run() {
        let run = "0".repeat(32);
        for (path, found) in [
            (format!("t/caudal_day=2026-01-02/00000007-{run}-0003.parquet"), Some((7, run.as_str()))),
            (format!("t/caudal_day=2026-01-02/00000007-{run}-0003.csv.part"), Some((7, run.as_str()))),
            ("t/_manifests/00000007.json.0190-x.part".to_owned(), Some((7, ""))),
            ("t/_manifests/00000007.json".to_owned(), None),
            ("t/caudal_day=2026-01-02/00000007-mine.parquet".to_owned(), None),
            ("t/caudal_day=2026-01-02/7-8-9".to_owned(), None),
            ("t/README.md".to_owned(), None),
        ] {
            assert_eq!(name_of(&path), found, "{path}");
        }
    }
}
