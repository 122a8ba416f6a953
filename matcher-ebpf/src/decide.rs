//! The decision over one packet: parse, then consent, then match.

use aya_ebpf::programs::XdpContext;
use matcher_common::abi::{Counter, Setting, role};

use crate::{
    clock::{self, boot_ns},
    collate::{self, Tables},
    emit::{self, Match},
    maps::{self, Scratch},
    quick::{self, Plain},
    read, subscribers,
};

/// What became of a packet.
#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    /// It matched, and an event was emitted or counted as lost.
    Matched,
    /// It passes unmatched, for the reason that the counter in this slot names.
    Unmatched(u32),
}

impl Verdict {
    /// Slot of the exit counter of the verdict.
    #[inline(always)]
    pub(crate) fn slot(self) -> u32 {
        match self {
            Self::Matched => Counter::Matched as u32,
            Self::Unmatched(slot) => slot,
        }
    }

    #[inline(always)]
    fn of_slot(slot: u32) -> Self {
        if slot == Counter::Matched as u32 {
            Self::Matched
        } else {
            Self::Unmatched(slot)
        }
    }
}

/// The reason as a verdict.
#[inline(always)]
fn unmatched(reason: Counter) -> Verdict {
    Verdict::Unmatched(reason as u32)
}

/// Emits the match, or gives the reason why there is none.
#[inline(always)]
pub(crate) fn decide(context: &XdpContext) -> Verdict {
    let (Some(settings), Some(scratch)) = (maps::settings(), maps::scratch()) else {
        // Cannot be: the arrays have the slots.
        return unmatched(Counter::Stopped);
    };
    if settings.get(Setting::Stopped) != 0 {
        return unmatched(Counter::Stopped);
    }
    if scratch.clock.coarse_boot_ns() >= settings.get(Setting::ConsentDeadline) {
        return unmatched(Counter::ConsentExpired);
    }
    let ifindex = context.ingress_ifindex() as u32;
    let Some(interface) = maps::interface(ifindex) else {
        return unmatched(Counter::InterfaceUnknown);
    };
    let plain = match quick::judge_plain(context, settings, interface.role) {
        Plain::Judged(reason) => return unmatched(reason),
        Plain::Closer => true,
        Plain::Not => false,
    };

    scratch.ifindex = ifindex;
    read::packet(context, &mut scratch.parsing);
    let unparsed = scratch.parsing.packet.unparsed;
    if unparsed != 0 {
        // Doubt favours the subscriber: what is inside may be another's.
        return Verdict::Unmatched(unparsed - 1);
    }
    scratch.space = maps::space(scratch.parsing.packet.vlan_ids);
    // A plain packet was judged already, and nothing came of it.
    if !plain && scratch.space == 0 && scratch.parsing.packet.layer_count == 1 {
        let [layer, ..] = &scratch.parsing.packet.layers;
        if let Some(reason) = quick::judge_layer(layer, settings, interface.role) {
            return unmatched(reason);
        }
    }
    scratch.interface = interface;
    Verdict::of_slot(thorough(scratch))
}

/// Asks the exact tables about a packet that is parsed; the slot of the
/// verdict.
///
/// A function of its own in the kernel, so that the packets that do not need it
/// do not run around it.
#[inline(never)]
pub(crate) fn thorough(scratch: &mut Scratch) -> u32 {
    let Some(settings) = maps::settings() else {
        return Counter::Stopped as u32;
    };
    // Consent, before anything is compared with a C&C address (R1).
    subscribers::find(scratch, scratch.space);
    let found = &scratch.subscribers;
    match scratch.interface.role {
        role::ACCESS if found.sources == 0 => return Counter::ForeignSource as u32,
        role::CORE if found.sources != 0 => return Counter::Spoofed as u32,
        _ => {}
    }
    if found.sources | found.destinations == 0 {
        return Counter::Transit as u32;
    }
    if found.refused != 0 {
        return Counter::OptedOut as u32;
    }
    if found.shared != 0 {
        return Counter::SharedAddress as u32;
    }

    let generation = settings.get(Setting::Generation);
    let boot_ns = boot_ns();
    let tables = Tables {
        generation,
        now_ns: clock::unix_ns(settings, boot_ns),
    };
    if !collate::collate(scratch, tables) {
        return Counter::NoMatch as u32;
    }
    emit::emit(&Match {
        packet: &scratch.parsing.packet,
        found: &scratch.found,
        boot_ns,
        ifindex: scratch.ifindex,
        space: scratch.space,
        generation: generation as u32,
        source_validated: scratch.interface.source_validated != 0,
    });
    Counter::Matched as u32
}
