//! The parser at work on a packet.

use core::ffi::c_void;

use aya_ebpf::{EbpfContext, bindings::xdp_md, helpers::generated::bpf_loop, programs::XdpContext};
use matcher_common::{
    abi::Packet,
    parse::{self, Cursor, MAX_HEADERS, Unparsed},
};

use crate::{
    frame::{LinearFrame, XdpFrame},
    maps::Scratch,
};

/// Parses the packet into `scratch.packet`. 0, or the counter that says why it
/// was not parsed to its end, plus 1.
#[inline(always)]
pub(crate) fn packet(context: &XdpContext, scratch: &mut Scratch) -> u32 {
    // Without the bytes in fragments: where the packet is plain, its headers
    // are in the linear part.
    if !parse::parse_plain(&LinearFrame::new(context), &mut scratch.packet) {
        header_by_header(context, scratch);
    }
    scratch.packet.unparsed
}

#[inline(always)]
fn header_by_header(context: &XdpContext, scratch: &mut Scratch) {
    scratch.cursor = Cursor::start();
    scratch.packet.clear();
    scratch.packet.set_outcome(Err(Unparsed::TooDeep));
    let mut reading = Reading {
        context: context.as_ptr().cast(),
        scratch,
    };
    // SAFETY: `next_header` has the signature that the helper calls, and
    // `reading` outlives the call.
    unsafe {
        bpf_loop(
            MAX_HEADERS,
            next_header as *mut c_void,
            (&raw mut reading).cast::<c_void>(),
            0,
        );
    }
}

/// A packet that is being parsed.
struct Reading<'a> {
    context: *mut xdp_md,
    scratch: &'a mut Scratch,
}

/// Reads one header; 1 ends the loop. A callback of `bpf_loop` (Linux 5.17):
/// the verifier walks it once, and not once a header.
///
/// # Safety
///
/// `reading` is the one that [`header_by_header`] hands to the helper.
unsafe extern "C" fn next_header(_index: u32, reading: *mut Reading<'_>) -> i64 {
    // SAFETY: as promised by the caller; nothing else refers to it meanwhile.
    let reading = unsafe { &mut *reading };
    let context = XdpContext::new(reading.context);
    let scratch = &mut *reading.scratch;
    let (cursor, packet): (&mut Cursor, &mut Packet) = (&mut scratch.cursor, &mut scratch.packet);
    let outcome = parse::step(&XdpFrame::new(&context), cursor, packet);
    if outcome.is_ok() && !cursor.is_done() {
        return 0;
    }
    packet.set_outcome(outcome);
    1
}
