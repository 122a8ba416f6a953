//! Waiting for packets that are under way.

use std::{thread, time::Duration};

use rustix::thread::{MembarrierCommand, membarrier};

/// Far longer than any run of a program, which is microseconds without
/// preemption.
const LONG_ENOUGH: Duration = Duration::from_millis(100);

/// Returns when every packet that was being decided at the time of the call
/// has been decided; takes some milliseconds.
///
/// What a program reads in several steps (the generation, then the tables of
/// that generation) must not change under it in between.
pub(super) fn wait_for_packets() {
    // The global barrier is an RCU grace period (membarrier(2),
    // kernel/sched/membarrier.c), and a program runs inside one. Kernels with
    // nohz_full CPUs do not offer it.
    if membarrier(MembarrierCommand::Global).is_err() {
        thread::sleep(LONG_ENOUGH);
    }
}
