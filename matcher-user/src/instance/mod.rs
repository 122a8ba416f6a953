//! One instance of matcher on a machine: its configuration, its directories
//! and its pinned state, and what commands and agent do with them. The same
//! code runs in a command without an agent and inside the agent.

mod answer;
mod attach;
mod canary;
mod consent;
mod consent_show;
mod error;
mod fetch;
mod in_force;
mod load;
mod progress;
mod run_dir;
mod status;
mod verdict;

pub use answer::Answer;
pub use attach::chosen_interfaces;
pub use canary::CanaryStatus;
pub use consent::{AppliedConsent, ConsentAction, ConsentSubject, consent_lists, refuses};
pub use error::InstanceError;
pub use fetch::{FetchReport, FetchStatus};
pub use load::{LoadedIndicators, PreparedIndicators, parse_sources};
pub use progress::{Progress, Quiet, Step};
pub use run_dir::{Lock, LockName, RunDir};
pub use status::{FeedStatus, Status};

use std::path::{Path, PathBuf};

use crate::{
    config::{Config, Paths},
    kernel::{folds::Folding, object::Object, pins::Pins, program::Limits, tables::Tables},
};

/// One instance.
#[derive(Clone)]
pub struct Instance {
    /// Its configuration; commands that need none work without.
    pub config: Option<Config>,
    /// Its directories.
    pub paths: Paths,
}

impl Instance {
    /// The instance of a configuration file.
    pub fn of_config(path: &Path) -> Result<Self, InstanceError> {
        let config = Config::load(path)?;
        Ok(Self {
            paths: config.paths.clone(),
            config: Some(config),
        })
    }

    /// The instance at the default directories, with the configuration that
    /// it was attached with, if it was.
    pub fn at_defaults() -> Result<Self, InstanceError> {
        let paths = Paths::default();
        match RunDir::at(&paths.run_dir).record()?.config {
            Some(path) => Self::of_config(&path),
            None => Ok(Self {
                config: None,
                paths,
            }),
        }
    }

    /// Of the file if one is given, else at the default directories.
    pub fn open(config: Option<&Path>) -> Result<Self, InstanceError> {
        match config {
            Some(path) => Self::of_config(path),
            None => Self::at_defaults(),
        }
    }

    /// The configuration, for what cannot be done without.
    pub fn config(&self) -> Result<&Config, InstanceError> {
        self.config.as_ref().ok_or(InstanceError::NoConfig)
    }

    /// Run-time files.
    pub fn run_dir(&self) -> RunDir {
        RunDir::at(&self.paths.run_dir)
    }

    /// The pinned state.
    pub fn pins(&self) -> Pins {
        Pins::at(&self.paths.pin_dir)
    }

    /// The pinned tables; an error when nothing is attached.
    pub fn tables(&self) -> Result<Tables, InstanceError> {
        Ok(self.pins().open()?)
    }

    /// The eBPF object that the configuration names, or the built-in one.
    pub fn object(&self) -> Result<Object, InstanceError> {
        let path = self
            .config
            .as_ref()
            .and_then(|config| config.ebpf_object.as_deref());
        Ok(Object::open(path)?)
    }

    /// Sizes of the tables.
    pub fn limits(&self) -> Limits {
        let tables = self
            .config
            .as_ref()
            .map(|config| config.tables.clone())
            .unwrap_or_default();
        let folding = self
            .config
            .as_ref()
            .map(|config| config.folding.clone())
            .unwrap_or_default();
        Limits {
            max_flows: folding.max_flows,
            max_indicators: tables.max_indicators,
            max_consent_entries: tables.max_consent_entries,
            max_port_ranges: tables.max_port_ranges,
            ring_bytes: tables.ring_bytes,
        }
    }

    /// How the kernel folds.
    pub fn folding(&self) -> Result<Folding, InstanceError> {
        let folding = &self.config()?.folding;
        Ok(Folding {
            window: folding.window,
            bound: folding.max_events,
        })
    }

    /// Where the catalog of indicators is kept.
    pub fn catalog_path(&self) -> PathBuf {
        self.paths.state_dir.join("indicators.catalog")
    }

    /// Where it is kept how the last load of each feed went.
    pub fn outcomes_path(&self) -> PathBuf {
        self.paths.state_dir.join("feeds.json")
    }

    /// Where hits are stored.
    pub fn store_path(&self) -> PathBuf {
        self.paths.state_dir.join("hits.db")
    }
}
