//! A match becomes an event in the ring buffer, or is counted as lost.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use matcher_common::{
    abi::{Counter, HitEvent, hit_flags},
    parse::{Family, IpLayer},
};

use crate::maps;

/// A packet between a consenting subscriber and a C&C address.
pub(crate) struct Match<'a> {
    pub(crate) layer: &'a IpLayer,
    pub(crate) outbound: bool,
    pub(crate) indicator: u32,
    pub(crate) boot_ns: u64,
    pub(crate) ifindex: u32,
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
    entry.write(event(found, sequence));
    entry.submit(0);
    maps::count(Counter::Delivered);
}

#[inline(always)]
fn event(found: &Match<'_>, sequence: u64) -> HitEvent {
    let layer = found.layer;
    let mut flags = 0;
    if found.outbound {
        flags |= hit_flags::OUTBOUND;
    }
    if matches!(layer.family, Family::V6) {
        flags |= hit_flags::IPV6;
    }
    if found.source_validated {
        flags |= hit_flags::SOURCE_VALIDATED;
    }
    let (mut source_port, mut destination_port) = (0, 0);
    if let Some(ports) = layer.ports() {
        flags |= hit_flags::PORTS;
        source_port = ports.source;
        destination_port = ports.destination;
    }
    let mut event = HitEvent {
        sequence,
        boot_ns: found.boot_ns,
        subscriber: layer.source,
        remote: layer.destination,
        indicator: found.indicator,
        ifindex: found.ifindex,
        generation: found.generation,
        packets: 1,
        subscriber_port: source_port,
        remote_port: destination_port,
        protocol: layer.protocol,
        flags,
        // SAFETY: no arguments; the helper only tells which CPU this is.
        cpu: unsafe { bpf_get_smp_processor_id() } as u16,
    };
    if !found.outbound {
        event.subscriber = layer.destination;
        event.remote = layer.source;
        event.subscriber_port = destination_port;
        event.remote_port = source_port;
    }
    event
}
