//! The decision over one packet: parse, then consent, then match.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_loop},
    programs::XdpContext,
};
use matcher_common::{
    abi::{Counter, MAX_RULES, Setting, purposes, role, rule_flags},
    parse::{self, IpLayer},
};

use crate::{
    emit::{self, Match},
    frame::XdpFrame,
    maps::{self, Address},
};

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
}

impl Verdict {
    /// The exit counter of the verdict.
    #[inline(always)]
    pub(crate) fn counter(self) -> Counter {
        match self {
            Self::Matched => Counter::Matched,
            Self::Unmatched(reason) => reason,
        }
    }
}

#[inline(always)]
pub(crate) fn decide(context: &XdpContext) -> Verdict {
    match compare(context) {
        Ok(()) => Verdict::Matched,
        Err(reason) => Verdict::Unmatched(reason),
    }
}

/// Emits the match, or gives the reason why there is none.
#[inline(always)]
fn compare(context: &XdpContext) -> Result<(), Counter> {
    if maps::setting(Setting::Stopped) != 0 {
        return Err(Counter::Stopped);
    }
    // SAFETY: no arguments; the helper only reads the clock.
    let boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    if boot_ns >= maps::setting(Setting::ConsentDeadline) {
        return Err(Counter::ConsentExpired);
    }
    let ifindex = context.ingress_ifindex() as u32;
    let interface = maps::interface(ifindex).ok_or(Counter::InterfaceUnknown)?;

    let parsed = parse::parse(&XdpFrame::new(context));
    if let Some(unparsed) = parsed.unparsed() {
        // Doubt favours the subscriber: what is inside may be another's.
        return Err(unparsed.counter());
    }
    let layer = parsed.ip().ok_or(Counter::NotIp)?;

    // Consent, before anything is compared with a C&C address (R1).
    let source = Address {
        family: layer.family,
        bytes: &layer.source,
    };
    let destination = Address {
        family: layer.family,
        bytes: &layer.destination,
    };
    let from_subscriber = maps::is_subscriber(source);
    match interface.role {
        role::ACCESS if !from_subscriber => return Err(Counter::ForeignSource),
        role::CORE if from_subscriber => return Err(Counter::Spoofed),
        _ => {}
    }
    let to_subscriber = maps::is_subscriber(destination);
    if !from_subscriber && !to_subscriber {
        return Err(Counter::Transit);
    }
    if (from_subscriber && !allows_detection(source))
        || (to_subscriber && !allows_detection(destination))
    {
        return Err(Counter::OptedOut);
    }

    // The other ends, outbound first. One generation for the whole packet.
    let generation = maps::setting(Setting::Generation);
    let now_ns = unix_ns(boot_ns);
    let mut outbound = true;
    let mut indicator = NONE;
    if from_subscriber {
        indicator = find(generation, now_ns, layer, Side::Destination);
    }
    if indicator == NONE && to_subscriber {
        outbound = false;
        indicator = find(generation, now_ns, layer, Side::Source);
    }
    if indicator == NONE {
        return Err(Counter::NoMatch);
    }
    emit::emit(&Match {
        layer,
        outbound,
        indicator,
        boot_ns,
        ifindex,
        generation: generation as u32,
        source_validated: interface.source_validated != 0,
    });
    Ok(())
}

#[inline(always)]
fn allows_detection(subscriber: Address<'_>) -> bool {
    maps::allowed_purposes(subscriber) & purposes::DETECT != 0
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

/// Which end of the packet is looked up.
#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

/// The id of no indicator.
const NONE: u32 = 0;

/// The indicator of the first rule that covers the address and holds for the
/// packet's protocol, port and time, or [`NONE`].
#[inline(always)]
fn find(generation: u64, now_ns: u64, layer: &IpLayer, side: Side) -> u32 {
    let remote = Address {
        family: layer.family,
        bytes: match side {
            Side::Source => &layer.source,
            Side::Destination => &layer.destination,
        },
    };
    let Some(span) = maps::rules_for(generation, remote) else {
        return NONE;
    };
    let port = match (layer.ports(), side) {
        (Some(ports), Side::Source) => u32::from(ports.source),
        (Some(ports), Side::Destination) => u32::from(ports.destination),
        (None, _) => NO_PORT,
    };
    let mut search = Search {
        generation,
        now_ns,
        first: span.first,
        indicator: NONE,
        protocol: u32::from(layer.protocol),
        port,
    };
    let rules = if span.count > MAX_RULES {
        MAX_RULES
    } else {
        span.count
    };
    // SAFETY: `try_rule` has the signature that the helper calls, and `search`
    // outlives the call.
    unsafe {
        bpf_loop(
            rules,
            try_rule as *mut c_void,
            (&raw mut search).cast::<c_void>(),
            0,
        );
    }
    search.indicator
}

/// A port that no packet carries.
const NO_PORT: u32 = u32::MAX;

/// The search for a rule that holds.
struct Search {
    generation: u64,
    now_ns: u64,
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
/// `search` is the one that [`find`] hands to the helper.
unsafe extern "C" fn try_rule(index: u32, search: *mut Search) -> i64 {
    // SAFETY: as promised by the caller; nothing else refers to it meanwhile.
    let search = unsafe { &mut *search };
    let Some(rule) = maps::rule(search.generation, search.first.wrapping_add(index)) else {
        return 1;
    };
    if rule.flags & rule_flags::PROTOCOL != 0 && u32::from(rule.protocol) != search.protocol {
        return 0;
    }
    if search.now_ns < rule.valid_from_ns || search.now_ns >= rule.valid_until_ns {
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
