//! The pinned state: program, maps and links in a BPF file system, where they
//! outlive the process that made them (design decision 12).
//!
//! Layout under the pin directory: `maps/NAME`, `links/IFINDEX`, `program`.
//! The program is pinned last: a directory without it is a start that was cut
//! off, and is made anew.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    maps::{Map, MapData},
    programs::{
        Xdp,
        links::{FdLink, PinnedLink},
    },
};
use aya_obj::programs::XdpAttachType;
use matcher_common::abi::ABI_VERSION;

use super::{
    KernelError, bpffs,
    error::root_errno,
    object::Object,
    program::{self, Clock, Limits, Loaded, Outcome, Program},
    settings, support,
    tables::Tables,
};

/// The pin directory of one instance.
#[derive(Clone, Debug)]
pub struct Pins {
    directory: PathBuf,
}

/// A number in `/proc/PID/fdinfo/FD`.
fn fdinfo(text: &str, key: &str) -> Option<u32> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
}

impl Pins {
    /// The pins in `directory`, whether there are any or not.
    pub fn at(directory: &Path) -> Self {
        Self {
            directory: bpffs::locate(directory),
        }
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether a complete state is pinned.
    pub fn exist(&self) -> bool {
        self.program().exists()
    }

    /// Opens the pinned tables.
    pub fn open(&self) -> Result<Tables, KernelError> {
        support::require()?;
        if !self.exist() {
            bpffs::not_hidden(&self.directory)?;
            return Err(KernelError::NotAttached(self.directory.clone()));
        }
        // The settings first, alone: tables of another ABI may not even open.
        let found = settings::abi_version(self.map(settings::MAP)?);
        if found != u64::from(ABI_VERSION) {
            return Err(KernelError::OtherAbi {
                path: self.directory.clone(),
                found,
                expected: ABI_VERSION,
            });
        }
        Tables::collect(|name| self.map(name))
    }

    /// Opens the pinned tables, or loads the object and pins everything.
    pub fn open_or_create(&self, object: &Object, limits: Limits) -> Result<Tables, KernelError> {
        if self.exist() {
            return self.open();
        }
        support::require()?;
        bpffs::prepare(&self.directory)?;
        // What a start that was cut off has left.
        self.remove()?;
        for directory in [self.maps(), self.links()] {
            fs::create_dir_all(&directory).map_err(|error| failed("making", &directory, &error))?;
        }
        let mut loaded = Loaded::load_with(object, limits, Clock::Kernel, |name, map| {
            let path = self.maps().join(name);
            map.pin(&path).map_err(|error| {
                KernelError::from_source(format!("pinning {}", path.display()), error)
            })
        })?;
        loaded
            .verified(Program::Matcher)?
            .pin(self.program())
            .map_err(|error| KernelError::from_source("pinning the program", error))?;
        Ok(loaded.tables)
    }

    /// The pinned program, to be attached.
    pub(super) fn xdp(&self) -> Result<Xdp, KernelError> {
        Xdp::from_pin(self.program(), XdpAttachType::Interface)
            .map_err(|error| KernelError::from_source("opening the pinned program", error))
    }

    /// Runs one frame through the pinned program, with the tables that live
    /// packets meet, as [`Loaded::run`] does. It leaves the machine on no
    /// interface (`BPF_PROG_TEST_RUN`, without live frames). Many may do so at
    /// the same time.
    pub fn run(&self, frame: &[u8], ifindex: u32, repeat: u32) -> Result<Outcome, KernelError> {
        program::run(&self.xdp()?, frame, ifindex, repeat)
    }

    /// Interface indices with a pinned link.
    pub fn attached(&self) -> Result<Vec<u32>, KernelError> {
        let links = self.links();
        let entries = match fs::read_dir(&links) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bpffs::not_hidden(&self.directory)?;
                return Ok(vec![]);
            }
            Err(error) => return Err(failed("reading", &links, &error)),
        };
        let mut attached: Vec<u32> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        attached.sort_unstable();
        Ok(attached)
    }

    /// Whether a pinned link still holds the program on its interface. One that
    /// was detached by force (`bpftool link detach`), or whose interface went
    /// away, stays pinned and does nothing.
    ///
    /// # Errors
    /// The link cannot be opened, or there is no /proc.
    pub fn holds(&self, ifindex: u32) -> Result<bool, KernelError> {
        let path = self.link(ifindex);
        let link = PinnedLink::from_pin(&path)
            .map_err(|error| KernelError::from_source("opening a pinned link", error))?;
        let link = FdLink::from(link);
        let id = link
            .info()
            .map_err(|error| KernelError::from_source("asking for a pinned link", error))?
            .id();
        // The id is all that aya tells; /proc shows the interface of a link
        // that is open here, 0 when it has none (Linux 5.9, c1931c9784eb).
        let open = Path::new("/proc/self/fdinfo");
        let entries = fs::read_dir(open).map_err(|error| failed("reading", open, &error))?;
        let said = entries
            .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
            .find(|said| fdinfo(said, "link_id") == Some(id));
        Ok(said.and_then(|said| fdinfo(&said, "ifindex")) == Some(ifindex))
    }

    pub(super) fn link(&self, ifindex: u32) -> PathBuf {
        self.links().join(ifindex.to_string())
    }

    /// Detaches from one interface. Its link is gone when this returns.
    pub fn detach(&self, ifindex: u32) -> Result<(), KernelError> {
        let path = self.link(ifindex);
        let link = PinnedLink::from_pin(&path)
            .map_err(|error| KernelError::from_source("opening a pinned link", error))?;
        // The last reference goes with the pin.
        let link = link
            .unpin()
            .map_err(|error| failed("removing", &path, &error))?;
        drop(link);
        Ok(())
    }

    /// Detaches from every interface and removes everything pinned; the
    /// kernel frees program and tables. Hits still in the ring buffer are
    /// gone.
    pub fn remove(&self) -> Result<(), KernelError> {
        for directory in [self.links(), self.maps()] {
            match fs::read_dir(&directory) {
                Ok(entries) => {
                    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
                        fs::remove_file(&path)
                            .map_err(|error| failed("removing", &path, &error))?;
                    }
                    fs::remove_dir(&directory)
                        .map_err(|error| failed("removing", &directory, &error))?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("reading", &directory, &error)),
            }
        }
        match fs::remove_file(self.program()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("removing", &self.program(), &error))
            }
            _ => Ok(()),
        }
    }

    /// Removes everything pinned and the directory itself.
    pub fn remove_all(&self) -> Result<(), KernelError> {
        self.remove()?;
        match fs::remove_dir(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("removing", &self.directory, &error))
            }
            _ => Ok(()),
        }
    }

    fn map(&self, name: &str) -> Result<Map, KernelError> {
        let path = self.maps().join(name);
        let data = MapData::from_pin(&path).map_err(|error| {
            let missing = root_errno(&error) == Some(rustix::io::Errno::NOENT);
            if missing {
                KernelError::OtherAbi {
                    path: self.directory.clone(),
                    found: 0,
                    expected: ABI_VERSION,
                }
            } else {
                KernelError::from_source(format!("opening {}", path.display()), error)
            }
        })?;
        Map::from_map_data(data)
            .map_err(|error| KernelError::from_source(format!("opening {}", path.display()), error))
    }

    fn maps(&self) -> PathBuf {
        self.directory.join("maps")
    }

    fn links(&self) -> PathBuf {
        self.directory.join("links")
    }

    fn program(&self) -> PathBuf {
        self.directory.join("program")
    }
}

fn failed(action: &str, path: &Path, error: &io::Error) -> KernelError {
    let action = format!("{action} {}", path.display());
    if error.kind() == io::ErrorKind::PermissionDenied {
        KernelError::Privilege(format!("{action}: not permitted; run as root"))
    } else {
        KernelError::Failed {
            action,
            reason: error.to_string(),
        }
    }
}
