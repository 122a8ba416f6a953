//! What the demo makes on the machine, and its removal.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context, Result, ensure};
use jiff::{Timestamp, ToSpan};

use super::child::apart;
use crate::{
    cleanup::{Cleanup, making},
    lab::Lab,
    traffic::{Files, Scenario},
};

/// Begins the name of everything that the demo makes; its process id follows.
const NAME: &str = "matcher-demo";
const BPFFS: &str = "/sys/fs/bpf";

/// A folder, two network namespaces, and whatever `matcher` pins; all of it is
/// removed when this is dropped or the process is told to end.
#[derive(Debug)]
pub(super) struct Place {
    // Dropped in this order: no pinned link outlives its interface.
    _pins: Cleanup,
    pub(super) lab: Lab,
    _folder: Cleanup,
    folder: PathBuf,
    pub(super) config: PathBuf,
    pins: PathBuf,
}

impl Place {
    /// Makes the folder and the namespaces with the two interfaces `access0` and
    /// `core0`.
    pub(super) fn new(matcher: &Path) -> Result<Self> {
        let own = format!("{NAME}-{}", process::id());
        let folder = std::env::temp_dir().join(&own);
        let pins = Path::new(BPFFS).join(&own);
        let config = folder.join("matcher.toml");

        let unwanted = folder.clone();
        let folder_cleanup = Cleanup::new(move || remove_folder(&unwanted))?;
        making(|| fs::create_dir(&folder))
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let lab = Lab::new(NAME)?;
        for (edge, world) in [("access0", "subscribers"), ("core0", "internet")] {
            lab.veth(edge, world)?;
        }
        let unwanted = (matcher.to_owned(), config.clone(), pins.clone());
        let pins_cleanup = Cleanup::new(move || {
            let (matcher, config, pins) = unwanted;
            unpin(&matcher, &config, &pins);
        })?;
        Ok(Self {
            _pins: pins_cleanup,
            lab,
            _folder: folder_cleanup,
            folder,
            config,
            pins,
        })
    }

    /// Where the agent's log goes.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    /// Writes lists, capture and the configuration.
    pub(super) fn write(&self, scenario: &Scenario) -> Result<Files> {
        let files = scenario.write_into(&self.folder)?;
        let text = config(scenario.start, &files, &self.folder, &self.pins);
        fs::write(&self.config, text)
            .with_context(|| format!("cannot write {}", self.config.display()))?;
        Ok(files)
    }

    /// Removes everything, and makes sure that it is gone.
    pub(super) fn remove(self) -> Result<()> {
        let made = [
            self.pins.clone(),
            self.folder.clone(),
            self.lab.edge().path(),
            self.lab.world().path(),
        ];
        drop(self);
        for path in made {
            ensure!(!path.exists(), "{} could not be removed", path.display());
        }
        Ok(())
    }
}

/// The configuration of the demo's agent.
fn config(start: Timestamp, files: &Files, folder: &Path, pins: &Path) -> String {
    // TOML's basic strings have JSON's escapes.
    let quoted = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
    let mut text = format!(
        "edge = \"demo\"\n\
         \n\
         [paths]\n\
         run_dir = {run}\n\
         pin_dir = {pins}\n\
         state_dir = {state}\n\
         \n\
         [[interface]]\n\
         name = \"access0\"\n\
         role = \"access\"\n\
         mode = \"native\"\n\
         \n\
         [[interface]]\n\
         name = \"core0\"\n\
         role = \"core\"\n\
         mode = \"native\"\n\
         \n\
         [subscribers]\n\
         files = [{subscribers}]\n\
         \n\
         [consent]\n\
         model = \"opt-out\"\n\
         notice_since = {notice}\n\
         lists = [{opt_out}]\n\
         \n\
         # The account is held packet by packet.\n\
         [folding]\n\
         window = \"0s\"\n",
        run = quoted(&folder.join("run")),
        pins = quoted(pins),
        state = quoted(&folder.join("state")),
        subscribers = quoted(&files.subscribers),
        notice = start - (24 * 30).hours(),
        opt_out = quoted(&files.opt_out),
    );
    for (format, path) in &files.feeds {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        text.push_str(&format!(
            "\n[[feed]]\nname = \"{name}\"\nformat = \"{format}\"\npath = {}\n",
            quoted(path)
        ));
    }
    text
}

fn remove_folder(folder: &Path) {
    if folder.exists()
        && let Err(error) = fs::remove_dir_all(folder)
        // Two may sweep at once.
        && folder.exists()
    {
        eprintln!("left behind: {}: {error}", folder.display());
    }
}

/// As an operator would; what then is left is removed by hand.
fn unpin(matcher: &Path, config: &Path, pins: &Path) {
    if pins.exists() {
        let mut detach = Command::new(matcher);
        detach.arg("-c").arg(config).arg("detach");
        // Whether it worked is seen by what is left.
        let _ = apart(&mut detach).output();
    }
    remove_folder(pins);
}

/// Removes what a demo left that was killed without a chance to clean up.
pub(super) fn sweep() -> Result<()> {
    Lab::sweep_stale(NAME)?;
    for folder in [PathBuf::from(BPFFS), std::env::temp_dir()] {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            if stale(&entry.file_name().to_string_lossy()) {
                remove_folder(&entry.path());
            }
        }
    }
    Ok(())
}

/// Whether the name is of a demo whose process no longer lives.
fn stale(name: &str) -> bool {
    name.strip_prefix(NAME)
        .and_then(|rest| rest.strip_prefix('-')?.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

#[cfg(test)]
mod tests {
    use matcher_user::config::Config;

    use super::*;

    #[test]
    fn the_configuration_has_neither_errors_nor_warnings() {
        let folder = tempfile::tempdir().unwrap();
        let scenario = Scenario::new(1, Timestamp::now());
        let files = scenario.write_into(folder.path()).unwrap();
        let path = folder.path().join("matcher.toml");
        let pins = Path::new(BPFFS).join("matcher-demo-0");
        fs::write(&path, config(scenario.start, &files, folder.path(), &pins)).unwrap();
        let config = Config::load(&path).unwrap();
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        assert_eq!(config.feeds.len(), scenario.feeds.len());
    }

    #[test]
    fn only_what_a_dead_demo_made_is_swept() {
        assert!(stale("matcher-demo-4194305"));
        assert!(!stale(&format!("matcher-demo-{}", process::id())));
        for other in ["matcher-demo", "matcher-demo-", "matcher-demo-x", "matcher"] {
            assert!(!stale(other), "{other}");
        }
    }
}
