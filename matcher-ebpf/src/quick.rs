//! The decision where the compiled tables alone give it, which is so for nearly
//! every packet: no subscriber with an entry of their own, no C&C entry that
//! might cover the other end.
//!
//! It says nothing that [`crate::decide::thorough`] would not say; where it
//! cannot tell it says nothing at all.

use matcher_common::{
    abi::{Counter, IpLayer, Setting, purposes, role},
    parse::Family,
    table::class::Class,
};

use crate::maps::{self, Address, Images, Settings};

/// The verdict over a packet of one IP layer and without a subscriber space of
/// its VLAN, or `None`.
#[inline(never)]
pub(crate) fn judge(layer: &IpLayer, settings: &Settings, interface_role: u32) -> Option<Counter> {
    let family = layer.family();
    if family == Family::V6 && settings.get(Setting::Nat64) != 0 {
        // An end may be the IPv4 address that it carries.
        return None;
    }
    let [source, destination] =
        [&layer.source, &layer.destination].map(|bytes| Address { family, bytes });
    let images = Images::current(settings);
    let sent = images.class(source);
    let received = images.class(destination);
    if sent == Class::Closer || received == Class::Closer {
        return None;
    }
    match interface_role {
        role::ACCESS if sent == Class::Outside => return Some(Counter::ForeignSource),
        role::CORE if sent == Class::Default => return Some(Counter::Spoofed),
        _ => {}
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
    if images.may_be_listed(remote) {
        // Counted where it is looked up for good.
        return None;
    }
    maps::count_lookup(family);
    Some(Counter::NoMatch)
}
