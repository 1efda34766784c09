//! One encoder a file or answer: rows in, bytes out, in bounded memory.

#[cfg(feature = "parquet")]
use arrow_ipc::writer::StreamWriter;
use caudal_core::row::{Row, RowBatch};
use caudal_core::schema::ColumnType;
#[cfg(feature = "parquet")]
use parquet::arrow::ArrowWriter;
#[cfg(feature = "parquet")]
use parquet::basic::{Compression, ZstdLevel};
#[cfg(feature = "parquet")]
use parquet::file::properties::{EnabledStatistics, WriterProperties};

#[cfg(feature = "parquet")]
use crate::columns::Columns;
use crate::csv::Csv;

/// A Parquet row group goes out when it holds this much memory, its pages and dictionaries under way included: it is what a file
/// under way takes, besides a batch of rows and the list of the groups before it.
#[cfg(feature = "parquet")]
const ROW_GROUP_BYTES: usize = 6 * 1024 * 1024;
/// Bytes of one page, and of the dictionary of one column. Small, because every column holds one of each: with the writer's
/// megabytes they, and not the rows, would fill a group.
#[cfg(feature = "parquet")]
const PAGE_BYTES: usize = 256 * 1024;
#[cfg(feature = "parquet")]
const DICTIONARY_BYTES: usize = 64 * 1024;
#[cfg(feature = "parquet")]
const ROW_GROUP_ROWS: usize = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 4180 with a header line.
    Csv,
    /// Arrow's IPC stream, uncompressed, which every implementation of Arrow reads.
    #[cfg(feature = "parquet")]
    Arrow,
    /// Parquet, compressed by zstd.
    #[cfg(feature = "parquet")]
    Parquet,
}

impl Format {
    /// The name of the format in commands and manifests, and what its files' names end in.
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            #[cfg(feature = "parquet")]
            Self::Arrow => "arrow",
            #[cfg(feature = "parquet")]
            Self::Parquet => "parquet",
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            #[cfg(feature = "parquet")]
            Self::Arrow => "application/vnd.apache.arrow.stream",
            #[cfg(feature = "parquet")]
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// The values could not be encoded: a fault in Caudal, or a value larger than the format holds (2 GiB).
#[derive(Debug, thiserror::Error)]
#[error("the rows could not be encoded: {0}")]
pub struct EncodeError(#[source] Box<dyn std::error::Error + Send + Sync>);

#[cfg(feature = "parquet")]
impl From<arrow_schema::ArrowError> for EncodeError {
    fn from(error: arrow_schema::ArrowError) -> Self {
        Self(error.into())
    }
}

#[cfg(feature = "parquet")]
impl From<parquet::errors::ParquetError> for EncodeError {
    fn from(error: parquet::errors::ParquetError) -> Self {
        Self(error.into())
    }
}

/// Writes rows in one format. What was written without [`end`](Self::end) lacks its footer in Parquet, and no reader takes it for a
/// whole. In Arrow it lacks its end mark, which readers do not insist on, and CSV has none: whoever carries those must say where they
/// end.
pub struct Encoder(Kind);

enum Kind {
    Csv(Csv),
    #[cfg(feature = "parquet")]
    Arrow(Columns, Box<StreamWriter<Vec<u8>>>),
    #[cfg(feature = "parquet")]
    Parquet(Columns, Box<ArrowWriter<Vec<u8>>>),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("held_bytes", &self.held_bytes()).finish_non_exhaustive()
    }
}

impl Encoder {
    pub fn new(format: Format, columns: &[(String, ColumnType)]) -> Result<Self, EncodeError> {
        Ok(Self(match format {
            Format::Csv => Kind::Csv(Csv::new(columns)),
            #[cfg(feature = "parquet")]
            Format::Arrow => {
                let columns = Columns::new(columns);
                let writer = StreamWriter::try_new(Vec::new(), columns.schema())?;
                Kind::Arrow(columns, Box::new(writer))
            }
            #[cfg(feature = "parquet")]
            Format::Parquet => {
                let columns = Columns::new(columns);
                let writer = ArrowWriter::try_new(Vec::new(), columns.schema().clone(), Some(properties()?))?;
                Kind::Parquet(columns, Box::new(writer))
            }
        }))
    }

    /// Takes one row in.
    pub fn push(&mut self, row: Row<'_>) -> Result<(), EncodeError> {
        match &mut self.0 {
            Kind::Csv(csv) => {
                csv.push(row);
                Ok(())
            }
            #[cfg(feature = "parquet")]
            Kind::Arrow(columns, _) | Kind::Parquet(columns, _) => match columns.push(row)? {
                true => self.flush(),
                false => Ok(()),
            },
        }
    }

    /// Takes the rows of a batch in.
    pub fn batch(&mut self, rows: &RowBatch) -> Result<(), EncodeError> {
        rows.rows().try_for_each(|row| self.push(row))
    }

    /// What is ready to be sent; often nothing.
    pub fn ready(&mut self) -> Vec<u8> {
        match &mut self.0 {
            Kind::Csv(csv) => csv.ready(),
            #[cfg(feature = "parquet")]
            Kind::Arrow(_, writer) => std::mem::take(writer.get_mut()),
            #[cfg(feature = "parquet")]
            Kind::Parquet(_, writer) => std::mem::take(writer.inner_mut()),
        }
    }

    /// Bytes held for the file, ready or not.
    pub fn held_bytes(&self) -> usize {
        match &self.0 {
            Kind::Csv(csv) => csv.held_bytes(),
            #[cfg(feature = "parquet")]
            Kind::Arrow(_, writer) => writer.get_ref().len(),
            #[cfg(feature = "parquet")]
            Kind::Parquet(_, writer) => writer.memory_size() + writer.inner().len(),
        }
    }

    /// The last bytes, what was ready before included.
    pub fn end(mut self) -> Result<Vec<u8>, EncodeError> {
        self.flush()?;
        match self.0 {
            Kind::Csv(mut csv) => Ok(csv.ready()),
            #[cfg(feature = "parquet")]
            Kind::Arrow(_, writer) => Ok(writer.into_inner()?),
            #[cfg(feature = "parquet")]
            Kind::Parquet(_, writer) => Ok(writer.into_inner()?),
        }
    }

    /// Moves gathered rows into the format's writer.
    fn flush(&mut self) -> Result<(), EncodeError> {
        match &mut self.0 {
            Kind::Csv(_) => {}
            #[cfg(feature = "parquet")]
            Kind::Arrow(columns, writer) => {
                if let Some(batch) = columns.finish()? {
                    writer.write(&batch)?;
                }
            }
            #[cfg(feature = "parquet")]
            Kind::Parquet(columns, writer) => {
                if let Some(batch) = columns.finish()? {
                    writer.write(&batch)?;
                }
                if writer.memory_size() >= ROW_GROUP_BYTES {
                    // At once, instead of by doubling.
                    let group = writer.in_progress_size();
                    writer.inner_mut().reserve_exact(group + group / 16);
                    writer.flush()?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(feature = "parquet")]
fn properties() -> Result<WriterProperties, EncodeError> {
    // Level 1: within a few percent of the higher ones on rows, at several times their speed.
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_data_page_size_limit(PAGE_BYTES)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        // Of the groups alone: what is known of each page would be kept until the footer.
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(concat!("caudal ", env!("CARGO_PKG_VERSION")).to_owned())
        .build())
}
