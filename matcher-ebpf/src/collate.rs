//! The look-up of the other ends in the C&C tables. Nothing gets here before
//! every subscriber in the packet is known to allow it (R1).

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use matcher_common::abi::{Counter, MAX_LAYERS, MAX_RULES, RuleSpan, rule_flags};

use crate::{
    images::{self, Listed},
    maps::{self, Address, Scratch},
    subscribers::{self, LAYER_MASK, Side},
};

/// The id of no indicator.
const NONE: u32 = 0;

/// What matched.
#[repr(C)]
pub(crate) struct Found {
    pub(crate) indicator: u32,
    /// Not 0: the subscriber sent the packet.
    pub(crate) outbound: u32,
    /// The layer that matched.
    pub(crate) layer: u32,
    /// The layer whose address is the subscriber's.
    pub(crate) subscriber_layer: u32,
    /// Not 0: the other end was looked up as the IPv4 address it carries.
    pub(crate) nat64: u32,
}

/// What the look-ups depend on beside the packet.
#[derive(Clone, Copy)]
pub(crate) struct Tables {
    /// One generation for the whole packet.
    pub(crate) generation: u64,
    /// Unix time in nanoseconds.
    pub(crate) now_ns: u64,
}

/// The first match, outermost layer first, and in each the destination first;
/// false if there is none. What matched is in `scratch.found`.
#[inline(always)]
pub(crate) fn collate(scratch: &mut Scratch, tables: Tables) -> bool {
    scratch.found.indicator = NONE;
    let layers = scratch.parsing.packet.layer_count;
    let mut search = Search { scratch, tables };
    // SAFETY: `next_layer` has the signature that the helper calls, and
    // `search` outlives the call.
    unsafe {
        bpf_loop(
            layers,
            next_layer as *mut c_void,
            (&raw mut search).cast::<c_void>(),
            0,
        );
    }
    search.scratch.found.indicator != NONE
}

struct Search<'a> {
    scratch: &'a mut Scratch,
    tables: Tables,
}

/// One layer; 1 ends the search. A callback of `bpf_loop`.
///
/// # Safety
///
/// `search` is the one that [`collate`] hands to the helper.
unsafe extern "C" fn next_layer(index: u32, search: *mut Search<'_>) -> i64 {
    // SAFETY: as promised by the caller; nothing else refers to it meanwhile.
    let search = unsafe { &mut *search };
    in_layer(search.scratch, search.tables, index & LAYER_MASK);
    i64::from(search.scratch.found.indicator != NONE)
}

#[inline(always)]
fn in_layer(scratch: &mut Scratch, tables: Tables, index: u32) {
    // This layer and those around it: a customer behind DS-Lite (RFC 6333) is
    // known by the outer address.
    let so_far = (2 << index) - 1;
    let senders = scratch.subscribers.sources & so_far;
    if senders != 0 {
        look_up(scratch, tables, index, Side::Destination);
        if scratch.found.indicator != NONE {
            scratch.found.outbound = 1;
            scratch.found.layer = index;
            scratch.found.subscriber_layer = highest(senders);
            return;
        }
    }
    let receivers = scratch.subscribers.destinations & so_far;
    if receivers != 0 {
        look_up(scratch, tables, index, Side::Source);
        scratch.found.outbound = 0;
        scratch.found.layer = index;
        scratch.found.subscriber_layer = highest(receivers);
    }
}

/// The innermost of the layers whose bits are set.
#[inline(always)]
fn highest(layers: u32) -> u32 {
    const { assert!(MAX_LAYERS == 4) };
    if layers & 8 != 0 {
        3
    } else if layers & 4 != 0 {
        2
    } else if layers & 2 != 0 {
        1
    } else {
        0
    }
}

/// Looks for the first rule that covers that end of the layer and holds for
/// the packet's protocol, port and time.
#[expect(
    clippy::indexing_slicing,
    reason = "the index is one of a layer: callers mask it, or it is 0"
)]
#[inline(always)]
fn look_up(scratch: &mut Scratch, tables: Tables, index: u32, side: Side) {
    let layer = &scratch.parsing.packet.layers[index as usize];
    let remote = subscribers::end(layer, side, &mut scratch.carried);
    scratch.found.nat64 = u32::from(remote.family != layer.family());
    let Some(span) = rules_for(tables.generation, remote) else {
        return;
    };
    let port = match layer.ports() {
        Some(ports) if side == Side::Source => u32::from(ports.source),
        Some(ports) => u32::from(ports.destination),
        None => NO_PORT,
    };
    let mut rules = RuleSearch {
        tables,
        first: span.first,
        indicator: NONE,
        protocol: u32::from(layer.protocol),
        port,
    };
    let count = if span.count > MAX_RULES {
        MAX_RULES
    } else {
        span.count
    };
    // SAFETY: `try_rule` has the signature that the helper calls, and `rules`
    // outlives the call.
    unsafe {
        bpf_loop(
            count,
            try_rule as *mut c_void,
            (&raw mut rules).cast::<c_void>(),
            0,
        );
    }
    scratch.found.indicator = rules.indicator;
}

/// The rules of every C&C entry that covers the address.
#[inline(always)]
fn rules_for(generation: u64, address: Address<'_>) -> Option<RuleSpan> {
    maps::count_lookup(address.family);
    match images::listed(generation, address) {
        Listed::No => None,
        Listed::Host(span) => Some(span),
        Listed::Closer => maps::longest_prefix(generation, address),
    }
}

/// A port that no packet carries.
const NO_PORT: u32 = u32::MAX;

/// The search for a rule that holds.
struct RuleSearch {
    tables: Tables,
    first: u32,
    /// The result.
    indicator: u32,
    protocol: u32,
    port: u32,
}

/// Tries one rule; 1 ends the search. A callback of `bpf_loop` (Linux 5.17):
/// the verifier walks it once, and not once a rule.
///
/// # Safety
///
/// `search` is the one that [`look_up`] hands to the helper.
unsafe extern "C" fn try_rule(index: u32, search: *mut RuleSearch) -> i64 {
    // SAFETY: as promised by the caller; nothing else refers to it meanwhile.
    let search = unsafe { &mut *search };
    let Tables { generation, now_ns } = search.tables;
    let Some(rule) = maps::rule(generation, search.first.wrapping_add(index)) else {
        return 1;
    };
    if rule.flags & rule_flags::PROTOCOL != 0 && u32::from(rule.protocol) != search.protocol {
        return 0;
    }
    if now_ns < rule.valid_from_ns || now_ns >= rule.valid_until_ns {
        return 0;
    }
    if rule.flags & rule_flags::PORT != 0 {
        if search.port == NO_PORT {
            maps::count(Counter::PortUnknown);
            return 0;
        }
        if u32::from(rule.port) != search.port {
            return 0;
        }
    }
    search.indicator = rule.indicator;
    1
}
