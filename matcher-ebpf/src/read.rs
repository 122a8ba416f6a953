//! The parser at work on a packet.

use core::ffi::c_void;

use aya_ebpf::{EbpfContext, bindings::xdp_md, helpers::generated::bpf_loop, programs::XdpContext};
use matcher_common::{
    abi::Packet,
    parse::{self, Cursor, MAX_HEADERS, Parsing, Unparsed},
};

use crate::frame::{LinearFrame, XdpFrame};

/// Parses the packet. `parsing` lies in a map, whose contents the verifier
/// forgets: so it walks the parser once, and not once for each order in which
/// headers can follow each other.
///
/// A function of its own in the kernel, as [`crate::quick::judge`] is: what they
/// need of the stack is free again when the exact tables are asked.
#[inline(never)]
pub(crate) fn packet(context: &XdpContext, parsing: &mut Parsing) {
    let Parsing { packet, cursor } = parsing;
    // Without the bytes in fragments: where the packet is plain, its headers
    // are in the linear part.
    if parse::parse_plain(&LinearFrame::new(context), packet) {
        return;
    }
    *cursor = Cursor::start();
    packet.clear();
    packet.set_outcome(Err(Unparsed::TooDeep));
    let mut reading = Reading {
        context: context.as_ptr().cast(),
        packet,
        cursor,
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
    packet: &'a mut Packet,
    cursor: &'a mut Cursor,
}

/// Reads one header; 1 ends the loop. A callback of `bpf_loop` (Linux 5.17):
/// the verifier walks it once, and not once a header.
///
/// # Safety
///
/// `reading` is the one that [`packet`] hands to the helper.
unsafe extern "C" fn next_header(_index: u32, reading: *mut Reading<'_>) -> i64 {
    // SAFETY: as promised by the caller; nothing else refers to it meanwhile.
    let reading = unsafe { &mut *reading };
    let context = XdpContext::new(reading.context);
    let outcome = parse::step(
        &XdpFrame::new(&context),
        &mut *reading.cursor,
        &mut *reading.packet,
    );
    if outcome.is_ok() && !reading.cursor.is_done() {
        return 0;
    }
    reading.packet.set_outcome(outcome);
    1
}
