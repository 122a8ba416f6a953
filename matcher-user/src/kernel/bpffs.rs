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
    if !directory.starts_with(STANDARD) {
        return Err(KernelError::Unsupported(format!(
            "{} is not on a BPF file system; put paths.pin_dir under {STANDARD}, or mount one \
             there with `mount -t bpf bpf DIRECTORY`",
            directory.display()
        )));
    }
    not_hidden()?;
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

/// Fails inside of `ip netns exec`, which gives its command a mount namespace
/// with a fresh /sys: what is pinned is out of sight there, and what one pins
/// there vanishes with the command, and the program with it.
pub(super) fn not_hidden() -> Result<(), KernelError> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Some(name) = sysfs_source(&mounts) else {
        return Ok(());
    };
    // ip-netns(8) names the mount after the namespace.
    let namespace = Path::new("/run/netns").join(name);
    if is_bpffs(Path::new(STANDARD)) || !namespace.exists() {
        return Ok(());
    }
    Err(KernelError::Unsupported(format!(
        "`ip netns exec` hides the BPF file system from what it runs, and what is attached there \
         is gone when the command ends; use `nsenter --net={} matcher ...` instead",
        namespace.display()
    )))
}

/// The source of what is mounted last at /sys, if that is a sysfs: the device
/// field of mountinfo (proc_pid_mountinfo(5)).
fn sysfs_source(mounts: &str) -> Option<&str> {
    mounts
        .lines()
        .rev()
        .find_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            (mount.split(' ').nth(4)? == "/sys").then_some(filesystem)
        })?
        .strip_prefix("sysfs ")?
        .split(' ')
        .next()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_namespace_is_told_by_the_sysfs_that_ip_mounts_for_it() {
        let host = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
                    23 22 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
                    24 23 0:22 / /sys/fs/bpf rw - bpf bpf rw,mode=700\n";
        assert_eq!(sysfs_source(host), Some("sysfs"));
        let inside = "23 22 0:21 / /sys rw - sysfs sysfs rw\n\
                      99 22 0:50 / /sys rw,relatime - sysfs edge rw\n";
        assert_eq!(sysfs_source(inside), Some("edge"));
        assert_eq!(sysfs_source("22 1 254:0 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
