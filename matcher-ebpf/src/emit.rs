//! A match becomes an event in the ring buffer, or is counted as lost.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use matcher_common::{
    abi::{Counter, HitEvent, hit_flags},
    parse::{Family, IpLayer},
};

use crate::maps;

/// A packet between a consenting subscriber and a C&C address.
pub(crate) struct Match {
    pub(crate) layer: IpLayer,
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
pub(crate) fn emit(found: &Match) {
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
fn event(found: &Match, sequence: u64) -> HitEvent {
    let layer = &found.layer;
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
    let (source_port, destination_port) = match layer.ports {
        Some(ports) => {
            flags |= hit_flags::PORTS;
            (ports.source, ports.destination)
        }
        None => (0, 0),
    };
    let (subscriber, remote, subscriber_port, remote_port) = if found.outbound {
        (
            layer.source,
            layer.destination,
            source_port,
            destination_port,
        )
    } else {
        (
            layer.destination,
            layer.source,
            destination_port,
            source_port,
        )
    };
    HitEvent {
        sequence,
        boot_ns: found.boot_ns,
        subscriber,
        remote,
        indicator: found.indicator,
        ifindex: found.ifindex,
        generation: found.generation,
        packets: 1,
        subscriber_port,
        remote_port,
        protocol: layer.protocol,
        flags,
        // SAFETY: no arguments; the helper only tells which CPU this is.
        cpu: unsafe { bpf_get_smp_processor_id() } as u16,
    }
}
