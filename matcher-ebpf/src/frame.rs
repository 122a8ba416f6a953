//! The only place where packet bytes are touched.

use core::ffi::c_void;

use aya_ebpf::{helpers::generated::bpf_xdp_load_bytes, programs::XdpContext};
use matcher_common::parse::{self, Frame};

use crate::opaque::opaque;

/// The parser asks for no more; once more here, as the bound that the verifier
/// wants.
const MAX_OFFSET: usize = parse::MAX_OFFSET as usize;

/// The bytes of the packet behind an XDP context that lie in one piece.
pub(crate) struct LinearFrame<'a> {
    context: &'a XdpContext,
}

impl<'a> LinearFrame<'a> {
    pub(crate) fn new(context: &'a XdpContext) -> Self {
        Self { context }
    }
}

impl Frame for LinearFrame<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        // Once more as a mask that the compiler cannot see through: kernel 6.1
        // loses the bound where the comparison used another copy of the
        // register.
        let start = self.context.data() + (opaque(offset) & MAX_OFFSET);
        // Opaque, too: `start + 1 <= end` would become `start < end`, of which
        // the verifier learns nothing.
        if opaque(start + N) > self.context.data_end() {
            return None;
        }
        // SAFETY: `start .. start + N` lies inside the packet, as the verifier
        // sees from the comparison above.
        Some(unsafe { load(start) })
    }
}

/// All bytes of the packet behind an XDP context, those in fragments
/// (`xdp.frags`) included.
pub(crate) struct XdpFrame<'a> {
    linear: LinearFrame<'a>,
}

impl<'a> XdpFrame<'a> {
    pub(crate) fn new(context: &'a XdpContext) -> Self {
        Self {
            linear: LinearFrame::new(context),
        }
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if let Some(bytes) = self.linear.read(offset) {
            return Some(bytes);
        }
        if offset > MAX_OFFSET {
            return None;
        }
        let mut bytes = [0; N];
        // SAFETY: the helper writes at most `N` bytes to `bytes`, and fails
        // when the packet, fragments included, ends before them.
        let failed = unsafe {
            bpf_xdp_load_bytes(
                self.linear.context.ctx,
                offset as u32,
                bytes.as_mut_ptr().cast::<c_void>(),
                N as u32,
            )
        };
        (failed == 0).then_some(bytes)
    }
}

/// Copies bytes of the packet. Headers are rarely aligned, and the compiler
/// would read them byte by byte; the machines that matter read words at any
/// address, and the kernel allows it there
/// (CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS).
///
/// # Safety
///
/// The `N` bytes at `start` are readable.
#[expect(
    clippy::indexing_slicing,
    reason = "within N, which the compiler knows: there is no check left"
)]
#[inline(always)]
unsafe fn load<const N: usize>(start: usize) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    // Addresses of IPv6 in halves; all else in words, which is how fields lie.
    while N.is_multiple_of(16) && at < N {
        // SAFETY: inside, as promised by the caller.
        bytes[at..at + 8].copy_from_slice(&unsafe { load_8(start + at) }.to_ne_bytes());
        at += 8;
    }
    while at + 4 <= N {
        // SAFETY: as above.
        bytes[at..at + 4].copy_from_slice(&unsafe { load_4(start + at) }.to_ne_bytes());
        at += 4;
    }
    while at + 2 <= N {
        // SAFETY: as above.
        bytes[at..at + 2].copy_from_slice(&unsafe { load_2(start + at) }.to_ne_bytes());
        at += 2;
    }
    if at < N {
        // SAFETY: as above.
        bytes[at] = unsafe { *((start + at) as *const u8) };
    }
    bytes
}

/// # Safety
///
/// The 8 bytes at `address` are readable.
#[inline(always)]
unsafe fn load_8(address: usize) -> u64 {
    let value;
    // SAFETY: reads 8 bytes, as promised by the caller.
    unsafe {
        core::arch::asm!("{0} = *(u64 *)({1} + 0)", out(reg) value, in(reg) address,
            options(pure, readonly, nostack, preserves_flags));
    }
    value
}

/// # Safety
///
/// The 4 bytes at `address` are readable.
#[inline(always)]
unsafe fn load_4(address: usize) -> u32 {
    let value: u64;
    // SAFETY: reads 4 bytes, as promised by the caller.
    unsafe {
        core::arch::asm!("{0} = *(u32 *)({1} + 0)", out(reg) value, in(reg) address,
            options(pure, readonly, nostack, preserves_flags));
    }
    value as u32
}

/// # Safety
///
/// The 2 bytes at `address` are readable.
#[inline(always)]
unsafe fn load_2(address: usize) -> u16 {
    let value: u64;
    // SAFETY: reads 2 bytes, as promised by the caller.
    unsafe {
        core::arch::asm!("{0} = *(u16 *)({1} + 0)", out(reg) value, in(reg) address,
            options(pure, readonly, nostack, preserves_flags));
    }
    value as u16
}
