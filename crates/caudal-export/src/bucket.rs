//! An S3 bucket, or what speaks its protocol. Credentials, region and endpoint come from where AWS's own tools look for them: the
//! `AWS_…` variables, a container's or a machine's role.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tokio::io::AsyncWriteExt;

use crate::error::ExportError;

/// Bytes of one part of an upload: S3 takes 10,000 parts, and none but the last below 5 MiB.
const PART_BYTES: usize = 5 * 1024 * 1024;
/// Parts under way at once, of one file.
const PARTS_MAX: usize = 2;

#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    store: Arc<AmazonS3>,
    prefix: String,
}

impl Bucket {
    pub(crate) fn open(url: &str) -> Result<Self, ExportError> {
        let (bucket, prefix) = url.trim_start_matches("s3://").split_once('/').unwrap_or((&url[5..], ""));
        let built = AmazonS3Builder::from_env().with_bucket_name(bucket).build();
        let store = built.map_err(|error| ExportError::Setup(format!("{url:?} cannot be used: {error}")))?;
        Ok(Self { store: Arc::new(store), prefix: prefix.trim_matches('/').to_owned() })
    }

    fn path(&self, path: &str) -> Path {
        Path::from(format!("{}/{path}", self.prefix))
    }

    /// Nothing is there before the upload is finished.
    pub(crate) fn create(&self, path: &str) -> Upload {
        let writer = BufWriter::with_capacity(self.store.clone(), self.path(path), PART_BYTES);
        Upload { path: path.to_owned(), writer: writer.with_max_concurrency(PARTS_MAX) }
    }

    pub(crate) async fn put_new(&self, path: &str, bytes: Bytes) -> Result<bool, ExportError> {
        let put = self.store.put_opts(&self.path(path), PutPayload::from(bytes), PutMode::Create.into()).await;
        match put {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(failed("write", path)(error)),
        }
    }

    pub(crate) async fn read(&self, path: &str) -> Result<Vec<u8>, ExportError> {
        let found = self.store.get(&self.path(path)).await.map_err(failed("read", path))?;
        Ok(found.bytes().await.map_err(failed("read", path))?.to_vec())
    }

    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<String>, ExportError> {
        let all: Vec<_> =
            self.store.list(Some(&self.path(folder))).try_collect().await.map_err(failed("list", folder))?;
        let own =
            |path: &str| path.strip_prefix(self.prefix.as_str()).map(|rest| rest.trim_start_matches('/').to_owned());
        Ok(all.iter().filter_map(|found| own(found.location.as_ref())).collect())
    }

    pub(crate) async fn remove(&self, path: &str) -> Result<(), ExportError> {
        self.store.delete(&self.path(path)).await.map_err(failed("remove", path))
    }
}

fn failed(what: &'static str, path: &str) -> impl FnOnce(Error) -> ExportError {
    let path = path.to_owned();
    move |error| ExportError::Place { what, path, cause: error.into() }
}

/// An object under way: a few parts in memory, the rest at S3.
pub(crate) struct Upload {
    path: String,
    writer: BufWriter,
}

impl Upload {
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), ExportError> {
        self.writer.put(bytes).await.map_err(failed("write", &self.path))
    }

    pub(crate) async fn finish(mut self) -> Result<(), ExportError> {
        let finished = self.writer.shutdown().await;
        finished.map_err(|error| ExportError::Place { what: "write", path: self.path, cause: error.into() })
    }

    /// What was sent costs money until it is given up.
    pub(crate) async fn abort(mut self) {
        let _ = self.writer.abort().await;
    }
}
