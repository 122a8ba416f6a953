//! Hashes with many entries, read and emptied in batches (bpf(2),
//! `BPF_MAP_*_BATCH`, Linux 5.6).

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::maps::{Map, MapData};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::KernelError;

/// Entries of one system call.
const BATCH: usize = 8192;

const LOOKUP_BATCH: libc::c_long = 24;
const LOOKUP_AND_DELETE_BATCH: libc::c_long = 25;

/// A hash.
pub(super) struct Hash<K, V> {
    name: &'static str,
    map: MapData,
    entries: PhantomData<(K, V)>,
}

/// The part of `union bpf_attr` for batches (linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

impl<K, V> Hash<K, V>
where
    K: IntoBytes + FromBytes + Immutable,
    V: IntoBytes + FromBytes + Immutable,
{
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
        if sizes != (size_of::<K>(), size_of::<V>()) {
            return Err(wrong(format!("has keys and values of {sizes:?} bytes")));
        }
        Ok(Self {
            name,
            map,
            entries: PhantomData,
        })
    }

    /// All entries. Nobody may write them meanwhile.
    pub(super) fn entries(&self) -> Result<Vec<(K, V)>, KernelError> {
        let mut entries = Vec::new();
        self.walk(LOOKUP_BATCH, "reading", |keys, values| {
            let read = |(key, value)| {
                Some((
                    K::read_from_bytes(key).ok()?,
                    V::read_from_bytes(value).ok()?,
                ))
            };
            let keys = keys.chunks_exact(size_of::<K>());
            let values = values.chunks_exact(size_of::<V>());
            entries.extend(keys.zip(values).filter_map(read));
        })?;
        Ok(entries)
    }

    /// Removes everything.
    pub(super) fn clear(&mut self) -> Result<(), KernelError> {
        self.walk(LOOKUP_AND_DELETE_BATCH, "clearing", |_, _| {})
    }

    /// Hands the keys and values of each batch to `each`.
    fn walk(
        &self,
        command: libc::c_long,
        doing: &str,
        mut each: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), KernelError> {
        let mut room = BATCH;
        let mut keys = vec![0_u8; room * size_of::<K>()];
        let mut values = vec![0_u8; room * size_of::<V>()];
        let mut position = [0_u8; 16];
        let mut started = false;
        loop {
            let place = position.as_mut_ptr() as u64;
            let mut batch = Attributes {
                in_batch: if started { place } else { 0 },
                out_batch: place,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: u32::try_from(room).unwrap_or(0),
                ..Attributes::default()
            };
            // SAFETY: `keys` and `values` have room for `count` keys and values
            // of the sizes that `open` checked, `position` for the four bytes
            // that a hash writes there; all outlive the call.
            let result = unsafe { self.call(command, &mut batch) };
            let last = match &result {
                Ok(()) => false,
                // That was the last batch.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                // A bucket with more than a batch: the kernel asks for more
                // room (kernel/bpf/hashtab.c).
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    room *= 2;
                    keys.resize(room * size_of::<K>(), 0);
                    values.resize(room * size_of::<V>(), 0);
                    continue;
                }
                Err(_) => return result.map_err(|error| self.failed(doing, error)),
            };
            let count = batch.count as usize;
            each(
                keys.get(..count * size_of::<K>()).unwrap_or_default(),
                values.get(..count * size_of::<V>()).unwrap_or_default(),
            );
            if last {
                return Ok(());
            }
            started = true;
        }
    }

    fn failed(&self, doing: &str, error: io::Error) -> KernelError {
        KernelError::from_source(format!("{doing} {}", self.name), error)
    }

    /// # Safety
    ///
    /// The pointers in `batch` point to what the command reads and writes.
    unsafe fn call(&self, command: libc::c_long, batch: &mut Attributes) -> io::Result<()> {
        batch.map_fd = u32::try_from(self.map.fd().as_fd().as_raw_fd()).unwrap_or(u32::MAX);
        // SAFETY: a valid attribute of its own size, as promised by the caller.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                std::ptr::from_mut(batch),
                size_of::<Attributes>(),
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}
