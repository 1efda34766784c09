//! The files of the repository, read once.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use toml::Table;

use crate::output_of;

#[derive(Debug, Default)]
pub(super) struct Tree {
    files: BTreeMap<String, File>,
}

#[derive(Debug)]
struct File {
    bytes: u64,
    /// Of files that a rule may look into.
    text: Option<String>,
    tracked: bool,
}

const READ: [&str; 4] = [".rs", ".toml", ".md", ".sql"];

impl Tree {
    /// What git tracks, and what it would take with the next `git add`.
    pub(super) fn load(root: &Path) -> Result<Self> {
        let list = |options: &[&str]| {
            output_of(Command::new("git").arg("-C").arg(root).args(["ls-files", "-z"]).args(options))
        };
        let mut tree = Self::default();
        for (options, tracked) in [(&["--others", "--exclude-standard"][..], false), (&["--cached"], true)] {
            for path in list(options)?.split('\0').filter(|path| !path.is_empty()) {
                // Deleted and not yet committed, or a link to nowhere.
                let Ok(meta) = std::fs::metadata(root.join(path)) else { continue };
                let text = READ.iter().any(|end| path.ends_with(end)).then(|| std::fs::read(root.join(path)));
                let text = text.transpose()?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                tree.files.insert(path.to_owned(), File { bytes: meta.len(), text, tracked });
            }
        }
        Ok(tree)
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let file = |text: &str| File { bytes: text.len() as u64, text: Some(text.to_owned()), tracked: true };
        Self { files: files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect() }
    }

    #[cfg(test)]
    pub(super) fn with_size(mut self, path: &str, bytes: u64) -> Self {
        self.files.insert(path.to_owned(), File { bytes, text: None, tracked: true });
        self
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.text.as_deref()
    }

    /// The texts whose path starts and ends so.
    pub(super) fn texts<'t>(&'t self, start: &'t str, end: &'t str) -> impl Iterator<Item = (&'t str, &'t str)> {
        let matching = self.files.iter().filter(move |(path, _)| path.starts_with(start) && path.ends_with(end));
        matching.filter_map(|(path, file)| Some((path.as_str(), file.text.as_deref()?)))
    }

    pub(super) fn sizes(&self) -> impl Iterator<Item = (&str, u64)> {
        self.files.iter().filter(|(_, file)| file.tracked).map(|(path, file)| (path.as_str(), file.bytes))
    }

    /// The workspace's own manifests: (path, crate name, manifest).
    pub(super) fn manifests(&self) -> Vec<(&str, String, Table)> {
        let own = |path: &str| {
            let parts: Vec<&str> = path.split('/').collect();
            matches!(parts[..], ["crates", _, "Cargo.toml"] | ["xtask", "Cargo.toml"])
        };
        let mut manifests = Vec::new();
        for (path, text) in self.texts("", "Cargo.toml").filter(|(path, _)| own(path)) {
            // Cargo reports a manifest that is not TOML better than we would.
            let Ok(manifest) = text.parse::<Table>() else { continue };
            let name = manifest.get("package").and_then(|p| p.get("name")).and_then(|n| n.as_str()).unwrap_or_default();
            manifests.push((path, name.to_owned(), manifest));
        }
        manifests
    }
}
