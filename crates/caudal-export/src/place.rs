//! Where an export's files lie: a directory, or a prefix of an S3 bucket. Both can make a file appear at once and whole, and make one
//! only if it is not there; the export needs no more of them.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

use crate::error::ExportError;

/// A place by its URL: a path of a directory, `file:///path`, or `s3://bucket/prefix`.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Directory(PathBuf),
    #[cfg(feature = "s3")]
    Bucket(crate::bucket::Bucket),
}

impl Place {
    pub(crate) fn open(url: &str) -> Result<Self, ExportError> {
        match url.split_once("://") {
            None => Ok(Self::Directory(url.into())),
            Some(("file", path)) => Ok(Self::Directory(path.into())),
            #[cfg(feature = "s3")]
            Some(("s3", _)) => Ok(Self::Bucket(crate::bucket::Bucket::open(url)?)),
            #[cfg(not(feature = "s3"))]
            Some(("s3", _)) => {
                Err(ExportError::Setup("this build of Caudal has no S3: build it with the feature s3".into()))
            }
            Some(_) => Err(ExportError::Setup(format!(
                "{url:?} is no place for files: there are directories and s3://bucket/prefix"
            ))),
        }
    }

    /// Begins a file, which is there from [`Sink::finish`] on.
    pub(crate) async fn create(&self, path: &str) -> Result<Sink, ExportError> {
        match self {
            Self::Directory(root) => {
                Draft::create(root, path, DRAFT).await.map(Sink::File).map_err(failed("write", path))
            }
            #[cfg(feature = "s3")]
            Self::Bucket(bucket) => Ok(Sink::Upload(bucket.create(path))),
        }
    }

    /// Makes a whole file that was not there; `false`, and nothing changes, when it was. An error leaves open which it is.
    pub(crate) async fn put_new(&self, path: &str, bytes: Bytes) -> Result<bool, ExportError> {
        match self {
            Self::Directory(root) => {
                let put = async {
                    // A name of its own: another run may be at the same file.
                    let own = format!(".{}{DRAFT}", uuid::Uuid::now_v7());
                    let mut draft = Draft::create(root, path, &own).await?;
                    draft.file.write_all(&bytes).await?;
                    draft.finish_new().await
                };
                put.await.map_err(failed("write", path))
            }
            #[cfg(feature = "s3")]
            Self::Bucket(bucket) => bucket.put_new(path, bytes).await,
        }
    }

    pub(crate) async fn read(&self, path: &str) -> Result<Vec<u8>, ExportError> {
        match self {
            Self::Directory(root) => fs::read(root.join(path)).await.map_err(failed("read", path)),
            #[cfg(feature = "s3")]
            Self::Bucket(bucket) => bucket.read(path).await,
        }
    }

    /// The paths of all files below a folder; none when it is not there.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<String>, ExportError> {
        match self {
            Self::Directory(root) => list(root, folder).await.map_err(failed("list", folder)),
            #[cfg(feature = "s3")]
            Self::Bucket(bucket) => bucket.list(folder).await,
        }
    }

    pub(crate) async fn remove(&self, path: &str) -> Result<(), ExportError> {
        match self {
            Self::Directory(root) => fs::remove_file(root.join(path)).await.map_err(failed("remove", path)),
            #[cfg(feature = "s3")]
            Self::Bucket(bucket) => bucket.remove(path).await,
        }
    }
}

fn failed(what: &'static str, path: &str) -> impl FnOnce(std::io::Error) -> ExportError {
    let path = path.to_owned();
    move |error| ExportError::Place { what, path, cause: error.into() }
}

/// A file under way.
pub(crate) enum Sink {
    File(Draft),
    #[cfg(feature = "s3")]
    Upload(crate::bucket::Upload),
}

impl Sink {
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), ExportError> {
        match self {
            Self::File(draft) => draft.file.write_all(&bytes).await.map_err(failed("write", &draft.path)),
            #[cfg(feature = "s3")]
            Self::Upload(upload) => upload.write(bytes).await,
        }
    }

    /// Makes the file appear, whole and durable.
    pub(crate) async fn finish(self) -> Result<(), ExportError> {
        match self {
            Self::File(draft) => {
                let path = draft.path.clone();
                draft.finish().await.map_err(failed("write", &path))
            }
            #[cfg(feature = "s3")]
            Self::Upload(upload) => upload.finish().await,
        }
    }

    /// Gives up what was written, as far as that works.
    pub(crate) async fn abort(self) {
        match self {
            Self::File(draft) => drop(fs::remove_file(&draft.draft).await),
            #[cfg(feature = "s3")]
            Self::Upload(upload) => upload.abort().await,
        }
    }
}

/// What a name ends in until the file is whole.
pub(crate) const DRAFT: &str = ".part";

/// A file under another name until it is whole.
pub(crate) struct Draft {
    path: String,
    root: PathBuf,
    draft: PathBuf,
    whole: PathBuf,
    file: File,
}

impl Draft {
    async fn create(root: &Path, path: &str, suffix: &str) -> std::io::Result<Self> {
        let whole = root.join(path);
        let mut draft = whole.as_os_str().to_owned();
        draft.push(suffix);
        let draft = PathBuf::from(draft);
        if let Some(folder) = whole.parent() {
            fs::create_dir_all(folder).await?;
        }
        Ok(Self { path: path.to_owned(), root: root.to_owned(), file: File::create(&draft).await?, draft, whole })
    }

    async fn finish(mut self) -> std::io::Result<()> {
        self.sync().await?;
        fs::rename(&self.draft, &self.whole).await?;
        self.sync_folders().await
    }

    /// A link fails when the name is taken, where a rename would replace what is there.
    async fn finish_new(mut self) -> std::io::Result<bool> {
        self.sync().await?;
        let linked = fs::hard_link(&self.draft, &self.whole).await;
        fs::remove_file(&self.draft).await?;
        match linked {
            Ok(()) => self.sync_folders().await.map(|()| true),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn sync(&mut self) -> std::io::Result<()> {
        self.file.flush().await?;
        self.file.sync_all().await
    }

    /// The file's name, and those of the folders that were made for it.
    async fn sync_folders(&self) -> std::io::Result<()> {
        for folder in self.whole.ancestors().skip(1) {
            File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder }).await?.sync_all().await?;
            if folder == self.root {
                break;
            }
        }
        Ok(())
    }
}

async fn list(root: &Path, folder: &str) -> std::io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut entries = match fs::read_dir(root.join(&folder)).await {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        while let Some(entry) = entries.next_entry().await? {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = format!("{folder}/{name}");
            match entry.file_type().await?.is_dir() {
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    Ok(found)
}
