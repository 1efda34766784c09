//! A disk that is soon full.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// A small file system of its own, in memory. Gone when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    at: TempDir,
    mebibytes: usize,
}

impl SmallDisk {
    /// # Errors
    /// Where mounting is neither allowed nor to be had from `sudo` without a password.
    pub fn mount(mebibytes: usize) -> Result<Self> {
        let at = tempfile::Builder::new().prefix("caudal-disk").tempdir()?;
        let options = format!("size={mebibytes}m,mode=1777");
        let mounted = as_root(&["mount", "-t", "tmpfs", "-o", &options, "none"], at.path());
        ensure!(
            mounted,
            "this test mounts a tmpfs of {mebibytes} MiB: run it as root, or where sudo needs no password"
        );
        Ok(Self { at, mebibytes })
    }

    pub fn path(&self) -> &Path {
        self.at.path()
    }

    /// Takes all that is left of it.
    pub fn fill(&self) {
        // It ends where the space does, and what is written stays.
        let _ = std::fs::write(self.filler(), vec![0u8; self.mebibytes << 20]);
    }

    /// Gives back what [`fill`](Self::fill) took.
    ///
    /// # Errors
    /// When it was not filled.
    pub fn free(&self) -> Result<()> {
        std::fs::remove_file(self.filler()).context("nothing was filled")
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        as_root(&["umount", "-l"], self.at.path());
    }
}

/// Directly, or through sudo where that asks nothing.
fn as_root(command: &[&str], path: &Path) -> bool {
    let run = |words: &[&str]| Command::new(words[0]).args(&words[1..]).arg(path).output();
    let worked = |out: std::io::Result<Output>| out.is_ok_and(|out| out.status.success());
    worked(run(command)) || worked(run(&[&["sudo", "-n"], command].concat()))
}
