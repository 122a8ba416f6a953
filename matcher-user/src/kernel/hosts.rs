//! Single C&C addresses: hashes, filled and emptied in batches (bpf(2),
//! `BPF_MAP_UPDATE_BATCH`, Linux 5.6), since a list has millions of them.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::maps::{Map, MapData};
use matcher_common::abi::RuleSpan;
use zerocopy::IntoBytes as _;

use super::{KernelError, tries::full};

/// Entries of one system call.
const BATCH: usize = 8192;

const LOOKUP_AND_DELETE_BATCH: libc::c_long = 25;
const UPDATE_BATCH: libc::c_long = 26;

/// A hash of addresses with keys of `K` bytes.
pub(super) struct Hosts<const K: usize> {
    name: &'static str,
    capacity: usize,
    map: MapData,
}

/// The part of `union bpf_attr` for batches (linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

impl<const K: usize> Hosts<K> {
    pub(super) fn open(name: &'static str, map: Map) -> Result<Self, KernelError> {
        let wrong = |reason: String| KernelError::Failed {
            action: format!("map {name}"),
            reason,
        };
        let Map::HashMap(map) = map else {
            return Err(wrong("is not a hash".into()));
        };
        let info = map
            .info()
            .map_err(|error| KernelError::from_source(format!("map {name}"), error))?;
        let sizes = (info.key_size() as usize, info.value_size() as usize);
        if sizes != (K, size_of::<RuleSpan>()) {
            return Err(wrong(format!("has keys and values of {sizes:?} bytes")));
        }
        Ok(Self {
            name,
            capacity: usize::try_from(info.max_entries()).unwrap_or(usize::MAX),
            map,
        })
    }

    /// Addresses that fit.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Writes these addresses.
    pub(super) fn insert(&mut self, hosts: &[([u8; K], RuleSpan)]) -> Result<(), KernelError> {
        let mut done = 0;
        for chunk in hosts.chunks(BATCH) {
            let keys: Vec<u8> = chunk.iter().flat_map(|(key, _)| *key).collect();
            let values: Vec<u8> = chunk
                .iter()
                .flat_map(|(_, span)| span.as_bytes().iter().copied())
                .collect();
            let mut batch = Batch {
                keys: keys.as_ptr() as u64,
                values: values.as_ptr() as u64,
                count: u32::try_from(chunk.len()).unwrap_or(0),
                ..Batch::default()
            };
            // SAFETY: `keys` and `values` hold `count` keys and values of the
            // sizes that `open` checked, and outlive the call.
            let result = unsafe { self.call(UPDATE_BATCH, &mut batch) };
            done += batch.count as usize;
            if let Err(error) = result {
                return Err(match error.raw_os_error() {
                    Some(libc::E2BIG) => full("C&C", "tables.max_indicators", done),
                    _ => KernelError::from_source(format!("writing {}", self.name), error),
                });
            }
        }
        Ok(())
    }

    /// Removes everything.
    pub(super) fn clear(&mut self) -> Result<(), KernelError> {
        let mut keys = vec![0_u8; BATCH * K];
        let mut values = vec![0_u8; BATCH * size_of::<RuleSpan>()];
        let mut position = [0_u8; 16];
        let mut started = false;
        loop {
            let place = position.as_mut_ptr() as u64;
            let mut batch = Batch {
                in_batch: if started { place } else { 0 },
                out_batch: place,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: u32::try_from(BATCH).unwrap_or(0),
                ..Batch::default()
            };
            // SAFETY: `keys` and `values` have room for `count` keys and values
            // of the sizes that `open` checked, `position` for the four bytes
            // that a hash writes there; all outlive the call.
            match unsafe { self.call(LOOKUP_AND_DELETE_BATCH, &mut batch) } {
                Ok(()) => started = true,
                // That was the last one.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
                // A bucket with more than a batch: the kernel asks for more
                // room (kernel/bpf/hashtab.c).
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    keys.resize(keys.len() * 2, 0);
                    values.resize(values.len() * 2, 0);
                }
                Err(error) => {
                    return Err(KernelError::from_source(
                        format!("clearing {}", self.name),
                        error,
                    ));
                }
            }
        }
    }

    /// # Safety
    ///
    /// The pointers in `batch` point to what the command reads and writes.
    unsafe fn call(&self, command: libc::c_long, batch: &mut Batch) -> io::Result<()> {
        batch.map_fd = u32::try_from(self.map.fd().as_fd().as_raw_fd()).unwrap_or(u32::MAX);
        // SAFETY: a valid attribute of its own size, as promised by the caller.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                std::ptr::from_mut(batch),
                size_of::<Batch>(),
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}
