//! The BPF file system that holds the pinned state.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::KernelError;

/// `BPF_FS_MAGIC`, linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// Where systems mount it.
const STANDARD: &str = "/sys/fs/bpf";

/// Where `directory` is to be found: itself when it lies on a BPF file system;
/// else the directory of that name as one of our parent processes sees it.
/// `ip netns exec` gives the process it starts a `/sys` of its own, which hides
/// the BPF file system and ends with the process.
pub(super) fn locate(directory: &Path) -> PathBuf {
    if is_bpffs(&nearest_existing(directory)) || shares_mounts_with_parent() {
        return directory.to_path_buf();
    }
    let Ok(below_root) = directory.strip_prefix("/") else {
        return directory.to_path_buf();
    };
    parents()
        .map(|pid| PathBuf::from(format!("/proc/{pid}/root")).join(below_root))
        .find(|seen| is_bpffs(&nearest_existing(seen)))
        .unwrap_or_else(|| directory.to_path_buf())
}

/// Makes sure that `directory` can hold pins: it, or its nearest existing
/// ancestor, lies on a BPF file system. One is mounted at `/sys/fs/bpf` when
/// that is where the directory should be and nothing is mounted there.
pub(super) fn prepare(directory: &Path) -> Result<(), KernelError> {
    if !is_bpffs(&nearest_existing(directory)) {
        mount_for(directory)?;
    }
    // bpffs keeps names with dots for itself (kernel commit 6d8cb045cde6).
    if directory
        .file_name()
        .is_some_and(|name| name.to_string_lossy().contains('.'))
    {
        return Err(KernelError::Failed {
            action: format!("cannot pin in {}", directory.display()),
            reason: "names on a BPF file system hold no dots".into(),
        });
    }
    fs::create_dir_all(directory).map_err(|error| refused(directory, &error))
}

/// Fails when no BPF file system is in sight and one mounted here would end
/// with this process.
pub(super) fn not_hidden(directory: &Path) -> Result<(), KernelError> {
    if is_bpffs(&nearest_existing(directory)) || shares_mounts_with_parent() {
        return Ok(());
    }
    Err(KernelError::Unsupported(format!(
        "no BPF file system can be seen at {STANDARD} from here, and one mounted by this process \
         would end with it (`ip netns exec` and the like); run `mount -t bpf bpf {STANDARD}` \
         outside first, or enter the namespace with `nsenter --net=...`"
    )))
}

fn mount_for(directory: &Path) -> Result<(), KernelError> {
    if !directory.starts_with(STANDARD) {
        return Err(KernelError::Unsupported(format!(
            "{} is not on a BPF file system; put paths.pin_dir under {STANDARD}, or mount one \
             there with `mount -t bpf bpf DIRECTORY`",
            directory.display()
        )));
    }
    not_hidden(directory)?;
    rustix::mount::mount(
        "bpf",
        STANDARD,
        "bpf",
        rustix::mount::MountFlags::NOSUID
            | rustix::mount::MountFlags::NODEV
            | rustix::mount::MountFlags::NOEXEC,
        c"mode=0700",
    )
    .map_err(|errno| {
        KernelError::Unsupported(format!(
            "no BPF file system is mounted at {STANDARD} and mounting one failed ({errno}); \
             `mount -t bpf bpf {STANDARD}` as root"
        ))
    })?;
    tracing::info!("mounted a BPF file system at {STANDARD}");
    Ok(())
}

/// Whether what we mount outlives us: our parent sees the same mounts.
fn shares_mounts_with_parent() -> bool {
    let Some(parent) = parents().next() else {
        return true;
    };
    match (
        fs::read_link("/proc/self/ns/mnt"),
        fs::read_link(format!("/proc/{parent}/ns/mnt")),
    ) {
        (Ok(own), Ok(parent)) => own == parent,
        // A parent that hides its namespaces is a service manager.
        _ => true,
    }
}

/// Our parent process, its parent, and so on.
fn parents() -> impl Iterator<Item = u32> {
    let own = std::process::id();
    std::iter::successors(parent_of(own), |pid| parent_of(*pid)).take(64)
}

fn parent_of(pid: u32) -> Option<u32> {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))?
        .trim()
        .parse()
        .ok()
        .filter(|parent| *parent != 0)
}

fn nearest_existing(path: &Path) -> PathBuf {
    path.ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(Path::new("/"))
        .to_path_buf()
}

fn is_bpffs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type as u64 & 0xffff_ffff == BPF_FS_MAGIC)
}

fn refused(directory: &Path, error: &io::Error) -> KernelError {
    let action = format!("cannot make {}", directory.display());
    if error.kind() == io::ErrorKind::PermissionDenied {
        return KernelError::Privilege(format!("{action}: not permitted; run as root"));
    }
    KernelError::Failed {
        action,
        reason: error.to_string(),
    }
}
