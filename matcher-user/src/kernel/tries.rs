//! LPM tries: IPv4 and IPv6 side by side, never one for both (design decision
//! 10).

use std::net::IpAddr;

use aya::maps::{LpmTrie, MapData, MapError, lpm_trie::Key};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{KernelError, error::root_errno};
use crate::consent::SpacePrefix;

/// An IPv4 and an IPv6 trie; never one for both (design decision 10).
pub(super) struct Tries<V: aya::Pod> {
    pub(super) v4: LpmTrie<MapData, [u8; 4], V>,
    pub(super) v6: LpmTrie<MapData, [u8; 16], V>,
}

impl<V: aya::Pod> Tries<V> {
    pub(super) fn insert(
        &mut self,
        table: &'static str,
        size_key: &'static str,
        done: usize,
        prefix: &IpNet,
        value: V,
    ) -> Result<(), KernelError> {
        match prefix {
            IpNet::V4(prefix) => self.v4.insert(&key4(prefix), value, 0),
            IpNet::V6(prefix) => self.v6.insert(&key6(prefix), value, 0),
        }
        .map_err(|error| full_or(table, size_key, done, error))
    }

    pub(super) fn clear(&mut self, table: &str) -> Result<(), KernelError> {
        let failed = |error| KernelError::from_source(format!("clearing table {table}"), error);
        while let Some(key) = self.v4.keys().next() {
            self.v4.remove(&key.map_err(failed)?).map_err(failed)?;
        }
        while let Some(key) = self.v6.keys().next() {
            self.v6.remove(&key.map_err(failed)?).map_err(failed)?;
        }
        Ok(())
    }
}

/// An IPv4 and an IPv6 trie of subscribers: in each key the number of the
/// subscriber space comes first.
pub(super) struct SpaceTries<V: aya::Pod> {
    pub(super) v4: LpmTrie<MapData, [u8; 8], V>,
    pub(super) v6: LpmTrie<MapData, [u8; 20], V>,
}

impl<V: aya::Pod> SpaceTries<V> {
    pub(super) fn insert(
        &mut self,
        table: &'static str,
        done: usize,
        at: &SpacePrefix,
        value: V,
    ) -> Result<(), KernelError> {
        match at.prefix {
            IpNet::V4(prefix) => self.v4.insert(&space_key4(at.space, &prefix), value, 0),
            IpNet::V6(prefix) => self.v6.insert(&space_key6(at.space, &prefix), value, 0),
        }
        .map_err(|error| full_or(table, "tables.max_consent_entries", done, error))
    }

    pub(super) fn remove(&mut self, table: &str, at: &SpacePrefix) -> Result<(), KernelError> {
        match at.prefix {
            IpNet::V4(prefix) => self.v4.remove(&space_key4(at.space, &prefix)),
            IpNet::V6(prefix) => self.v6.remove(&space_key6(at.space, &prefix)),
        }
        .map_err(|error| {
            KernelError::from_source(format!("removing {at} from table {table}"), error)
        })
    }

    pub(super) fn lookup(
        &self,
        table: &str,
        space: u32,
        address: IpAddr,
    ) -> Result<Option<V>, KernelError> {
        let found = match address {
            IpAddr::V4(address) => self.v4.get(&space_key4(space, &address.into()), 0),
            IpAddr::V6(address) => self.v6.get(&space_key6(space, &address.into()), 0),
        };
        match found {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(KernelError::from_source(
                format!("looking up in table {table}"),
                error,
            )),
        }
    }

    pub(super) fn entries(&self, table: &str) -> Result<Vec<(SpacePrefix, V)>, KernelError> {
        let failed = |error| KernelError::from_source(format!("reading table {table}"), error);
        let mut entries = Vec::new();
        for entry in self.v4.iter() {
            let (key, value) = entry.map_err(failed)?;
            let [a, b, c, d, address @ ..] = key.data();
            if let Some(at) = place([a, b, c, d], IpAddr::from(address), key.prefix_len()) {
                entries.push((at, value));
            }
        }
        for entry in self.v6.iter() {
            let (key, value) = entry.map_err(failed)?;
            let [a, b, c, d, address @ ..] = key.data();
            if let Some(at) = place([a, b, c, d], IpAddr::from(address), key.prefix_len()) {
                entries.push((at, value));
            }
        }
        Ok(entries)
    }
}

/// Bits of a key that are the number of the space.
const SPACE_BITS: u32 = 32;

/// What a key names; `None` for one that is shorter than the space's number,
/// which nobody writes.
fn place(space: [u8; 4], address: IpAddr, length: u32) -> Option<SpacePrefix> {
    let length = u8::try_from(length.checked_sub(SPACE_BITS)?).ok()?;
    Some(SpacePrefix {
        space: u32::from_ne_bytes(space),
        prefix: IpNet::new(address, length).ok()?,
    })
}

pub(super) fn key4(prefix: &Ipv4Net) -> Key<[u8; 4]> {
    Key::new(prefix.prefix_len().into(), prefix.network().octets())
}

pub(super) fn key6(prefix: &Ipv6Net) -> Key<[u8; 16]> {
    Key::new(prefix.prefix_len().into(), prefix.network().octets())
}

fn space_key4(space: u32, prefix: &Ipv4Net) -> Key<[u8; 8]> {
    let [s, p, q, r] = space.to_ne_bytes();
    let [a, b, c, d] = prefix.network().octets();
    Key::new(
        SPACE_BITS + u32::from(prefix.prefix_len()),
        [s, p, q, r, a, b, c, d],
    )
}

fn space_key6(space: u32, prefix: &Ipv6Net) -> Key<[u8; 20]> {
    let mut key = [0; 20];
    let bytes = space
        .to_ne_bytes()
        .into_iter()
        .chain(prefix.network().octets());
    for (to, from) in key.iter_mut().zip(bytes) {
        *to = from;
    }
    Key::new(SPACE_BITS + u32::from(prefix.prefix_len()), key)
}

/// Says which key of the configuration makes a table bigger, if it is full.
/// A table that is full.
pub(super) fn full(table: &'static str, key: &'static str, entries: usize) -> KernelError {
    KernelError::TableFull {
        table,
        entries,
        key,
    }
}

pub(super) fn full_or(
    table: &'static str,
    key: &'static str,
    entries: usize,
    error: MapError,
) -> KernelError {
    // LPM tries say ENOSPC, hashes E2BIG.
    match root_errno(&error) {
        Some(rustix::io::Errno::NOSPC | rustix::io::Errno::TOOBIG) => full(table, key, entries),
        _ => KernelError::from_source(format!("writing table {table}"), error),
    }
}
