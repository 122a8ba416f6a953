//! How far a load is, for whoever shows it.

/// A step of a load.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A feed is being fetched: bytes so far, and bytes promised.
    Fetching {
        /// Its name.
        feed: &'a str,
        /// Bytes so far.
        bytes: u64,
        /// Bytes promised.
        of: Option<u64>,
    },
    /// A feed is being read, the `number`th (from 1) of `of`.
    Reading {
        /// Its name.
        feed: &'a str,
        /// Which.
        number: usize,
        /// How many there are.
        of: usize,
    },
    /// So many entries are being put together.
    Merging(usize),
    /// So many indicators are being written into the kernel's tables.
    Writing(usize),
}

/// Whoever shows how far a load is.
pub trait Progress: Sync {
    /// A step began, or goes on.
    fn at(&self, step: Step<'_>);
}

/// Shows nothing.
#[derive(Copy, Clone, Debug)]
pub struct Quiet;

impl Progress for Quiet {
    fn at(&self, _: Step<'_>) {}
}
