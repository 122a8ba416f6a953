//! Work on long lists, by two threads.

use std::{panic::resume_unwind, thread};

/// Entries from which on a second thread is worth its start.
pub(crate) const LONG: usize = 50_000;

/// Does both, at once if it is about so many entries that it pays. Two threads,
/// whatever the machine has: the others are for packets.
pub(crate) fn both<A, B: Send>(
    entries: usize,
    one: impl FnOnce() -> A,
    other: impl FnOnce() -> B + Send,
) -> (A, B) {
    if entries < LONG {
        return (one(), other());
    }
    thread::scope(|scope| {
        let other = scope.spawn(other);
        let one = one();
        match other.join() {
            Ok(other) => (one, other),
            Err(panic) => resume_unwind(panic),
        }
    })
}
