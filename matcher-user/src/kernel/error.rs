//! What can go wrong at the border to the kernel, in words for an operator.

use std::{error::Error, io, path::PathBuf};

use rustix::io::Errno;

/// An error at the border to the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The process may not do this.
    #[error("{0}")]
    Privilege(String),
    /// The kernel, the driver or the machine cannot do this.
    #[error("{0}")]
    Unsupported(String),
    /// The object file is not one this agent can load.
    #[error("{path}: {reason}")]
    Object {
        /// The file, or a name for the built-in one.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such interface in this network namespace.
    #[error("there is no interface {name} in this network namespace (see `ip link`)")]
    NoInterface {
        /// The name asked for.
        name: String,
    },
    /// Somebody else's XDP program is attached.
    #[error(
        "interface {name} already carries an XDP program that is not ours; it is left alone. \
         See `ip link show dev {name}`, and detach it first if it is not needed"
    )]
    Occupied {
        /// The interface.
        name: String,
    },
    /// Nothing is pinned.
    #[error("matcher is not attached: nothing is pinned in {}; `matcher attach` comes first", .0.display())]
    NotAttached(PathBuf),
    /// The pinned state was made by another version.
    #[error(
        "the state pinned in {} has ABI version {found}, this matcher has {expected}; run \
         `matcher detach`, then `matcher attach`", path.display()
    )]
    OtherAbi {
        /// The pin directory.
        path: PathBuf,
        /// What the pinned state says.
        found: u64,
        /// What this build speaks.
        expected: u32,
    },
    /// A table is too small for what should go in.
    #[error("table {table} is full after {entries} entries; raise {key} in the configuration")]
    TableFull {
        /// Which table.
        table: &'static str,
        /// Entries that fitted.
        entries: usize,
        /// The configuration key that sizes it.
        key: &'static str,
    },
    /// A system call failed.
    #[error("{action}: {reason}")]
    Failed {
        /// What was being done.
        action: String,
        /// Why it failed.
        reason: String,
    },
}

impl KernelError {
    /// Turns an error of the eBPF library into one of ours: lacking privilege
    /// is told apart from everything else by the error number at its root.
    pub(super) fn from_source(action: impl Into<String>, error: impl Error + 'static) -> Self {
        let action = action.into();
        match root_errno(&error) {
            Some(Errno::PERM | Errno::ACCESS) => Self::Privilege(format!(
                "{action}: not permitted; this needs CAP_BPF and CAP_NET_ADMIN (run as root, or \
                 from the service unit)"
            )),
            _ => Self::Failed {
                action,
                reason: chain(&error),
            },
        }
    }
}

/// The error number at the root of an error, where there is one.
pub(super) fn root_errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(errno) = error
            .downcast_ref::<io::Error>()
            .and_then(Errno::from_io_error)
        {
            return Some(errno);
        }
        current = error.source();
    }
    None
}

/// An error and its causes on one line, each once.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut current = error.source();
    while let Some(cause) = current {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        current = cause.source();
    }
    text
}
