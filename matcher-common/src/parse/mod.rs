//! The packet parser: every IP layer of a packet, from the Ethernet header
//! on, through VLAN tags, PPPoE, MPLS and tunnels, and the ports above each.
//!
//! Generic over [`Frame`], so the same code runs in the kernel (where each
//! read is a bounds check that the verifier follows) and on the host. It goes
//! from header to header: [`step`] reads one, and a [`Cursor`] says which one
//! is next. [`parse_plain`] reads a plain packet in one go, and [`ends_v4`] and
//! [`ends_v6`] only tell its ends. Nothing beyond the headers is read (R3).

mod cursor;
mod frame;
mod ip;
mod link;
mod plain;
mod tunnel;
mod upper;

pub use cursor::{Cursor, MAX_OFFSET};
pub use frame::Frame;
pub use link::{MAX_MPLS_LABELS, MAX_VLAN_TAGS};
pub use plain::{ends_v4, ends_v6};
pub use upper::{MAX_EXTENSION_HEADERS, protocol};

use cursor::header;

use crate::abi::{Counter, IpLayer, MAX_LAYERS, Packet};

/// Headers that are read of one packet, whatever they are.
pub const MAX_HEADERS: u32 = 64;

/// A packet being parsed, in one piece of memory.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Parsing {
    /// What was seen so far.
    pub packet: Packet,
    /// Where the parser stands.
    pub cursor: Cursor,
}

/// IP version of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4, RFC 791.
    V4,
    /// IPv6, RFC 8200.
    V6,
}

/// Source and destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Port of the sender.
    pub source: u16,
    /// Port of the receiver.
    pub destination: u16,
}

/// Why a packet was not parsed to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unparsed {
    /// No IP above Ethernet.
    NotIp,
    /// IEEE 802.3 with LLC or SNAP.
    Llc,
    /// The frame ends inside an Ethernet header or a VLAN tag.
    TruncatedLink,
    /// More than [`MAX_VLAN_TAGS`] VLAN tags.
    VlanDepth,
    /// A PPPoE session header (RFC 2516) that is cut off or cannot be.
    Pppoe,
    /// PPP without IP (RFC 1661).
    Ppp,
    /// MPLS (RFC 3032) that does not lead to IP.
    Mpls,
    /// The packet ends inside the IP header.
    TruncatedIp,
    /// Version, header length or total length that cannot be.
    MalformedIp,
    /// Extension headers cut off, in a later fragment (where they cannot be
    /// followed), or more than [`MAX_EXTENSION_HEADERS`].
    ExtensionHeaders,
    /// A tunnel of a kind, or with contents, that cannot be read.
    Tunnel,
    /// The packet ends inside the header of a tunnel.
    TruncatedTunnel,
    /// A later fragment of a tunnel's packet.
    TunnelFragment,
    /// More than [`MAX_LAYERS`] IP layers or [`MAX_HEADERS`] headers.
    TooDeep,
}

impl Unparsed {
    /// The counter that a packet left for this reason bumps.
    pub const fn counter(self) -> Counter {
        match self {
            Self::NotIp => Counter::NotIp,
            Self::Llc => Counter::Llc,
            Self::TruncatedLink => Counter::TruncatedLink,
            Self::VlanDepth => Counter::VlanDepth,
            Self::Pppoe => Counter::Pppoe,
            Self::Ppp => Counter::Ppp,
            Self::Mpls => Counter::Mpls,
            Self::TruncatedIp => Counter::TruncatedIp,
            Self::MalformedIp => Counter::MalformedIp,
            Self::ExtensionHeaders => Counter::ExtensionHeaders,
            Self::Tunnel => Counter::Tunnel,
            Self::TruncatedTunnel => Counter::TruncatedTunnel,
            Self::TunnelFragment => Counter::TunnelFragment,
            Self::TooDeep => Counter::TooDeep,
        }
    }
}

/// Parses a frame from its Ethernet header on.
pub fn parse<F: Frame + ?Sized>(frame: &F) -> Packet {
    let mut packet = Packet::default();
    let mut cursor = Cursor::start();
    let mut outcome = Err(Unparsed::TooDeep);
    for _ in 0..MAX_HEADERS {
        match step(frame, &mut cursor, &mut packet) {
            Ok(()) if cursor.is_done() => outcome = Ok(()),
            Ok(()) => continue,
            Err(unparsed) => outcome = Err(unparsed),
        }
        break;
    }
    packet.set_outcome(outcome);
    packet
}

/// Reads a packet that is plain: Ethernet, one IP header, and perhaps ports.
/// Nearly every packet is, and this is [`step`] for it without asking what
/// comes next. False for every other packet, which is then to be read from the
/// start.
#[inline(always)]
pub fn parse_plain<F: Frame + ?Sized>(frame: &F, packet: &mut Packet) -> bool {
    packet.clear();
    let mut cursor = Cursor::start();
    if link::ethernet(frame, &mut cursor).is_err() {
        return false;
    }
    let network = match cursor.next {
        header::IPV4 => ip::ipv4(frame, &mut cursor, packet),
        header::IPV6 => ip::ipv6(frame, &mut cursor, packet),
        _ => return false,
    };
    network.is_ok()
        && upper::upper(frame, &mut cursor, packet).is_ok()
        && cursor.is_done()
        // Ports that this frame does not show may lie where the whole one does.
        && !upper::misses_ports(&cursor, packet)
}

/// Reads one header, and moves the cursor behind it. To be called until
/// [`Cursor::is_done`], at most [`MAX_HEADERS`] times.
///
/// # Errors
/// Why the packet cannot be parsed to its end.
#[inline(always)]
pub fn step<F: Frame + ?Sized>(
    frame: &F,
    cursor: &mut Cursor,
    packet: &mut Packet,
) -> Result<(), Unparsed> {
    match cursor.next {
        header::ETHERNET => link::ethernet(frame, cursor),
        header::VLAN => link::vlan(frame, cursor, packet),
        header::PPPOE => link::pppoe(frame, cursor),
        header::PPP => link::ppp(frame, cursor),
        header::MPLS => link::mpls(frame, cursor),
        header::IPV4 => ip::ipv4(frame, cursor, packet),
        header::IPV6 => ip::ipv6(frame, cursor, packet),
        header::UPPER => upper::upper(frame, cursor, packet),
        header::GRE => tunnel::gre(frame, cursor),
        header::ETHERIP => tunnel::etherip(frame, cursor),
        header::L2TP => tunnel::l2tp(frame, cursor),
        header::VXLAN => tunnel::vxlan(frame, cursor),
        header::GENEVE => tunnel::geneve(frame, cursor),
        header::GTP_U => tunnel::gtp_u(frame, cursor),
        header::GTP_U_EXTENSION => tunnel::gtp_u_extension(frame, cursor),
        header::PIM => tunnel::pim(frame, cursor),
        _ => {
            cursor.next = header::DONE;
            Ok(())
        }
    }
}

impl Packet {
    /// Forgets the packet before. Layers behind the count have no meaning, and
    /// are left alone.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.layer_count = 0;
        self.unparsed = 0;
        self.vlan_ids = [0; 2];
        self.vlan_tags = 0;
        self.reserved = [0; 3];
    }

    /// Notes why parsing ended early, if it did.
    #[inline(always)]
    pub fn set_outcome(&mut self, outcome: Result<(), Unparsed>) {
        self.unparsed = match outcome {
            Ok(()) => 0,
            Err(unparsed) => unparsed.counter() as u32 + 1,
        };
    }

    /// The IP layers, outermost first.
    pub fn layers(&self) -> &[IpLayer] {
        self.layers
            .get(..self.layer_count as usize)
            .unwrap_or(&self.layers)
    }

    /// Why parsing ended early, if it did. With IP layers beside it, the packet
    /// holds something inside that cannot be read, and whose packet it is
    /// cannot be known for sure.
    pub fn unparsed(&self) -> Option<Counter> {
        Counter::ALL
            .get(self.unparsed.checked_sub(1)? as usize)
            .copied()
    }

    /// Adds a layer, whole.
    #[inline(always)]
    fn push(&mut self, layer: IpLayer) -> Result<(), Unparsed> {
        let count = self.layer_count as usize;
        let Some(place) = self.layers.get_mut(count) else {
            return Err(Unparsed::TooDeep);
        };
        *place = layer;
        self.layer_count = count as u32 + 1;
        Ok(())
    }

    /// The innermost layer so far.
    #[inline(always)]
    fn innermost(&mut self) -> Option<&mut IpLayer> {
        self.layers
            .get_mut((self.layer_count as usize).wrapping_sub(1))
    }
}

impl IpLayer {
    /// The IP version.
    #[inline(always)]
    pub fn family(&self) -> Family {
        if self.ip_version == 4 {
            Family::V4
        } else {
            Family::V6
        }
    }

    /// The ports: `None` for protocols without ports, later fragments, and
    /// transport headers that are cut off before their ports.
    #[inline(always)]
    pub fn ports(&self) -> Option<Ports> {
        (self.has_ports != 0).then_some(Ports {
            source: self.source_port,
            destination: self.destination_port,
        })
    }
}

const _: () = assert!(MAX_LAYERS.is_power_of_two());

#[cfg(test)]
mod tests;
