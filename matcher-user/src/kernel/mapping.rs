//! Memory of a map, shared with the kernel.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    ptr::{self, NonNull},
};

use aya::maps::{Map, MapData};
use rustix::{
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

use super::KernelError;

/// Memory of a map, shared with the kernel; unmapped when dropped.
pub(super) struct Mapping {
    /// Its first byte.
    pub(super) start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is shared memory that belongs to no thread; its users
// only move it, and touch shared words atomically.
unsafe impl Send for Mapping {}

// SAFETY: as above; a shared reference only allows atomic loads and reads of
// complete records.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(super) fn new(
        fd: BorrowedFd<'_>,
        length: usize,
        offset: usize,
        protection: ProtFlags,
    ) -> Result<Self, Errno> {
        // SAFETY: a fresh mapping at an address the kernel chooses; nothing
        // else refers to it.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                protection,
                MapFlags::SHARED,
                fd,
                offset as u64,
            )
        }?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(Errno::NOMEM)?;
        Ok(Self { start, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and not used any more.
        // Unmapping what is mapped cannot fail.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Memory of an array map, its bytes, and the map.
pub(super) fn mapped(name: &str, map: Map) -> Result<(Mapping, usize, MapData), KernelError> {
    let failed = |reason: String| KernelError::Failed {
        action: format!("mapping {name}"),
        reason,
    };
    let Map::Array(data) = map else {
        return Err(failed("it is not an array".into()));
    };
    let info = data
        .info()
        .map_err(|error| KernelError::from_source(format!("reading the size of {name}"), error))?;
    let bytes = usize::try_from(info.max_entries())
        .ok()
        .zip(usize::try_from(info.value_size()).ok())
        // kernel/bpf/arraymap.c rounds up.
        .and_then(|(entries, value)| entries.checked_mul(value.next_multiple_of(8)))
        .ok_or_else(|| failed("it does not fit into memory".into()))?;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let memory = Mapping::new(data.fd().as_fd(), bytes, 0, protection)
        .map_err(|errno| failed(errno.to_string()))?;
    Ok((memory, bytes, data))
}
