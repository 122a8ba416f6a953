//! Whose packet it is, and what they allow.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use matcher_common::{
    abi::{AddressBytes, ConsentEntry, IpLayer, MAX_LAYERS, PortRange, Setting, purposes},
    parse::Family,
    table::class::Class,
};

use crate::{
    images,
    maps::{self, Address, Scratch},
};

/// One end of a layer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Destination,
}

/// What the layers say of subscribers, a bit for each layer.
#[repr(C)]
pub(crate) struct Subscribers {
    /// The source is one.
    pub(crate) sources: u32,
    /// The destination is one.
    pub(crate) destinations: u32,
    /// Not 0: one of them refuses detection.
    pub(crate) refused: u32,
    /// Not 0: someone who shares the address refuses it, and which of them it
    /// is cannot be known without a port.
    pub(crate) shared: u32,
}

/// Looks at every end of every layer (design decision 1), and notes in
/// `scratch.subscribers` what it found.
#[inline(always)]
pub(crate) fn find(scratch: &mut Scratch, space: u32) {
    scratch.class_generation = maps::setting(Setting::ClassGeneration);
    scratch.subscribers = Subscribers {
        sources: 0,
        destinations: 0,
        refused: 0,
        shared: 0,
    };
    let layers = scratch.parsing.packet.layer_count;
    let mut search = Search { scratch, space };
    // SAFETY: `next_layer` has the signature that the helper calls, and
    // `search` outlives the call.
    unsafe {
        bpf_loop(
            layers,
            next_layer as *mut c_void,
            (&raw mut search).cast::<c_void>(),
            0,
        );
    }
}

struct Search<'a> {
    scratch: &'a mut Scratch,
    space: u32,
}

/// One layer. A callback of `bpf_loop`.
///
/// # Safety
///
/// `search` is the one that [`find`] hands to the helper.
unsafe extern "C" fn next_layer(index: u32, search: *mut Search<'_>) -> i64 {
    // SAFETY: as promised by the caller; nothing else refers to it meanwhile.
    let search = unsafe { &mut *search };
    look_at(search.scratch, index & LAYER_MASK, search.space);
    0
}

/// Every index of a layer, and no bit more: [`MAX_LAYERS`] is a power of two.
pub(crate) const LAYER_MASK: u32 = MAX_LAYERS as u32 - 1;

#[inline(always)]
fn look_at(scratch: &mut Scratch, index: u32, space: u32) {
    if look_at_end(scratch, index, Side::Source, space) {
        scratch.subscribers.sources |= 1 << index;
    }
    if look_at_end(scratch, index, Side::Destination, space) {
        scratch.subscribers.destinations |= 1 << index;
    }
}

/// What the tables say of one end.
enum Standing {
    /// No subscriber.
    Outside,
    /// A subscriber who allows detection.
    Allows,
    /// One who does not.
    Refuses,
    /// Someone who shares the address does not, and who it is cannot be known.
    Unknown,
}

/// Whether that end is a subscriber; notes what stands against detection.
#[expect(
    clippy::indexing_slicing,
    reason = "the index is one of a layer: callers mask it, or it is 0"
)]
#[inline(always)]
fn look_at_end(scratch: &mut Scratch, index: u32, side: Side, space: u32) -> bool {
    let layer = &scratch.parsing.packet.layers[index as usize];
    let address = end(layer, side, &mut scratch.carried);
    let port = match layer.ports() {
        Some(ports) if side == Side::Source => Some(ports.source),
        Some(ports) => Some(ports.destination),
        None => None,
    };
    match standing(scratch.class_generation, space, address, port) {
        Standing::Outside => return false,
        Standing::Allows => {}
        Standing::Refuses => scratch.subscribers.refused = 1,
        Standing::Unknown => scratch.subscribers.shared = 1,
    }
    true
}

#[inline(always)]
fn standing(
    class_generation: u64,
    space: u32,
    address: Address<'_>,
    port: Option<u16>,
) -> Standing {
    // The images are of the space without a VLAN.
    let class = if space == 0 {
        images::class(class_generation, address)
    } else {
        Class::Closer
    };
    if class == Class::Outside || class == Class::Closer && !maps::is_subscriber(space, address) {
        return Standing::Outside;
    }
    if class == Class::Refuses {
        return Standing::Refuses;
    }
    let Some(settings) = maps::settings() else {
        // Cannot be; doubt favours the subscriber.
        return Standing::Refuses;
    };
    if maps::refused_now(settings, address) {
        return Standing::Refuses;
    }
    let entry = match class {
        Class::Closer => maps::consent(space, address),
        Class::Outside | Class::Default | Class::Refuses => None,
    };
    let allows = |purposes: u32| purposes & purposes::DETECT != 0;
    match entry {
        // Nobody's entry covers it: what holds for everybody does.
        None if allows(settings.get(Setting::DefaultPurposes) as u32) => Standing::Allows,
        None => Standing::Refuses,
        Some(entry) if allows(allowed(&entry, port)) => Standing::Allows,
        Some(entry) if port.is_none() && allows(entry.allowed) => Standing::Unknown,
        Some(_) => Standing::Refuses,
    }
}

/// An end of a layer, as tables know it: an address of a NAT64 prefix is the
/// IPv4 address that it carries (RFC 6052), which goes into `carried`.
#[expect(
    clippy::indexing_slicing,
    reason = "masked to the 16 bytes of an address"
)]
#[inline(always)]
pub(crate) fn end<'a>(
    layer: &'a IpLayer,
    side: Side,
    carried: &'a mut AddressBytes,
) -> Address<'a> {
    let bytes = match side {
        Side::Source => &layer.source,
        Side::Destination => &layer.destination,
    };
    let family = layer.family();
    if family == Family::V6
        && let Some(places) = maps::nat64(bytes)
    {
        let octets = bytes.octets();
        *carried = AddressBytes::from_v4(places.map(|place| octets[usize::from(place & 15)]));
        return Address {
            family: Family::V4,
            bytes: carried,
        };
    }
    Address { family, bytes }
}

/// What an entry says of a port.
#[inline(always)]
fn allowed(entry: &ConsentEntry, port: Option<u16>) -> u32 {
    if entry.count == 0 {
        return entry.allowed;
    }
    let Some(port) = port else {
        return entry.portless;
    };
    let mut search = PortSearch {
        first: entry.first,
        end: entry.first.wrapping_add(entry.count),
        port: u32::from(port),
        allowed: entry.allowed,
    };
    // SAFETY: `halve` has the signature that the helper calls, and `search`
    // outlives the call.
    unsafe {
        bpf_loop(
            HALVINGS,
            halve as *mut c_void,
            (&raw mut search).cast::<c_void>(),
            0,
        );
    }
    search.allowed
}

/// Halvings that leave nothing of [`MAX_PORT_RANGES`](matcher_common::abi::MAX_PORT_RANGES).
const HALVINGS: u32 = 16;

/// A binary search in ranges `first .. end`.
struct PortSearch {
    first: u32,
    end: u32,
    port: u32,
    /// The result.
    allowed: u32,
}

/// Halves what is left; 1 ends the search. A callback of `bpf_loop`.
///
/// # Safety
///
/// `search` is the one that [`allowed`] hands to the helper.
unsafe extern "C" fn halve(_index: u32, search: *mut PortSearch) -> i64 {
    // SAFETY: as promised by the caller; nothing else refers to it meanwhile.
    let search = unsafe { &mut *search };
    if search.first >= search.end {
        return 1;
    }
    let middle = search.first + (search.end - search.first) / 2;
    let Some(PortRange {
        first,
        last,
        allowed,
    }) = maps::port_range(middle)
    else {
        // Cannot be; doubt favours the subscriber.
        search.allowed = 0;
        return 1;
    };
    if search.port < u32::from(first) {
        search.end = middle;
        0
    } else if search.port > u32::from(last) {
        search.first = middle + 1;
        0
    } else {
        search.allowed = allowed;
        1
    }
}
