//! Programs that `cargo xtask bench` holds the product against, and the ones
//! that give each packet new addresses before the program under test sees it.
//!
//! `BPF_PROG_TEST_RUN` runs one packet many times; with one pair of addresses
//! every table would answer from the cache. `rotate_v4` and `rotate_v6` write
//! the next addresses of a list into the packet and then tail-call whatever
//! program the bench has put into `TARGET`: the very program that would be
//! attached, not a copy of it. What they cost is the same before every target
//! and is measured with [`empty`] as the target.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::xdp_action,
    macros::{map, xdp},
    maps::{Array, PerCpuArray, ProgramArray},
    programs::XdpContext,
};

/// Source and destination, as they stand beside each other in an IPv4 header.
/// Halves of words: that is how they are aligned behind an Ethernet header.
type Flow4 = [u16; 4];
/// The same of an IPv6 header.
type Flow6 = [Flow4; 4];

/// Entries of the list of addresses; the bench sets it when it loads.
#[unsafe(no_mangle)]
static FLOWS: u32 = 1;

#[map]
static FLOWS_V4: Array<Flow4> = Array::with_max_entries(1, 0);
#[map]
static FLOWS_V6: Array<Flow6> = Array::with_max_entries(1, 0);
/// The flow that comes next on each CPU.
#[map]
static NEXT: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);
/// Slot 0: the program under test.
#[map]
static TARGET: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Ethernet and IPv4: the next flow, then the target.
#[xdp(frags)]
fn rotate_v4(context: XdpContext) -> u32 {
    rotate(&context, &FLOWS_V4, 26)
}

/// Ethernet and IPv6: the next flow, then the target.
#[xdp(frags)]
fn rotate_v6(context: XdpContext) -> u32 {
    rotate(&context, &FLOWS_V6, 22)
}

/// Aborts, which the bench takes for a failure, unless the target runs.
#[inline(always)]
fn rotate<Flow: Copy>(context: &XdpContext, flows: &Array<Flow>, offset: usize) -> u32 {
    let addresses = context.data() + offset;
    if addresses + size_of::<Flow>() > context.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    let Some(flow) = flows.get_ptr(next()) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: the flow is an entry of an array that the bench no longer
    // writes; the addresses lie inside the packet, as just compared, at an even
    // offset of a buffer that starts aligned.
    unsafe { *(addresses as *mut Flow) = *flow };
    // SAFETY: nothing here waits to be dropped.
    unsafe { TARGET.tail_call(context, 0) };
    xdp_action::XDP_ABORTED
}

/// Goes round the list.
#[inline(always)]
fn next() -> u32 {
    // SAFETY: a constant of the object file, volatile because the loader
    // patches it.
    let flows = unsafe { core::ptr::read_volatile(&raw const FLOWS) };
    let Some(slot) = NEXT.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: this CPU's own slot; XDP programs do not preempt each other on
    // one CPU.
    unsafe {
        let index = *slot;
        let following = index.wrapping_add(1);
        *slot = if following >= flows { 0 } else { following };
        index
    }
}

/// Nothing at all: what the harness itself costs.
#[xdp(frags)]
fn empty(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Ethernet and the addresses of IPv4 or IPv6, folded into the return value
/// so that they are really read. The yardstick for later work: never change.
#[xdp(frags)]
fn parse_min(context: XdpContext) -> u32 {
    let start = context.data();
    let end = context.data_end();
    if start + 14 > end {
        return xdp_action::XDP_PASS;
    }
    // SAFETY: inside the packet, as just compared; at an even offset of a
    // buffer that starts aligned, as every read below.
    let ether_type = unsafe { *((start + 12) as *const u16) };
    let folded = match u16::from_be(ether_type) {
        0x0800 => {
            if start + 34 > end {
                return xdp_action::XDP_PASS;
            }
            // SAFETY: inside the packet, as just compared.
            or(unsafe { *((start + 26) as *const Flow4) })
        }
        0x86dd => {
            if start + 54 > end {
                return xdp_action::XDP_PASS;
            }
            // SAFETY: inside the packet, as just compared.
            let [a, b, c, d] = unsafe { *((start + 22) as *const Flow6) };
            or(a) | or(b) | or(c) | or(d)
        }
        _ => return xdp_action::XDP_PASS,
    };
    if folded == 0 {
        xdp_action::XDP_DROP
    } else {
        xdp_action::XDP_PASS
    }
}

/// Half words without a loop, because that is how addresses are aligned: any
/// other way would be slower than a parser has to be.
#[inline(always)]
fn or([a, b, c, d]: Flow4) -> u16 {
    a | b | c | d
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: a program with a panic path does not load.
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
