//! The BPF file system that holds the pinned state.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::KernelError;

/// `BPF_FS_MAGIC`, linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

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

fn mount_for(directory: &Path) -> Result<(), KernelError> {
    const STANDARD: &str = "/sys/fs/bpf";
    if !directory.starts_with(STANDARD) {
        return Err(KernelError::Unsupported(format!(
            "{} is not on a BPF file system; put paths.pin_dir under {STANDARD}, or mount one \
             there with `mount -t bpf bpf DIRECTORY`",
            directory.display()
        )));
    }
    // `ip netns exec` gives a command such a namespace, with a fresh /sys.
    if !shares_mounts_with_init() {
        return Err(KernelError::Unsupported(format!(
            "no BPF file system is in sight at {STANDARD}, and this process has a mount namespace \
             of its own: one mounted here would vanish with it, and the program with that. For \
             another network namespace use `nsenter --net=/run/netns/NAME matcher ...` instead of \
             `ip netns exec`; elsewhere, `mount -t bpf bpf {STANDARD}` first"
        )));
    }
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

/// Whether what is mounted here outlives this process. Where that cannot be
/// told it is assumed.
fn shares_mounts_with_init() -> bool {
    match (
        fs::read_link("/proc/1/ns/mnt"),
        fs::read_link("/proc/self/ns/mnt"),
    ) {
        (Ok(of_init), Ok(own)) => of_init == own,
        _ => true,
    }
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
