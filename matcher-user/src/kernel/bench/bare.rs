//! A ring buffer with nothing before or behind it: what the kernel's own can
//! carry.

use std::{
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
    path::Path,
};

use aya::{
    maps::{MapData, RingBuf},
    programs::Xdp,
};

use super::{super::KernelError, Baselines};

/// A program that puts a record of the size of a hit into a ring buffer for
/// each packet, and aya's consumer, which releases each record by itself.
pub struct BareRing {
    baselines: Baselines,
    ring: RingBuf<MapData>,
}

impl BareRing {
    /// With a ring buffer of so many bytes, a power of two.
    ///
    /// # Errors
    /// The file is not the baselines object, or the kernel refuses.
    pub fn load(object: &Path, ring_bytes: u32) -> Result<Self, KernelError> {
        let mut baselines = Baselines::load(object, |loader| {
            loader.map_max_entries("BARE_HITS", ring_bytes);
        })?;
        let ring = baselines.take("BARE_HITS")?;
        Ok(Self { baselines, ring })
    }

    /// Records delivered and records lost since it was loaded.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn delivered_and_lost(&mut self) -> Result<(u64, u64), KernelError> {
        let [_, _, delivered, lost] = self.baselines.tally()?;
        Ok((delivered, lost))
    }

    /// The consumer, for another thread.
    pub fn consumer(&mut self) -> BareConsumer<'_> {
        BareConsumer {
            ring: &mut self.ring,
        }
    }

    pub(super) fn verified(&mut self) -> Result<&mut Xdp, KernelError> {
        self.baselines.verified("bare_hits")
    }
}

/// The consuming end.
pub struct BareConsumer<'a> {
    ring: &'a mut RingBuf<MapData>,
}

impl BareConsumer<'_> {
    /// Takes what waits out of the ring buffer; how many records that were.
    pub fn take(&mut self) -> u64 {
        let mut records = 0;
        while self.ring.next().is_some() {
            records += 1;
        }
        records
    }
}

impl AsFd for BareConsumer<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring buffer owns it, and lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}
