//! Single C&C addresses: hashes, written and emptied in batches, since a list
//! has millions of them.

use aya::maps::Map;
use matcher_common::abi::RuleSpan;

use super::{
    KernelError,
    batch::{Hash, NotWritten},
    tries::full,
};

/// A hash of addresses with keys of `K` bytes.
pub(super) struct Hosts<const K: usize>(Hash<[u8; K], RuleSpan>);

impl<const K: usize> Hosts<K> {
    pub(super) fn open(name: &'static str, map: Map) -> Result<Self, KernelError> {
        Hash::open(name, map).map(Self)
    }

    /// Addresses that fit.
    pub(super) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Writes these addresses.
    pub(super) fn insert(&mut self, hosts: &[([u8; K], RuleSpan)]) -> Result<(), KernelError> {
        self.0
            .insert(hosts)
            .map_err(|not_written| match not_written {
                NotWritten::Full(done) => full("C&C", "tables.max_indicators", done),
                NotWritten::Failed(error) => error,
            })
    }

    /// Removes everything.
    pub(super) fn clear(&mut self) -> Result<(), KernelError> {
        self.0.clear()
    }
}
