//! Why something could not be done, and the exit code that says so.

use std::{io, path::PathBuf};

use crate::{
    config::ConfigError,
    consent::ManagedError,
    feeds::{AllowFileError, OutcomeError},
    fetch::FetchError,
    indicators::{CatalogError, NoIdsLeft},
    kernel::KernelError,
    sinks::SinkError,
    store::StoreError,
    subscribers::SubscriberError,
    tables::indicators::TooManyRules,
    verdicts::{VerdictError, VerdictFileError},
};

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The configuration has errors.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A configuration is needed and none is known.
    #[error(
        "this needs a configuration: give one with -c FILE (`matcher attach -c FILE` remembers it)"
    )]
    NoConfig,
    /// What was asked for cannot be read.
    #[error("{0}")]
    Usage(String),
    /// At the border to the kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The subscriber space cannot be read.
    #[error("{0}")]
    Subscribers(#[from] SubscriberError),
    /// A list of destinations that are never matched cannot be read.
    #[error("{0}; the list in force stays")]
    Allow(#[from] AllowFileError),
    /// No feed could be used.
    #[error("no feed could be loaded; the last good list stays in force")]
    NoFeed,
    /// Too many entries cover one address.
    #[error("{0}; the last good list stays in force")]
    Rules(#[from] TooManyRules),
    /// The catalog of indicators is damaged or cannot be written.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// It cannot be read how the last loads went.
    #[error(transparent)]
    Outcomes(#[from] OutcomeError),
    /// The folder of a fetched feed cannot be used.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The catalog has no ids left.
    #[error(transparent)]
    Ids(#[from] NoIdsLeft),
    /// The file of verdicts.
    #[error(transparent)]
    VerdictFile(#[from] VerdictFileError),
    /// A verdict cannot be given as asked.
    #[error(transparent)]
    Verdict(#[from] VerdictError),
    /// The product's own consent lists cannot be changed.
    #[error(transparent)]
    Managed(#[from] ManagedError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Records cannot be put out.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A file or directory.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Somebody else is doing it.
    #[error("{0}")]
    Busy(String),
}

impl InstanceError {
    /// Exit code of the contract.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::NoConfig
            | Self::Usage(_)
            | Self::Verdict(VerdictError::Value(_) | VerdictError::Words(_)) => 2,
            Self::Kernel(KernelError::Privilege(_) | KernelError::Unsupported(_)) => 3,
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => 3,
            _ => 1,
        }
    }
}
