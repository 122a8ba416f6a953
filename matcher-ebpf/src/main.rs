//! The XDP programs of matcher.
//!
//! `matcher` decides every packet: parse, then consent, then match, in that
//! order (design decision 1). `parse` only tells what the parser saw, for
//! `matcher parse`.
//!
//! - [`opaque`]: what the compiler must not see through.
//! - [`frame`]: the only place where packet bytes are touched.
//! - [`maps`]: the tables, and typed access to them.
//! - [`images`]: the compiled tables.
//! - [`clock`]: what time it is.
//! - [`read`]: the parser, header by header.
//! - [`quick`]: the decision, where the compiled tables alone give it.
//! - [`subscribers`]: whose packet it is, and what they allow.
//! - [`collate`]: the look-up of the other ends.
//! - [`decide`]: the decision, in order.
//! - [`fold`]: how repetition is counted.
//! - [`emit`]: a match becomes an event.
#![no_std]
#![feature(asm_experimental_arch)]
#![no_main]

mod clock;
mod collate;
mod decide;
mod emit;
mod fold;
mod frame;
mod images;
mod maps;
mod opaque;
mod quick;
mod read;
mod subscribers;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use matcher_common::abi::ABI_VERSION;

use crate::decide::Verdict;

/// Read by the agent from the object file before it loads anything.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata")]
static MATCHER_ABI_VERSION: u32 = ABI_VERSION;

/// Compares one packet, and passes it.
#[xdp(frags)]
fn matcher(context: XdpContext) -> u32 {
    let verdict = decide::decide(&context);
    // No addresses here: whose packet it was is nobody's business.
    #[cfg(feature = "kernel-log")]
    aya_log_ebpf::debug!(
        &context,
        "interface {}: exit {}",
        context.ingress_ifindex(),
        verdict.slot()
    );
    maps::count_slot(verdict.slot());
    action(verdict)
}

/// The only place where a verdict becomes an action. Passive by default
/// (design decision 3): every path passes.
#[inline(always)]
fn action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Matched | Verdict::Unmatched(_) => xdp_action::XDP_PASS,
    }
}

/// Tells what the parser sees of one packet.
#[xdp(frags)]
fn parse(context: XdpContext) -> u32 {
    if let Some(report) = maps::report() {
        read::packet(&context, report);
    }
    xdp_action::XDP_PASS
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: a program with a panic path does not load.
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
