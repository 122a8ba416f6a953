//! A ring buffer with nothing before or behind it: what the kernel's own can
//! carry.

use std::{os::fd::AsFd as _, path::Path};

use aya::{
    maps::{Map, MapData, RingBuf},
    programs::Xdp,
};

use super::{
    super::{KernelError, tables::Tables},
    Baselines, typed,
};

/// A program that puts a record of the size of a hit into a ring buffer for
/// each packet, and aya's consumer, which releases each record by itself.
pub struct BareRing {
    baselines: Baselines,
    consumer: BareConsumer,
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
        Ok(Self {
            baselines,
            consumer: BareConsumer { ring },
        })
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
    pub fn consumer(&mut self) -> &mut BareConsumer {
        &mut self.consumer
    }

    pub(super) fn verified(&mut self) -> Result<&mut Xdp, KernelError> {
        self.baselines.verified("bare_hits")
    }
}

/// aya's consumer, which looks at no record.
pub struct BareConsumer {
    ring: RingBuf<MapData>,
}

impl BareConsumer {
    /// At the ring buffer of the product, in place of its own consumer: one
    /// that was open before has to be opened again afterwards.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn instead(tables: &Tables) -> Result<Self, KernelError> {
        let fd = tables
            .hits
            .fd()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| KernelError::from_source("sharing the ring buffer", error))?;
        let map = Map::RingBuf(MapData::from_fd(fd).map_err(typed)?);
        Ok(Self {
            ring: map.try_into().map_err(typed)?,
        })
    }

    /// Takes what waits out of the ring buffer; how many records that were.
    pub fn take(&mut self) -> u64 {
        let mut records = 0;
        while self.ring.next().is_some() {
            records += 1;
        }
        records
    }
}
