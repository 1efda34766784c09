//! Places where a test can end the process, make the disk fail or plant a bug. Without the feature `failpoints` all of it
//! compiles to nothing.
//!
//! | variable | effect |
//! |---|---|
//! | `CAUDAL_FAILPOINT=name:N` | SIGKILL to itself at the N-th time it passes `name` |
//! | `CAUDAL_FAILPOINT_COUNT=file` | appends the name of every place it passes |
//! | `CAUDAL_FAILPOINT_FSYNC_EIO=N` | the N-th fdatasync of a segment answers EIO, once |
//! | `CAUDAL_FAILPOINT_ENOSPC=write:N`, `fallocate:N` | the N-th one answers ENOSPC, once; a write gets half way first |
//! | `CAUDAL_PLANT=ack-before-fsync` | publishers are answered before anything is written |

#[cfg(feature = "failpoints")]
pub(crate) use armed::{hit, injected, planted};

#[cfg(not(feature = "failpoints"))]
pub(crate) use unarmed::{hit, injected, planted};

/// A call that a test can make fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code)]
pub(crate) enum Call {
    Fsync,
    Write,
    Fallocate,
}

#[cfg(not(feature = "failpoints"))]
mod unarmed {
    pub(crate) fn hit(_name: &str) {}

    pub(crate) fn injected(_call: super::Call) -> std::io::Result<()> {
        Ok(())
    }

    pub(crate) fn planted(_bug: &str) -> bool {
        false
    }
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::io::{self, Write};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Call;

    /// A name, and how many passes are left.
    struct Countdown {
        name: String,
        left: AtomicU64,
    }

    impl Countdown {
        fn of(variable: &str, fixed_name: Option<&str>) -> Option<Self> {
            let value = std::env::var(variable).ok()?;
            let (name, count) = match fixed_name {
                Some(name) => (name, value.as_str()),
                None => value.rsplit_once(':')?,
            };
            Some(Self { name: name.to_owned(), left: AtomicU64::new(count.parse().ok()?) })
        }

        fn is_due(&self, name: &str) -> bool {
            self.name == name && self.left.fetch_sub(1, Ordering::SeqCst) == 1
        }
    }

    static KILL: LazyLock<Option<Countdown>> = LazyLock::new(|| Countdown::of("CAUDAL_FAILPOINT", None));
    static EIO: LazyLock<Option<Countdown>> =
        LazyLock::new(|| Countdown::of("CAUDAL_FAILPOINT_FSYNC_EIO", Some("fsync")));
    static ENOSPC: LazyLock<Option<Countdown>> = LazyLock::new(|| Countdown::of("CAUDAL_FAILPOINT_ENOSPC", None));
    static PLANT: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("CAUDAL_PLANT").ok());
    static COUNT: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("CAUDAL_FAILPOINT_COUNT").ok());

    pub(crate) fn hit(name: &str) {
        if let Some(path) = &*COUNT
            && let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(path)
        {
            let _ = file.write_all(format!("{name}\n").as_bytes());
        }
        if KILL.as_ref().is_some_and(|kill| kill.is_due(name)) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            std::process::abort();
        }
    }

    pub(crate) fn injected(call: Call) -> io::Result<()> {
        let is_due = |countdown: &Option<Countdown>, name| countdown.as_ref().is_some_and(|c| c.is_due(name));
        let errno = match call {
            Call::Fsync if is_due(&EIO, "fsync") => rustix::io::Errno::IO,
            Call::Write if is_due(&ENOSPC, "write") => rustix::io::Errno::NOSPC,
            Call::Fallocate if is_due(&ENOSPC, "fallocate") => rustix::io::Errno::NOSPC,
            _ => return Ok(()),
        };
        Err(errno.into())
    }

    pub(crate) fn planted(bug: &str) -> bool {
        PLANT.as_deref() == Some(bug)
    }
}
