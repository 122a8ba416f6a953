//! The settings: words in memory that is shared with the kernel, and the roles
//! of interfaces.

use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{Array, Map, MapData};
use matcher_common::abi::{SETTINGS, Setting};

use super::{
    KernelError,
    mapping::{Mapping, mapped},
};

/// Name of the map.
pub(super) const MAP: &str = "SETTING_VALUES";

/// The settings of a program.
pub(super) struct Settings {
    memory: Mapping,
    /// Kept open: a program that is not loaded yet names the map by it.
    _map: MapData,
}

impl Settings {
    pub(super) fn open(map: Map) -> Result<Self, KernelError> {
        Self::of(map, |bytes| bytes == SETTINGS as usize * size_of::<u64>())
    }

    fn of(map: Map, fits: impl FnOnce(usize) -> bool) -> Result<Self, KernelError> {
        let (memory, bytes, map) = mapped(MAP, map)?;
        if !fits(bytes) {
            return Err(KernelError::Failed {
                action: format!("mapping {MAP}"),
                reason: format!("it has {bytes} bytes"),
            });
        }
        Ok(Self { memory, _map: map })
    }

    /// One of them.
    pub(super) fn get(&self, setting: Setting) -> u64 {
        self.word(setting).load(Ordering::SeqCst)
    }

    /// Writes one; in force for the next packet.
    pub(super) fn set(&self, setting: Setting, value: u64) {
        self.word(setting).store(value, Ordering::SeqCst);
    }

    /// Adds to one that counts.
    pub(super) fn add(&self, setting: Setting, number: u64) {
        self.word(setting).fetch_add(number, Ordering::SeqCst);
    }

    /// Takes from one that counts.
    pub(super) fn subtract(&self, setting: Setting, number: u64) {
        self.word(setting).fetch_sub(number, Ordering::SeqCst);
    }

    fn word(&self, setting: Setting) -> &AtomicU64 {
        // SAFETY: the mapping starts at a page and holds `SETTINGS` words, as
        // `open` saw; it lives as long as `self`, and is only touched as such
        // words.
        unsafe {
            &*self
                .memory
                .start
                .cast::<AtomicU64>()
                .as_ptr()
                .add(setting as usize)
        }
    }
}

/// The ABI version of a pinned state, 0 if it says none. Up to version 3 each
/// setting was an element of its own.
pub(super) fn abi_version(map: Map) -> u64 {
    let elements = match &map {
        Map::Array(data) => data.info().map_or(0, |info| info.max_entries()),
        _ => 0,
    };
    if elements > 1 {
        return Array::<_, u64>::try_from(map)
            .ok()
            .and_then(|old| old.get(&(Setting::AbiVersion as u32), 0).ok())
            .unwrap_or(0);
    }
    // Another version may have more settings, or fewer.
    let has_it = |bytes| bytes > Setting::AbiVersion as usize * size_of::<u64>();
    Settings::of(map, has_it).map_or(0, |settings| settings.get(Setting::AbiVersion))
}
