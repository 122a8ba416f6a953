//! A match becomes an event in the ring buffer, or is counted as lost.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use matcher_common::{
    abi::{AddressBytes, Counter, HitEvent, IpLayer, MAX_LAYERS, Packet, hit_flags},
    parse::Family,
};

use crate::{
    collate::Found,
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

/// Writes the event. `matched = delivered + folded + lost` holds whenever no
/// packet is under way (design decision 7).
#[inline(always)]
pub(crate) fn emit(found: &Match<'_>) {
    // Taken before the ring is asked, so that a lost hit leaves a gap.
    let sequence = maps::next_sequence();
    let Some(mut entry) = maps::HITS.reserve::<HitEvent>(0) else {
        maps::count(Counter::Lost);
        return;
    };
    // In place: an event is too big for the stack.
    fill(entry.write(HitEvent::default()), found, sequence);
    entry.submit(0);
    maps::count(Counter::Delivered);
}

#[inline(always)]
fn fill(event: &mut HitEvent, hit: &Match<'_>, sequence: u64) {
    let found = hit.found;
    let matching = layer(hit.packet, found.layer);
    event.sequence = sequence;
    event.boot_ns = hit.boot_ns;
    event.indicator = found.indicator;
    event.ifindex = hit.ifindex;
    event.generation = hit.generation;
    event.packets = 1;
    event.space = hit.space;
    // SAFETY: no arguments; the helper only tells which CPU this is.
    event.cpu = unsafe { bpf_get_smp_processor_id() } as u16;
    event.vlan_ids = hit.packet.vlan_ids;
    event.protocol = matching.protocol;
    event.tunnel = matching.tunnel;
    let mut flags = 0;
    if found.outbound != 0 {
        flags |= hit_flags::OUTBOUND;
        event.local = matching.source;
        event.remote = matching.destination;
        event.local_port = matching.source_port;
        event.remote_port = matching.destination_port;
    } else {
        event.local = matching.destination;
        event.remote = matching.source;
        event.local_port = matching.destination_port;
        event.remote_port = matching.source_port;
    }
    event.subscriber = event.local;
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
        event.nat64 = carried.v4();
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
        event.outer_source = outer.source;
        event.outer_destination = outer.destination;
        flags |= hit_flags::OUTER;
        if is_ipv6(outer) {
            flags |= hit_flags::OUTER_IPV6;
        }
        if known_by_outer {
            flags |= hit_flags::SUBSCRIBER_OUTER;
            event.subscriber = if found.outbound != 0 {
                outer.source
            } else {
                outer.destination
            };
        }
    }
    event.flags = flags;
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
