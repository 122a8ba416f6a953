//! What this process and this kernel can do, asked before anything is tried.

use std::fs;

use super::KernelError;

/// Oldest kernel that is tested.
const OLDEST: (u32, u32) = (6, 1);

// Capability numbers, linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// Fails, with what to do, when the process lacks privileges or the kernel is
/// too old.
pub fn require() -> Result<(), KernelError> {
    require_privileges(&fs::read_to_string("/proc/self/status").unwrap_or_default())?;
    require_kernel(
        rustix::system::uname()
            .release()
            .to_str()
            .unwrap_or_default(),
    )
}

fn require_privileges(status: &str) -> Result<(), KernelError> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |capability: u32| effective & (1 << capability) != 0;
    // Since 5.8 the two suffice; CAP_SYS_ADMIN contains CAP_BPF.
    if has(CAP_NET_ADMIN) && (has(CAP_BPF) || has(CAP_SYS_ADMIN)) {
        return Ok(());
    }
    Err(KernelError::Privilege(
        "not permitted: matcher needs CAP_BPF and CAP_NET_ADMIN; run it as root, or from the \
         service unit"
            .into(),
    ))
}

fn require_kernel(release: &str) -> Result<(), KernelError> {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST {
        return Ok(());
    }
    Err(KernelError::Unsupported(format!(
        "this kernel is {release}; matcher needs Linux {}.{} or newer",
        OLDEST.0, OLDEST.1
    )))
}

/// Explains a program load that the kernel refused.
pub(super) fn explain_load(log: &str) -> String {
    let mut last: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let skip = last.len().saturating_sub(6);
    last.drain(..skip);
    format!(
        "the kernel's verifier refused the program: {}",
        last.join(" / ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_may_and_a_plain_user_is_told_what_is_missing() {
        assert!(require_privileges("CapEff:\t000001ffffffffff\n").is_ok());
        assert!(require_privileges("CapEff:\t0000008000001000\n").is_ok());
        let error = require_privileges("CapEff:\t0000000000000000\n").unwrap_err();
        assert!(error.to_string().contains("CAP_BPF and CAP_NET_ADMIN"));
        assert!(matches!(error, KernelError::Privilege(_)));
    }

    #[test]
    fn kernels_before_6_1_are_refused_by_name() {
        assert!(require_kernel("6.1.0-44-cloud-amd64").is_ok());
        assert!(require_kernel("6.18.44-fc-v445").is_ok());
        assert!(require_kernel("10.0").is_ok());
        let error = require_kernel("5.15.0-1-generic").unwrap_err();
        assert!(error.to_string().contains("5.15.0-1-generic"));
        assert!(matches!(error, KernelError::Unsupported(_)));
    }
}
