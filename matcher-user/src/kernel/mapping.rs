//! Memory of a map, shared with the kernel.

use std::{
    os::fd::BorrowedFd,
    ptr::{self, NonNull},
};

use rustix::{
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

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
