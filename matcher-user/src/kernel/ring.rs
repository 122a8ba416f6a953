//! The consumer of the ring buffer of hits.
//!
//! aya's own consumer releases each record when it is dropped. Ours reads many
//! records ahead and releases them together, after they are stored (design
//! decision 12): a crash in between neither loses nor doubles one, because the
//! position, which never goes back while the map lives, tells which are
//! stored.

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use matcher_common::abi::HitEvent;
use rustix::{io::Errno, mm::ProtFlags};
use zerocopy::FromBytes;

use super::{KernelError, error::chain, mapping::Mapping, tables::Tables};

// Record header, linux/bpf.h: two u32, the first the length and two flags.
const HEADER: u64 = 8;
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;

/// Names one ring buffer over restarts of the agent: no two maps since boot
/// have the same id, and no two boots the same boot id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingId(pub String);

/// The consumer. There must be one only; the caller holds the lock.
pub struct Ring {
    consumer: Mapping,
    producer: Mapping,
    fd: OwnedFd,
    id: RingId,
    page: usize,
    /// Size of the data area in bytes, a power of two.
    size: u64,
    /// Up to where we have read; the kernel knows only what was released.
    position: u64,
}

impl Ring {
    /// Maps the ring buffer of `tables`. Starts at what was released last, by
    /// whichever process that was.
    pub fn open(tables: &Tables) -> Result<Self, KernelError> {
        let failed = |errno: Errno| KernelError::Failed {
            action: "mapping the ring buffer".into(),
            reason: errno.to_string(),
        };
        let info = tables
            .hits
            .info()
            .map_err(|error| KernelError::from_source("reading the ring buffer's size", error))?;
        let size = u64::from(info.max_entries());
        let fd = tables
            .hits
            .fd()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| KernelError::from_source("sharing the ring buffer", error))?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(|error| {
            KernelError::Failed {
                action: "reading /proc/sys/kernel/random/boot_id".into(),
                reason: chain(&error),
            }
        })?;
        let page = rustix::param::page_size();
        let data = usize::try_from(size).map_err(|_| failed(Errno::OVERFLOW))?;
        // Layout, kernel/bpf/ringbuf.c: the consumer's page, the producer's
        // page, then the data twice, so that no record wraps.
        let consumer = Mapping::new(fd.as_fd(), page, 0, ProtFlags::READ | ProtFlags::WRITE)
            .map_err(failed)?;
        let producer =
            Mapping::new(fd.as_fd(), page + 2 * data, page, ProtFlags::READ).map_err(failed)?;
        let mut ring = Self {
            consumer,
            producer,
            fd,
            id: RingId(format!("{}:{}", boot.trim(), info.id())),
            page,
            size,
            position: 0,
        };
        ring.position = ring.released();
        Ok(ring)
    }

    /// Which ring buffer this is.
    pub fn id(&self) -> &RingId {
        &self.id
    }

    /// Up to where records were read: what to store beside them.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes waiting, and bytes that fit.
    pub fn fill(&self) -> (u64, u64) {
        (self.produced().saturating_sub(self.released()), self.size)
    }

    /// Passes over records that were stored before a crash kept us from
    /// releasing them. A position outside what waits is ignored: it speaks of
    /// records that are gone.
    pub fn skip_to(&mut self, stored: u64) {
        if stored > self.released() && stored <= self.produced() {
            self.position = stored;
            self.release();
        }
    }

    /// The next event, or `None` when all that are complete have been read.
    /// The record stays in the ring until [`Ring::release`].
    pub fn next_event(&mut self) -> Option<Result<HitEvent, KernelError>> {
        loop {
            if self.position == self.produced() {
                return None;
            }
            let header = self.record_header()?;
            if header & BUSY != 0 {
                return None;
            }
            let length = u64::from(header & !(BUSY | DISCARDED));
            let start = self.position + HEADER;
            self.position += (HEADER + length).next_multiple_of(8);
            if header & DISCARDED == 0 {
                return Some(self.event(start, length));
            }
        }
    }

    /// Adds up to `limit` events to `events`, as [`Ring::next_event`] gives
    /// them.
    pub fn next_events(
        &mut self,
        limit: usize,
        events: &mut Vec<HitEvent>,
    ) -> Result<(), KernelError> {
        for _ in 0..limit {
            match self.next_event() {
                Some(event) => events.push(event?),
                None => break,
            }
        }
        Ok(())
    }

    /// Goes back to what was released: what was read since could not be
    /// stored, and is read again.
    pub fn rewind(&mut self) {
        self.position = self.released();
    }

    /// Gives everything read so far back to the kernel. It notifies only when
    /// much waits (`matcher-ebpf/src/emit.rs`): whoever waits for less looks by
    /// itself every few milliseconds.
    pub fn release(&mut self) {
        self.consumer_position()
            .store(self.position, Ordering::Release);
    }

    fn released(&self) -> u64 {
        self.consumer_position().load(Ordering::Acquire)
    }

    fn produced(&self) -> u64 {
        // SAFETY: the first word of the producer's page, aligned, mapped as
        // long as `self`; only accessed atomically.
        unsafe { self.producer.start.cast::<AtomicU64>().as_ref() }.load(Ordering::Acquire)
    }

    fn consumer_position(&self) -> &AtomicU64 {
        // SAFETY: the first word of the consumer's page, aligned, mapped as
        // long as `self`; only accessed atomically.
        unsafe { self.consumer.start.cast::<AtomicU64>().as_ref() }
    }

    /// Where in the producer's mapping a position lies.
    fn offset(&self, position: u64) -> Option<usize> {
        usize::try_from(position & (self.size - 1))
            .ok()
            .map(|offset| self.page + offset)
    }

    fn record_header(&self) -> Option<u32> {
        let offset = self.offset(self.position)?;
        // SAFETY: positions are multiples of 8, so the word is aligned and
        // lies inside the data area.
        let header = unsafe { self.producer.start.add(offset).cast::<AtomicU32>().as_ref() };
        Some(header.load(Ordering::Acquire))
    }

    fn event(&self, start: u64, length: u64) -> Result<HitEvent, KernelError> {
        let unexpected = || KernelError::Failed {
            action: "reading the ring buffer".into(),
            reason: format!(
                "a record of {length} bytes, where hits have {}",
                size_of::<HitEvent>()
            ),
        };
        if length != size_of::<HitEvent>() as u64 {
            return Err(unexpected());
        }
        let offset = self.offset(start).ok_or_else(unexpected)?;
        let mut bytes = [0u8; size_of::<HitEvent>()];
        // SAFETY: the record lies in the data area, which is mapped twice in a
        // row, so `length` bytes from any offset in it are mapped; the kernel
        // does not write to it before it is released.
        unsafe {
            ptr::copy_nonoverlapping(
                self.producer.start.add(offset).as_ptr(),
                bytes.as_mut_ptr(),
                bytes.len(),
            );
        }
        HitEvent::read_from_bytes(&bytes).map_err(|_| unexpected())
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl std::os::fd::AsRawFd for Ring {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}
