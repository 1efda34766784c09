//! What an export has put where. One JSON file a run, written last: rows are exported when a manifest lists their file, and a file that
//! none lists is not part of the export.

use caudal_core::schema::Table;
use serde::{Deserialize, Serialize};

use crate::error::ExportError;
use crate::place::Place;

pub(crate) const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// 1. Readers refuse what they do not know.
    pub version: u32,
    pub table: String,
    /// 1, 2, 3, … without a gap.
    pub sequence: u64,
    /// The run that wrote it, part of its files' names.
    pub run: String,
    /// `parquet` or `csv`.
    pub format: String,
    pub partition: Partition,
    /// Where the run before ended; absent in the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Where this run ended and the next begins, in the store's own words.
    pub mark: String,
    /// RFC 3339.
    pub started_at: String,
    pub finished_at: String,
    pub rows: u64,
    pub bytes: u64,
    /// Rows of this manifest and all before it.
    pub total_rows: u64,
    pub columns: Vec<ManifestColumn>,
    pub files: Vec<ManifestFile>,
}

/// One folder a day of a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// The name before the `=` of the folders.
    pub key: String,
    pub day_of: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestColumn {
    pub name: String,
    #[serde(rename = "type")]
    pub ty: String,
    pub nullable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Relative to the place that was exported to.
    pub path: String,
    pub rows: u64,
    pub bytes: u64,
    /// Of the file as it lies there, in hex.
    pub sha256: String,
}

impl Manifest {
    pub(crate) fn columns(table: &Table) -> Vec<ManifestColumn> {
        let column = |c: &caudal_core::schema::Column| ManifestColumn {
            name: c.name.clone(),
            ty: c.ty.name().to_owned(),
            nullable: c.nullable,
        };
        table.columns.iter().map(column).collect()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        text
    }
}

pub(crate) fn folder(table: &str) -> String {
    format!("{table}/_manifests")
}

pub(crate) fn path(table: &str, sequence: u64) -> String {
    format!("{}/{sequence:08}.json", folder(table))
}

pub(crate) async fn read(place: &Place, table: &str, sequence: u64) -> Result<Manifest, ExportError> {
    let path = path(table, sequence);
    let bytes = place.read(&path).await?;
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| {
        ExportError::Setup(format!(
            "{path} is not a manifest ({error}): repair it from a copy, or export to another place"
        ))
    })?;
    if manifest.version != VERSION {
        let version = manifest.version;
        return Err(ExportError::Setup(format!("{path} is of version {version}, which this release does not know")));
    }
    Ok(manifest)
}

/// The manifest of the last run; `None` before the first.
pub(crate) async fn last(place: &Place, table: &str) -> Result<Option<Manifest>, ExportError> {
    let files = place.list(&folder(table)).await?;
    let sequence = |path: &String| path.rsplit('/').next()?.strip_suffix(".json")?.parse::<u64>().ok();
    match files.iter().filter_map(sequence).max() {
        Some(sequence) => read(place, table, sequence).await.map(Some),
        None => Ok(None),
    }
}
