//! The decision over one packet: parse, then consent, then match.

use aya_ebpf::{helpers::generated::bpf_ktime_get_boot_ns, programs::XdpContext};
use matcher_common::{
    abi::{Counter, MAX_RULES, RuleSpan, Setting, purposes, role, rule_flags},
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
    // Scalars only, so that the loop can be a global function.
    first_rule(
        generation,
        u64::from(span.first) << 32 | u64::from(span.count),
        now_ns,
        u32::from(layer.protocol),
        port,
    )
}

/// A port that no packet carries.
const NO_PORT: u32 = u32::MAX;

/// The indicator of the first rule of the span that holds, or [`NONE`].
///
/// Exported, which makes it a global function: the verifier walks its loop
/// once, for any arguments (kernel 5.6), and not for every path that leads to
/// a call. That is two thirds of all it has to walk, of a million instructions
/// that it takes at most.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn first_rule(generation: u64, span: u64, now_ns: u64, protocol: u32, port: u32) -> u32 {
    let span = RuleSpan {
        first: (span >> 32) as u32,
        count: span as u32,
    };
    let mut index = 0;
    while index < MAX_RULES {
        if index >= span.count {
            return NONE;
        }
        let Some(rule) = maps::rule(generation, span.first.wrapping_add(index)) else {
            return NONE;
        };
        index += 1;
        if rule.flags & rule_flags::PROTOCOL != 0 && u32::from(rule.protocol) != protocol {
            continue;
        }
        if now_ns < rule.valid_from_ns || now_ns >= rule.valid_until_ns {
            continue;
        }
        if rule.flags & rule_flags::PORT != 0 {
            if port == NO_PORT {
                maps::count(Counter::PortUnknown);
                continue;
            }
            if u32::from(rule.port) != port {
                continue;
            }
        }
        return rule.indicator;
    }
    NONE
}
