//! The decision where the compiled tables alone give it, which is so for nearly
//! every packet: no subscriber with an entry of their own but one that refuses,
//! no C&C entry that might cover the other end.
//!
//! It says nothing that [`crate::decide::thorough`] would not say; where it
//! cannot tell it says nothing at all.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use matcher_common::{
    abi::{AddressBytes, Counter, IpLayer, Setting, purposes, role},
    parse::{self, Family},
    table::class::Class,
};

use crate::{
    frame::LinearFrame,
    images::{Key, V4, V6},
    maps::{self, Address, Settings},
};

/// What the frame alone tells. One register, as a function of its own in the
/// kernel returns no more (Linux 6.1).
#[derive(Clone, Copy)]
pub(crate) enum Plain {
    /// The packet is plain, and this is the verdict.
    Judged(Counter),
    /// It is plain, and the exact tables must be asked.
    Closer,
    /// It is not plain: it must be parsed.
    Not,
}

impl Plain {
    #[inline(always)]
    fn judged(verdict: Option<Counter>) -> Self {
        match verdict {
            Some(reason) => Self::Judged(reason),
            None => Self::Closer,
        }
    }
}

const _: () = assert!(size_of::<Plain>() == size_of::<u32>());

/// The verdict over a packet that is plain, straight from the frame: no layer is
/// written down for it. IPv4 inside its caller, as a return costs as much as two
/// looks at a table where the kernel guards it (SRSO).
#[inline(always)]
pub(crate) fn judge_plain(context: &XdpContext, settings: &Settings, interface_role: u32) -> Plain {
    match parse::ends_v4(&LinearFrame::new(context)) {
        Some(ends) => Plain::judged(judge(ends.map(V4::new), settings, interface_role)),
        None => judge_plain_v6(context.ctx, settings, interface_role),
    }
}

/// A function of its own in the kernel, as [`judge_layer`] is: what they need of
/// the stack is free again when the exact tables are asked.
#[inline(never)]
fn judge_plain_v6(context: *mut xdp_md, settings: &Settings, interface_role: u32) -> Plain {
    let context = XdpContext::new(context);
    let Some(ends) = parse::ends_v6(&LinearFrame::new(&context)) else {
        return Plain::Not;
    };
    let ends = ends.map(AddressBytes::from_v6);
    Plain::judged(judge_v6(&ends, settings, interface_role))
}

/// The verdict over a packet of one IP layer and without a subscriber space of
/// its VLAN, or `None`.
#[inline(never)]
pub(crate) fn judge_layer(
    layer: &IpLayer,
    settings: &Settings,
    interface_role: u32,
) -> Option<Counter> {
    let ends = [layer.source, layer.destination];
    match layer.family() {
        Family::V4 => judge(ends.map(|end| V4::new(end.v4())), settings, interface_role),
        Family::V6 => judge_v6(&ends, settings, interface_role),
    }
}

#[inline(always)]
fn judge_v6(ends: &[AddressBytes; 2], settings: &Settings, interface_role: u32) -> Option<Counter> {
    if settings.get(Setting::Nat64) != 0 {
        // An end may be the IPv4 address that it carries.
        return None;
    }
    let [source, destination] = ends;
    let ends = [V6::new(source), V6::new(destination)];
    judge(ends, settings, interface_role)
}

#[inline(always)]
fn judge<K: Key>(
    [source, destination]: [K; 2],
    settings: &Settings,
    interface_role: u32,
) -> Option<Counter> {
    let classes = K::classes(settings.get(Setting::ClassGeneration))?;
    let sent = source.class(&classes);
    let received = destination.class(&classes);
    let (subscriber, remote) = match (sent, received) {
        (Class::Default, Class::Outside) if interface_role != role::CORE => (source, destination),
        (Class::Outside, Class::Default) if interface_role != role::ACCESS => (destination, source),
        _ => return without_comparison(sent, received, interface_role),
    };
    let bytes = &subscriber.bytes();
    let family = K::FAMILY;
    if maps::refused_now(settings, Address { family, bytes }) {
        return Some(Counter::OptedOut);
    }
    if settings.get(Setting::DefaultPurposes) & u64::from(purposes::DETECT) == 0 {
        return Some(Counter::OptedOut);
    }
    // Consent is known to hold; only now comes the C&C table (R1).
    if remote.is_listed_maybe(settings.get(Setting::Generation)) {
        // Counted where it is looked up for good.
        return None;
    }
    maps::count_lookup(K::FAMILY);
    Some(Counter::NoMatch)
}

/// The verdict where not just one end is a subscriber's, on a side where one may
/// be, by whom the default consent holds.
#[inline(always)]
fn without_comparison(sent: Class, received: Class, interface_role: u32) -> Option<Counter> {
    if sent == Class::Closer || received == Class::Closer {
        return None;
    }
    match interface_role {
        role::ACCESS if sent == Class::Outside => return Some(Counter::ForeignSource),
        role::CORE if sent != Class::Outside => return Some(Counter::Spoofed),
        _ => {}
    }
    if sent == Class::Refuses || received == Class::Refuses {
        return Some(Counter::OptedOut);
    }
    if sent == Class::Outside && received == Class::Outside {
        return Some(Counter::Transit);
    }
    // Two subscribers: either may be listed.
    None
}
