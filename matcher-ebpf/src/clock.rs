//! What time it is.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_boot_ns};
use matcher_common::abi::Setting;

use crate::{maps::Settings, opaque::patched};

/// Set by `matcher replay` when it loads the program: the packet's own time
/// is the clock then. Never set in a program that is attached.
#[unsafe(no_mangle)]
static REPLAY: u8 = 0;

/// A time of this CPU that is at most a tick of the kernel's timer (1 to 10 ms)
/// old. Reading the clock takes as long as all the tables together; reading the
/// number of ticks takes nothing.
#[repr(C)]
pub(crate) struct Clock {
    tick: u64,
    boot_ns: u64,
}

impl Clock {
    /// `CLOCK_BOOTTIME` in nanoseconds, at most a tick old.
    #[inline(always)]
    pub(crate) fn coarse_boot_ns(&mut self) -> u64 {
        // SAFETY: no arguments; the helper only reads a number.
        let tick = unsafe { bpf_jiffies64() };
        if tick != self.tick {
            self.tick = tick;
            self.boot_ns = boot_ns();
        }
        self.boot_ns
    }
}

/// `CLOCK_BOOTTIME` in nanoseconds.
#[inline(always)]
pub(crate) fn boot_ns() -> u64 {
    // SAFETY: no arguments; the helper only reads the clock.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Unix time in nanoseconds.
#[inline(always)]
pub(crate) fn unix_ns(settings: &Settings, boot_ns: u64) -> u64 {
    if patched(&REPLAY) != 0 {
        settings.get(Setting::ReplayNow)
    } else {
        boot_ns.wrapping_add(settings.get(Setting::WallOffset))
    }
}
