//! The decision over one packet: parse, then consent, then match.

use aya_ebpf::{helpers::generated::bpf_ktime_get_boot_ns, programs::XdpContext};
use matcher_common::abi::{Counter, Setting, role};

use crate::{
    collate::{self, Tables},
    emit::{self, Match},
    maps, read, subscribers,
};

use Verdict::{Matched, Unmatched, Unparsed};

/// Set by `matcher replay` when it loads the program: the packet's own time
/// is the clock then. Never set in a program that is attached.
#[unsafe(no_mangle)]
static REPLAY: u8 = 0;

/// What became of a packet.
#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    /// It matched, and an event was emitted or counted as lost.
    Matched,
    /// It passes unmatched, for the reason that the counter names.
    Unmatched(Counter),
    /// It passes unmatched, because it could not be parsed to its end: the slot
    /// of the counter that says why.
    Unparsed(u32),
}

impl Verdict {
    /// Slot of the exit counter of the verdict.
    #[inline(always)]
    pub(crate) fn slot(self) -> u32 {
        match self {
            Matched => Counter::Matched as u32,
            Unmatched(reason) => reason as u32,
            Unparsed(slot) => slot,
        }
    }
}

/// Emits the match, or gives the reason why there is none.
#[inline(always)]
pub(crate) fn decide(context: &XdpContext) -> Verdict {
    if maps::setting(Setting::Stopped) != 0 {
        return Unmatched(Counter::Stopped);
    }
    // SAFETY: no arguments; the helper only reads the clock.
    let boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    if boot_ns >= maps::setting(Setting::ConsentDeadline) {
        return Unmatched(Counter::ConsentExpired);
    }
    let ifindex = context.ingress_ifindex() as u32;
    let Some(interface) = maps::interface(ifindex) else {
        return Unmatched(Counter::InterfaceUnknown);
    };

    let Some(scratch) = maps::scratch() else {
        // Cannot be: the array has the slot.
        return Unmatched(Counter::TooDeep);
    };
    read::packet(context, &mut scratch.parsing);
    let unparsed = scratch.parsing.packet.unparsed;
    if unparsed != 0 {
        // Doubt favours the subscriber: what is inside may be another's.
        return Unparsed(unparsed - 1);
    }
    let space = maps::space(scratch.parsing.packet.vlan_ids);

    // Consent, before anything is compared with a C&C address (R1).
    subscribers::find(scratch, space);
    let found = &scratch.subscribers;
    match interface.role {
        role::ACCESS if found.sources == 0 => return Unmatched(Counter::ForeignSource),
        role::CORE if found.sources != 0 => return Unmatched(Counter::Spoofed),
        _ => {}
    }
    if found.sources | found.destinations == 0 {
        return Unmatched(Counter::Transit);
    }
    if found.refused != 0 {
        return Unmatched(Counter::OptedOut);
    }
    if found.shared != 0 {
        return Unmatched(Counter::SharedAddress);
    }

    let generation = maps::setting(Setting::Generation);
    let tables = Tables {
        generation,
        now_ns: unix_ns(boot_ns),
    };
    if !collate::collate(scratch, tables) {
        return Unmatched(Counter::NoMatch);
    }
    emit::emit(&Match {
        packet: &scratch.parsing.packet,
        found: &scratch.found,
        boot_ns,
        ifindex,
        space,
        generation: generation as u32,
        source_validated: interface.source_validated != 0,
    });
    Matched
}

/// Unix time in nanoseconds.
#[inline(always)]
fn unix_ns(boot_ns: u64) -> u64 {
    // SAFETY: a constant of the object file, volatile because the loader
    // patches it.
    if unsafe { core::ptr::read_volatile(&raw const REPLAY) } != 0 {
        maps::setting(Setting::ReplayNow)
    } else {
        boot_ns.wrapping_add(maps::setting(Setting::WallOffset))
    }
}
