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
    images::{Images, Listed},
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
/// written down for it. A function of its own in the kernel, as [`judge_layer`]
/// is: what they need of the stack is free again when the exact tables are
/// asked.
#[inline(never)]
pub(crate) fn judge_plain(context: *mut xdp_md, settings: &Settings, interface_role: u32) -> Plain {
    let context = XdpContext::new(context);
    let frame = LinearFrame::new(&context);
    if let Some(ends) = parse::ends_v4(&frame) {
        let ends = ends.map(AddressBytes::from_v4);
        return Plain::judged(judge(Family::V4, &ends, settings, interface_role));
    }
    let Some(ends) = parse::ends_v6(&frame) else {
        return Plain::Not;
    };
    let ends = ends.map(AddressBytes::from_v6);
    Plain::judged(judge(Family::V6, &ends, settings, interface_role))
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
    judge(layer.family(), &ends, settings, interface_role)
}

#[inline(always)]
fn judge(
    family: Family,
    ends: &[AddressBytes; 2],
    settings: &Settings,
    interface_role: u32,
) -> Option<Counter> {
    if family == Family::V6 && settings.get(Setting::Nat64) != 0 {
        // An end may be the IPv4 address that it carries.
        return None;
    }
    let [source, destination] = ends;
    let [source, destination] = [source, destination].map(|bytes| Address { family, bytes });
    let images = Images::current(settings);
    let sent = images.class(source);
    let received = images.class(destination);
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
    let (subscriber, remote) = match (sent, received) {
        (Class::Outside, Class::Outside) => return Some(Counter::Transit),
        (Class::Default, Class::Outside) => (source, destination),
        (Class::Outside, Class::Default) => (destination, source),
        // Two subscribers: either may be listed.
        _ => return None,
    };
    if maps::refused_now(settings, subscriber) {
        return Some(Counter::OptedOut);
    }
    if settings.get(Setting::DefaultPurposes) & u64::from(purposes::DETECT) == 0 {
        return Some(Counter::OptedOut);
    }
    // Consent is known to hold; only now comes the C&C table (R1).
    let Listed::No = images.listed(remote) else {
        // Counted where it is looked up for good.
        return None;
    };
    maps::count_lookup(family);
    Some(Counter::NoMatch)
}
