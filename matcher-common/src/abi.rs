//! The border between kernel and agent.
//!
//! Everything here is laid out in C order without padding (zerocopy's derives
//! reject padding at compile time, on the BPF target too), in host byte order
//! except addresses, which stay in network order as byte arrays. A change
//! here needs a new [`ABI_VERSION`]; `cargo xtask tidy` holds the two against
//! each other.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of everything in this module. The kernel program carries it, the
/// pinned state records it, and the agent refuses to work with another one.
pub const ABI_VERSION: u32 = 4;

/// An IPv4 (first four bytes, rest zero) or IPv6 address in network order.
///
/// Kept in words, so that the kernel program moves it in words and not byte by
/// byte: that alone halves the time to parse a packet.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct AddressBytes([u64; 2]);

impl AddressBytes {
    /// An IPv4 address.
    #[inline(always)]
    pub const fn from_v4([a, b, c, d]: [u8; 4]) -> Self {
        Self([u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]), 0])
    }

    /// An IPv6 address.
    #[inline(always)]
    pub const fn from_v6(bytes: [u8; 16]) -> Self {
        zerocopy::transmute!(bytes)
    }

    /// All bytes.
    #[inline(always)]
    pub const fn octets(&self) -> [u8; 16] {
        zerocopy::transmute!(self.0)
    }

    /// The first and the last eight bytes, as numbers.
    #[inline(always)]
    pub const fn halves(&self) -> (u64, u64) {
        (u64::from_be(self.0[0]), u64::from_be(self.0[1]))
    }

    /// Those of an IPv4 address.
    #[inline(always)]
    pub const fn v4(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.0[0].to_ne_bytes();
        [a, b, c, d]
    }
}

/// A matching packet, as the kernel writes it into the ring buffer: addresses,
/// ports, protocol, time, and nothing else of the traffic (R3).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct HitEvent {
    /// Counts the events of one CPU since the maps were made, those that had no
    /// room included: a gap is a lost hit.
    pub sequence: u64,
    /// `bpf_ktime_get_boot_ns` when the program saw the packet; of a summary,
    /// when it saw the last one.
    pub boot_ns: u64,
    /// Table generation the packet was decided by; 0 in a summary.
    pub generation: u32,
    /// Packets this event stands for.
    pub packets: u32,
    /// CPU that saw the packet; [`HitEvent::sequence`] counts per CPU.
    pub cpu: u16,
    /// Zero.
    pub reserved: [u8; 6],
    /// Whose packet it is, and what matched.
    pub flow: Flow,
}

/// All that a record says of a packet but for the time: packets of which all of
/// it is the same are folded into one event (design decision 7).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Flow {
    /// The address that the subscriber is known by: [`Flow::local`] when it
    /// lies in the subscriber space, else that of the nearest layer around it
    /// that does.
    pub subscriber: AddressBytes,
    /// The subscriber's end of the layer that matched.
    pub local: AddressBytes,
    /// The other end of the layer that matched, as it stands on the wire.
    pub remote: AddressBytes,
    /// Sender of the layer around the one that matched: the one that names the
    /// subscriber if that is not the matching layer itself, else the nearest.
    /// Zero without [`hit_flags::OUTER`].
    pub outer_source: AddressBytes,
    /// Receiver of that layer.
    pub outer_destination: AddressBytes,
    /// Id of the indicator, never 0.
    pub indicator: u32,
    /// Interface the packet came in on.
    pub ifindex: u32,
    /// Subscriber space of the packet's VLAN; 0 for the one without a VLAN.
    pub space: u32,
    /// Port on the subscriber's side; meaningless without [`hit_flags::PORTS`].
    pub local_port: u16,
    /// Port on the other side; meaningless without [`hit_flags::PORTS`].
    pub remote_port: u16,
    /// [`hit_flags`].
    pub flags: u16,
    /// VLAN ids, outermost first; 0 where there is no tag.
    pub vlan_ids: [u16; 2],
    /// IP protocol number above the layer that matched.
    pub protocol: u8,
    /// The [`Tunnel`] that the layer that matched was found in, or 0.
    pub tunnel: u8,
    /// The IPv4 address that [`Flow::remote`] carries, with
    /// [`hit_flags::NAT64`].
    pub nat64: [u8; 4],
    /// Zero.
    pub reserved: [u8; 4],
}

/// What is kept of a flow whose first packet became an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Fold {
    /// Boot time of that packet.
    pub started_ns: u64,
    /// Boot time of the last packet.
    pub last_ns: u64,
    /// Packets since the event.
    pub folded: u64,
}

/// Key of a [`Bound`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct BoundKey {
    /// As [`Flow::subscriber`].
    pub subscriber: AddressBytes,
    /// As [`Flow::space`].
    pub space: u32,
    /// As [`Flow::indicator`].
    pub indicator: u32,
    /// 0 for the events of the window; [`BEYOND_BOUND`] and the packets' own
    /// [`hit_flags`] for packets beyond the bound: those that came from
    /// where a source can be forged are never counted with others.
    pub lane: u32,
    /// Zero.
    pub reserved: u32,
}

/// The indicator of canaries, which no feed lists. Their hits are neither folded
/// nor bounded: each is awaited.
pub const CANARY_INDICATOR: u32 = u32::MAX;

/// Bit of [`BoundKey::lane`].
pub const BEYOND_BOUND: u32 = 1 << 16;

/// Between one subscriber and one indicator, over all flows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Bound {
    /// Events in this window, or packets beyond the bound.
    pub count: u64,
    /// Boot time of the last of them.
    pub last_ns: u64,
    /// The flow of the first of them.
    pub flow: Flow,
}

/// Bits of [`Flow::flags`].
pub mod hit_flags {
    /// The subscriber sent the packet.
    pub const OUTBOUND: u16 = 1;
    /// Addresses of the layer that matched are IPv6.
    pub const IPV6: u16 = 1 << 1;
    /// The packet carries ports.
    pub const PORTS: u16 = 1 << 2;
    /// It came in where a subscriber's address cannot be forged (decision 8).
    pub const SOURCE_VALIDATED: u16 = 1 << 3;
    /// The layer that matched lies in a tunnel, and the outer addresses are
    /// there.
    pub const OUTER: u16 = 1 << 4;
    /// The outer addresses are IPv6.
    pub const OUTER_IPV6: u16 = 1 << 5;
    /// The subscriber is known by the outer layer, and not by the port.
    pub const SUBSCRIBER_OUTER: u16 = 1 << 6;
    /// The other end was looked up as the IPv4 address that it carries (NAT64,
    /// RFC 6052).
    pub const NAT64: u16 = 1 << 7;
    /// A summary of packets of several flows between the subscriber and the
    /// indicator: the addresses are those of the first, without ports, and who
    /// began them is not known. Never set in the kernel.
    pub const SEVERAL_FLOWS: u16 = 1 << 8;
}

macro_rules! tunnels {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)+) => {
        /// What carries an IP layer inside another one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Tunnel {
            $($(#[$doc])* $name = $number,)+
        }

        impl Tunnel {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The name in a hit's JSON line.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// The kind that a number of the ABI stands for; 0 is none.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

tunnels! {
    /// IPv4 in IPv4, RFC 2003.
    Ip4In4 = 1, "4in4";
    /// IPv4 in IPv6: DS-Lite (RFC 6333), MAP-E (RFC 7597), RFC 2473.
    Ip4In6 = 2, "4in6";
    /// IPv6 in IPv4, RFC 4213.
    Ip6In4 = 3, "6in4";
    /// IPv6 in IPv6, RFC 2473.
    Ip6In6 = 4, "6in6";
    /// GRE, RFC 2784 and RFC 2890.
    Gre = 5, "gre";
    /// Enhanced GRE with PPP, RFC 2637.
    Pptp = 6, "pptp";
    /// Ethernet in IP, RFC 3378.
    EtherIp = 7, "etherip";
    /// L2TPv2 with PPP, RFC 2661.
    L2tp = 8, "l2tp";
    /// VXLAN, RFC 7348.
    Vxlan = 9, "vxlan";
    /// Geneve, RFC 8926.
    Geneve = 10, "geneve";
    /// GTP-U, 3GPP TS 29.281.
    GtpU = 11, "gtp-u";
    /// MPLS in IP, RFC 4023.
    MplsInIp = 12, "mpls-in-ip";
    /// Ethernet in IP without a header of its own, RFC 8986.
    EthernetInIp = 13, "ethernet-in-ip";
}

/// One way an indicator matches: what an LPM look-up leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rule {
    /// Unix time in nanoseconds from which the rule holds; 0: always did.
    pub valid_from_ns: u64,
    /// Unix time in nanoseconds from which it no longer holds; `u64::MAX`:
    /// never ends.
    pub valid_until_ns: u64,
    /// Indicator that a hit names.
    pub indicator: u32,
    /// Port on the C&C's side, with [`rule_flags::PORT`].
    pub port: u16,
    /// IP protocol, with [`rule_flags::PROTOCOL`].
    pub protocol: u8,
    /// [`rule_flags`].
    pub flags: u8,
}

/// Bits of [`Rule::flags`].
pub mod rule_flags {
    /// [`super::Rule::port`] limits the rule.
    pub const PORT: u8 = 1;
    /// [`super::Rule::protocol`] limits the rule.
    pub const PROTOCOL: u8 = 1 << 1;
}

/// Value of a C&C prefix: the rules of it and of every prefix that covers it,
/// most specific first, as a run in the rule table (design decision 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RuleSpan {
    /// Index of the first rule.
    pub first: u32,
    /// Number of rules, 1 to [`MAX_RULES`].
    pub count: u32,
}

/// Rules that can cover one address. More are refused when a table is built,
/// never dropped silently.
pub const MAX_RULES: u32 = 256;

/// What the subscribers of a prefix allow: value of a consent entry. Where
/// subscribers share an address, each port has its own answer, and a packet
/// whose port cannot be known gets the one that all of them allow.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ConsentEntry {
    /// [`purposes`] allowed for ports outside every range.
    pub allowed: u32,
    /// [`purposes`] allowed when the port cannot be known: what is allowed for
    /// every port.
    pub portless: u32,
    /// Index of the first of the entry's [`PortRange`]s, which are sorted and
    /// do not overlap.
    pub first: u32,
    /// Number of ranges, at most [`MAX_PORT_RANGES`]; mostly 0.
    pub count: u32,
}

/// What the subscriber who holds these ports of a shared address allows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, inclusive.
    pub last: u16,
    /// [`purposes`] allowed.
    pub allowed: u32,
}

/// Port ranges that one entry can have: every other port.
pub const MAX_PORT_RANGES: u32 = 1 << 15;

/// Where an IPv6 address of a NAT64 prefix carries its IPv4 address (RFC 6052
/// section 2.2): the places of its four bytes.
pub type Nat64Bytes = [u8; 4];

/// Purposes a subscriber allows (R2).
pub mod purposes {
    /// Match traffic to warn of infection.
    pub const DETECT: u32 = 1;
    /// Use reports from outside to warn of infection.
    pub const NOTIFY: u32 = 1 << 1;
    /// Use reports to warn of a vulnerability.
    pub const VULNERABLE: u32 = 1 << 2;
    /// Drop traffic to C&C.
    pub const BLOCK: u32 = 1 << 3;
    /// Discover unknown C&C servers.
    pub const DISCOVER: u32 = 1 << 4;
}

/// What the agent says of an interface: value of the interface table, keyed
/// by interface index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InterfaceSettings {
    /// One of [`role`].
    pub role: u32,
    /// 1 when a subscriber's address cannot be forged there, else 0.
    pub source_validated: u32,
}

/// Interfaces with an index below this stand in an array, and are found faster.
pub const LOW_INTERFACES: u32 = 4096;

/// Values of [`InterfaceSettings::role`] (design decision 9).
pub mod role {
    /// Packets come from subscribers.
    pub const ACCESS: u32 = 1;
    /// Packets come from outside.
    pub const CORE: u32 = 2;
    /// Either.
    pub const BOTH: u32 = 3;
}

/// Slots of the settings, each a `u64` that is written alone, so that two
/// writers never undo each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Setting {
    /// Not 0: the emergency stop is on (design decision 13).
    Stopped = 0,
    /// `CLOCK_BOOTTIME` in nanoseconds up to which consent is known; past it
    /// nothing is matched (design decision 2). 0 until a list is loaded.
    ConsentDeadline = 1,
    /// Wall clock minus boot clock in nanoseconds (wrapping), rewritten after
    /// a clock step: there is no wall clock in BPF.
    WallOffset = 2,
    /// Generation of the C&C tables; its lowest bit names the half in use
    /// (design decision 6).
    Generation = 3,
    /// Purposes allowed for subscribers without an entry in the consent table.
    DefaultPurposes = 4,
    /// Replay only: the packet's own time, Unix nanoseconds.
    ReplayNow = 5,
    /// [`ABI_VERSION`] that the pinned state was made with.
    AbiVersion = 6,
    /// Not 0: some VLANs have a subscriber space of their own.
    VlanSpaces = 7,
    /// Not 0: there are NAT64 prefixes.
    Nat64 = 8,
    /// Generation of the images of subscriber classes; its lowest bit names the
    /// half in use.
    ClassGeneration = 9,
    /// Entries in the tables of refusals that hold at once, before the consent
    /// tables are made anew.
    RefusedNow = 10,
    /// Not 0: subscriber space or consent was written, and the images of
    /// subscriber classes do not say so yet. The program does not read it.
    ClassesDue = 11,
    /// Generation of the tables of flows; its lowest bit names the half in use
    /// (design decision 7).
    FoldGeneration = 12,
    /// How often the agent closes a generation of them, in nanoseconds; 0:
    /// nothing is folded.
    FoldWindowNs = 13,
    /// Events of one subscriber and one indicator in a window.
    FoldBound = 14,
}

/// Slots of the settings.
pub const SETTINGS: u32 = 15;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $kind:ident;)+) => {
        /// Per-CPU counters of the program. Every packet bumps exactly one
        /// counter of kind [`CounterKind::Exit`] (design decision 11).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Counter {
            $($(#[$doc])* $name,)+
        }

        impl Counter {
            /// All counters, in the order of their slots.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The name that status and metrics show.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// What the counter is for.
            pub const fn kind(self) -> CounterKind {
                match self {
                    $(Self::$name => CounterKind::$kind,)+
                }
            }
        }
    };
}

/// What a [`Counter`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterKind {
    /// How a packet left the program; their sum is the packets seen.
    Exit,
    /// What became of a match; `matched = delivered + folded + lost`.
    Fate,
    /// Work done, beside the exits.
    Work,
}

counters! {
    /// The emergency stop is on.
    Stopped = "stopped", Exit;
    /// No consent list has been confirmed for longer than the deadline.
    ConsentExpired = "consent-expired", Exit;
    /// The interface has no role.
    InterfaceUnknown = "interface-unknown", Exit;
    /// Neither end is a subscriber.
    Transit = "transit", Exit;
    /// A subscriber's address as source on a core interface.
    Spoofed = "spoofed", Exit;
    /// A source outside the subscriber space on an access interface.
    ForeignSource = "foreign-source", Exit;
    /// A subscriber in the packet does not allow detection.
    OptedOut = "opted-out", Exit;
    /// Someone who shares the address does not allow detection, and the packet
    /// has no port to tell who it is.
    SharedAddress = "shared-address", Exit;
    /// Compared with the C&C tables, nothing found.
    NoMatch = "no-match", Exit;
    /// Matched.
    Matched = "matched", Exit;
    /// Ethernet, but no IP above it (ARP, ...).
    NotIp = "not-ip", Exit;
    /// IEEE 802.3 with a length instead of a type: LLC or SNAP above it.
    Llc = "llc", Exit;
    /// The frame ends inside an Ethernet header or a VLAN tag.
    TruncatedLink = "truncated-link", Exit;
    /// More VLAN tags than the parser reads.
    VlanDepth = "vlan-depth", Exit;
    /// A PPPoE session header that is cut off or cannot be.
    Pppoe = "pppoe", Exit;
    /// PPP without IP: control protocols, compressed or multilink packets.
    Ppp = "ppp", Exit;
    /// MPLS: too many labels, cut off, or something that is not IP behind them.
    Mpls = "mpls", Exit;
    /// The frame, or the packet around it, ends inside the IP header.
    TruncatedIp = "truncated-ip", Exit;
    /// IP version, header length or total length that cannot be.
    MalformedIp = "malformed-ip", Exit;
    /// More IPv6 extension headers than the parser reads, or one cut off.
    ExtensionHeaders = "extension-headers", Exit;
    /// A tunnel of a kind, or with contents, that the parser cannot read: whose
    /// packet it is cannot be known.
    Tunnel = "tunnel", Exit;
    /// The packet ends inside the header of a tunnel.
    TruncatedTunnel = "truncated-tunnel", Exit;
    /// A later fragment of a tunnel's packet: what is inside stands in the first.
    TunnelFragment = "tunnel-fragment", Exit;
    /// More IP layers, or more headers in all, than the parser reads.
    TooDeep = "too-deep", Exit;
    /// Matches handed to the ring buffer.
    Delivered = "delivered", Fate;
    /// Matches counted into an earlier event.
    Folded = "folded", Fate;
    /// Matches for which the ring buffer had no room.
    Lost = "lost", Fate;
    /// Look-ups in the C&C tables for IPv4.
    LookupsV4 = "lookups-v4", Work;
    /// Look-ups in the C&C tables for IPv6.
    LookupsV6 = "lookups-v6", Work;
    /// Entries limited to a port that were met by a packet without ports.
    PortUnknown = "port-unknown", Work;
    /// Hits for which the tables of flows had no room, so that they became
    /// events of their own.
    FoldsFull = "folds-full", Work;
}

/// IP layers that are read, one inside the other.
pub const MAX_LAYERS: usize = 4;

/// One IP layer of a packet.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct IpLayer {
    /// Sender.
    pub source: AddressBytes,
    /// Receiver.
    pub destination: AddressBytes,
    /// Fragment offset in bytes; not 0 for a later fragment.
    pub fragment_offset: u16,
    /// Port of the sender; 0 without ports.
    pub source_port: u16,
    /// Port of the receiver; 0 without ports.
    pub destination_port: u16,
    /// 4 or 6.
    pub ip_version: u8,
    /// Protocol above the layer and its extension headers.
    pub protocol: u8,
    /// 1 when the ports are there, else 0.
    pub has_ports: u8,
    /// The [`Tunnel`] that the layer was found in; 0 for the outermost.
    pub tunnel: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

/// What the parser saw of one packet: what the program decides by, and what
/// `matcher parse` shows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Packet {
    /// Layers that were read.
    pub layer_count: u32,
    /// 0 when the packet was parsed to its end, else the [`Counter`] that says
    /// why not, plus 1.
    pub unparsed: u32,
    /// Ids of the first two VLAN tags in front of everything; 0: none, or a tag
    /// that carries only a priority (IEEE 802.1Q).
    pub vlan_ids: [u16; 2],
    /// VLAN tags there.
    pub vlan_tags: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// The IP layers, outermost first; what lies behind
    /// [`Packet::layer_count`] has no meaning.
    pub layers: [IpLayer; MAX_LAYERS],
}
