//! Captures through the programs in the kernel, without an interface: what
//! `matcher replay` and `matcher parse` do.
//!
//! Both send every packet through a real program with `BPF_PROG_TEST_RUN`;
//! nothing is attached, nothing is pinned, and nothing stays behind.
//!
//! - [`matching`]: `matcher replay`, a hit for every matching packet.
//! - [`dissect`]: `matcher parse`, what the parser saw of every packet.
//! - [`account`]: the closing accounts of both.
//!
//! # What they read
//!
//! pcap and pcapng of Ethernet and raw IP. Packets of other link types are
//! skipped, named and counted once a capture. Of a capture that is cut off or
//! damaged, the packets before that place are used. A file that cannot be
//! opened, or is no capture, is named, and the others go on; only this makes
//! the account one of failure ([`account::Captured::all_usable`]).
//!
//! The kernel's test entry takes frames of 14 to 65,535 bytes
//! ([`FRAME_BYTES`]). Headers are at the front, so `replay` runs the first
//! 65,535 bytes of a longer frame; a shorter one cannot even hold an Ethernet
//! header and is counted by the reason that the same parser gives on the
//! host. `parse` gives both to the parser on the host, and says so.
//!
//! # Where they write
//!
//! Results go to `out`, one line each; messages and the account to `err`.
//! [`matching::replay`] and [`dissect::parse`] buffer `out` themselves.

pub mod account;
mod captures;
mod consent;
pub mod dissect;
mod line;
mod lists;
pub mod matching;

use std::{fmt, io};

use crate::{
    feeds::FeedError,
    indicators::NoIdsLeft,
    kernel::{KernelError, program::FRAME_BYTES},
    subscribers::SubscriberError,
    tables::indicators::TooManyRules,
};

/// Why captures could not be run, or not to the end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The kernel refused something.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The subscriber space cannot be used.
    #[error(transparent)]
    Subscribers(#[from] SubscriberError),
    /// Feeds that cannot be used, at least one.
    #[error("{}", Lines(.0))]
    Feeds(Vec<FeedError>),
    /// So many entries cover one address that no packet can be held against
    /// all of them.
    #[error(transparent)]
    TooManyRules(#[from] TooManyRules),
    /// More indicators than ids.
    #[error(transparent)]
    NoIdsLeft(#[from] NoIdsLeft),
    /// Who opted out is unknown, so nobody may be matched (design decision 2).
    #[error("{0}")]
    RefusalsUnknown(String),
    /// Results or messages cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// The kernel's counters and what came out of the ring buffer differ.
    #[error(
        "the kernel matched {matched} packets and delivered {delivered} hits, but {read} came \
         out of the ring buffer: hits are missing from the output"
    )]
    Unaccounted {
        /// Packets that the program counted as matched.
        matched: u64,
        /// Hits that it counted as delivered.
        delivered: u64,
        /// Hits that were read.
        read: u64,
    },
}

/// One error a line.
struct Lines<'a>(&'a [FeedError]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// The part of a frame that the kernel's test entry takes; `None` when it is
/// too short for it.
fn runnable(frame: &[u8]) -> Option<&[u8]> {
    if frame.len() < *FRAME_BYTES.start() {
        return None;
    }
    frame.get(..*FRAME_BYTES.end()).or(Some(frame))
}
