//! A match becomes an event in the ring buffer, or is counted into an earlier
//! one, or as lost.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use matcher_common::{
    abi::{AddressBytes, Counter, Flow, HitEvent, IpLayer, MAX_LAYERS, Packet, hit_flags},
    parse::Family,
};

use crate::{
    collate::Found,
    fold::{self, Fate, Outcome},
    maps,
    subscribers::{self, Side},
};

/// A packet between a consenting subscriber and a C&C address.
pub(crate) struct Match<'a> {
    pub(crate) packet: &'a Packet,
    pub(crate) found: &'a Found,
    pub(crate) boot_ns: u64,
    pub(crate) ifindex: u32,
    pub(crate) space: u32,
    pub(crate) generation: u32,
    pub(crate) source_validated: bool,
}

/// Writes the event, or counts the packet into an earlier one. `matched =
/// delivered + folded + lost` holds whenever no packet is under way (design
/// decision 7).
#[inline(always)]
pub(crate) fn emit(found: &Match<'_>) {
    let Some(desk) = fold::desk() else {
        // Cannot be: the array has the slot.
        maps::count(Counter::Lost);
        return;
    };
    describe(&mut desk.flow, found);
    let permit = match fold::fold(desk, found.boot_ns) {
        Fate::Folded => {
            maps::count(Counter::Folded);
            return;
        }
        Fate::Event(permit) => permit,
    };
    let Some(mut entry) = maps::HITS.reserve::<HitEvent>(0) else {
        if permit.unused(desk, found.boot_ns) {
            maps::count(Counter::Folded);
        } else {
            // A lost hit leaves a gap.
            maps::next_sequence();
            maps::count(Counter::Lost);
        }
        return;
    };
    if permit.used(desk, found.boot_ns) == Outcome::Discard {
        entry.discard(0);
        maps::count(Counter::Folded);
        return;
    }
    // In place: an event is too big for the stack.
    let event = entry.write(HitEvent::default());
    event.sequence = maps::next_sequence();
    event.boot_ns = found.boot_ns;
    event.generation = found.generation;
    event.packets = 1;
    // SAFETY: no arguments; the helper only tells which CPU this is.
    event.cpu = unsafe { bpf_get_smp_processor_id() } as u16;
    event.flow = desk.flow;
    entry.submit(0);
    maps::count(Counter::Delivered);
}

#[inline(always)]
fn describe(flow: &mut Flow, hit: &Match<'_>) {
    *flow = Flow::default();
    let found = hit.found;
    let matching = layer(hit.packet, found.layer);
    flow.indicator = found.indicator;
    flow.ifindex = hit.ifindex;
    flow.space = hit.space;
    flow.vlan_ids = hit.packet.vlan_ids;
    flow.protocol = matching.protocol;
    flow.tunnel = matching.tunnel;
    let mut flags = 0;
    if found.outbound != 0 {
        flags |= hit_flags::OUTBOUND;
        flow.local = matching.source;
        flow.remote = matching.destination;
        flow.local_port = matching.source_port;
        flow.remote_port = matching.destination_port;
    } else {
        flow.local = matching.destination;
        flow.remote = matching.source;
        flow.local_port = matching.destination_port;
        flow.remote_port = matching.source_port;
    }
    flow.subscriber = flow.local;
    if matching.has_ports != 0 {
        flags |= hit_flags::PORTS;
    }
    if is_ipv6(matching) {
        flags |= hit_flags::IPV6;
    }
    if hit.source_validated {
        flags |= hit_flags::SOURCE_VALIDATED;
    }
    if found.nat64 != 0 {
        flags |= hit_flags::NAT64;
        let side = if found.outbound != 0 {
            Side::Destination
        } else {
            Side::Source
        };
        let mut carried = AddressBytes::default();
        subscribers::end(matching, side, &mut carried);
        flow.nat64 = carried.v4();
    }
    if found.layer > 0 {
        let known_by_outer = found.subscriber_layer != found.layer;
        let outer = layer(
            hit.packet,
            if known_by_outer {
                found.subscriber_layer
            } else {
                found.layer - 1
            },
        );
        flow.outer_source = outer.source;
        flow.outer_destination = outer.destination;
        flags |= hit_flags::OUTER;
        if is_ipv6(outer) {
            flags |= hit_flags::OUTER_IPV6;
        }
        if known_by_outer {
            flags |= hit_flags::SUBSCRIBER_OUTER;
            flow.subscriber = if found.outbound != 0 {
                outer.source
            } else {
                outer.destination
            };
        }
    }
    flow.flags = flags;
}

#[expect(
    clippy::indexing_slicing,
    reason = "masked to the number of layers, a power of two"
)]
#[inline(always)]
fn layer(packet: &Packet, index: u32) -> &IpLayer {
    &packet.layers[index as usize & (MAX_LAYERS - 1)]
}

#[inline(always)]
fn is_ipv6(layer: &IpLayer) -> bool {
    layer.family() == Family::V6
}
