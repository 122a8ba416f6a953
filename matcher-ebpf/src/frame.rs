//! The only place where packet bytes are touched.

use core::ffi::c_void;

use aya_ebpf::{helpers::generated::bpf_xdp_load_bytes, programs::XdpContext};
use matcher_common::parse::Frame;

/// Offsets beyond this are refused, which gives the verifier a bound. No
/// header chain that the parser follows reaches it, so the parser on the host
/// needs no such bound to see the same: Ethernet with two tags, IPv6 and eight
/// extension headers of 2048 bytes end at 16,446.
const MAX_OFFSET: usize = 0x7fff;

/// The bytes of the packet behind an XDP context.
pub(crate) struct XdpFrame<'a> {
    context: &'a XdpContext,
}

impl<'a> XdpFrame<'a> {
    pub(crate) fn new(context: &'a XdpContext) -> Self {
        Self { context }
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        // Once more as a mask that the compiler cannot see through: kernel 6.1
        // loses the bound where the comparison used another copy of the
        // register.
        let offset = core::hint::black_box(offset) & MAX_OFFSET;
        let start = self.context.data() + offset;
        if start + N <= self.context.data_end() {
            // SAFETY: `start .. start + N` lies inside the linear part of the
            // packet, as the verifier sees from the comparison above; a byte
            // array has alignment 1.
            return Some(unsafe { *(start as *const [u8; N]) });
        }
        // Beyond the linear part there may be fragments (`xdp.frags`).
        let mut bytes = [0; N];
        // SAFETY: the helper writes at most `N` bytes to `bytes`, and fails
        // when the packet, fragments included, ends before them.
        let failed = unsafe {
            bpf_xdp_load_bytes(
                self.context.ctx,
                offset as u32,
                bytes.as_mut_ptr().cast::<c_void>(),
                N as u32,
            )
        };
        (failed == 0).then_some(bytes)
    }
}
