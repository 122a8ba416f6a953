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
    const { assert!(N <= 32, "there are no more places below") };
    let mut bytes = [0; N];
    // The places in the instructions themselves: an addition less for each.
    macro_rules! load {
        ($load:ident of $size:literal at $($at:literal)*) => { $(
            if $at + $size <= N {
                // SAFETY: inside, as promised by the caller.
                let value = unsafe { $load::<$at>(start) };
                bytes[$at..$at + $size].copy_from_slice(&value.to_ne_bytes());
            }
        )* };
    }
    // Addresses of IPv6 in halves; all else in words, which is how fields lie:
    // behind an EtherType, where it is read with them.
    if N.is_multiple_of(16) {
        load!(load_8 of 8 at 0 8 16 24);
    } else if N % 4 == 2 {
        load!(load_2 of 2 at 0);
        load!(load_4 of 4 at 2 6 10 14 18 22 26);
    } else {
        load!(load_4 of 4 at 0 4 8 12 16 20 24 28);
        if N % 4 == 3 {
            let at = N - 3;
            // SAFETY: as above.
            let value = unsafe { load_2::<0>(start + at) };
            bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        if N % 2 == 1 {
            // SAFETY: as above.
            bytes[N - 1] = unsafe { *((start + N - 1) as *const u8) };
        }
    }
    bytes
}

/// # Safety
///
/// The 8 bytes at `AT` behind `address` are readable.
#[inline(always)]
unsafe fn load_8<const AT: usize>(address: usize) -> u64 {
    let value;
    // SAFETY: reads 8 bytes, as promised by the caller.
    unsafe {
        core::arch::asm!("{0} = *(u64 *)({1} + {2})",
            out(reg) value, in(reg) address, const AT,
            options(pure, readonly, nostack, preserves_flags));
    }
    value
}

/// # Safety
///
/// The 4 bytes at `AT` behind `address` are readable.
#[inline(always)]
unsafe fn load_4<const AT: usize>(address: usize) -> u32 {
    let value: u64;
    // SAFETY: reads 4 bytes, as promised by the caller.
    unsafe {
        core::arch::asm!("{0} = *(u32 *)({1} + {2})",
            out(reg) value, in(reg) address, const AT,
            options(pure, readonly, nostack, preserves_flags));
    }
    value as u32
}

/// # Safety
///
/// The 2 bytes at `AT` behind `address` are readable.
#[inline(always)]
unsafe fn load_2<const AT: usize>(address: usize) -> u16 {
    let value: u64;
    // SAFETY: reads 2 bytes, as promised by the caller.
    unsafe {
        core::arch::asm!("{0} = *(u16 *)({1} + {2})",
            out(reg) value, in(reg) address, const AT,
            options(pure, readonly, nostack, preserves_flags));
    }
    value as u16
}
