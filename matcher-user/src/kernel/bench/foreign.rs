//! The address table of xdp-filter (xdp-tools), filled directly: its own
//! command takes one address a process.

use std::path::Path;

use aya::maps::{Map, MapData, PerCpuHashMap, PerCpuValues};

use super::{super::KernelError, typed};

/// Bits of a value that say what is compared; what is above counts hits
/// (xdp-filter/common_kern_user.h).
const FLAGS_BITS: u32 = 6;

/// The pinned map `filter_ipv4` of xdp-filter.
pub struct XdpFilterAddresses {
    map: PerCpuHashMap<MapData, [u8; 4], u64>,
    capacity: u32,
}

impl XdpFilterAddresses {
    /// Opens it where it is pinned.
    ///
    /// # Errors
    /// Nothing is pinned there, or another kind of map.
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        let data = MapData::from_pin(path).map_err(|error| {
            KernelError::from_source(format!("opening {}", path.display()), error)
        })?;
        let capacity = data.info().map_err(typed)?.max_entries();
        let map = Map::from_map_data(data).map_err(typed)?;
        Ok(Self {
            map: map.try_into().map_err(typed)?,
            capacity,
        })
    }

    /// Addresses that fit.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Adds addresses in the way of the one that xdp-filter has added itself.
    ///
    /// # Errors
    /// It has added none, or the kernel refuses.
    pub fn extend_like_first(&mut self, addresses: &[[u8; 4]]) -> Result<(), KernelError> {
        let first = self.map.iter().next().ok_or_else(|| KernelError::Failed {
            action: "filling xdp-filter".into(),
            reason: "its table holds no address to go by".into(),
        })?;
        let (_, values) = first.map_err(typed)?;
        let flags: Vec<u64> = values
            .iter()
            .map(|value| value & ((1 << FLAGS_BITS) - 1))
            .collect();
        for address in addresses {
            let values =
                PerCpuValues::try_from(flags.clone()).map_err(|error| KernelError::Failed {
                    action: "filling xdp-filter".into(),
                    reason: error.to_string(),
                })?;
            self.map.insert(address, values, 0).map_err(typed)?;
        }
        Ok(())
    }

    /// Packets that met one of its addresses.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn hits(&self) -> Result<u64, KernelError> {
        let mut hits = 0;
        for entry in self.map.iter() {
            let (_, values) = entry.map_err(typed)?;
            hits += values.iter().map(|value| value >> FLAGS_BITS).sum::<u64>();
        }
        Ok(hits)
    }
}
