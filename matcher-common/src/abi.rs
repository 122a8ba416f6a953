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
pub const ABI_VERSION: u32 = 1;

/// An IPv4 (first four bytes, rest zero) or IPv6 address in network order.
pub type AddressBytes = [u8; 16];

/// A matching packet, as the kernel writes it into the ring buffer: addresses,
/// ports, protocol, time, and nothing else of the traffic (R3).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct HitEvent {
    /// Counts the matched packets of one CPU since the maps were made; a gap is
    /// a lost hit.
    pub sequence: u64,
    /// `bpf_ktime_get_boot_ns` when the program saw the packet.
    pub boot_ns: u64,
    /// The subscriber's address.
    pub subscriber: AddressBytes,
    /// The other end, which an indicator covers.
    pub remote: AddressBytes,
    /// Id of the indicator, never 0.
    pub indicator: u32,
    /// Interface the packet came in on.
    pub ifindex: u32,
    /// Table generation the packet was decided by.
    pub generation: u32,
    /// Packets this event stands for.
    pub packets: u32,
    /// Port on the subscriber's side; meaningless without [`hit_flags::PORTS`].
    pub subscriber_port: u16,
    /// Port on the other side; meaningless without [`hit_flags::PORTS`].
    pub remote_port: u16,
    /// IP protocol number of the innermost parsed header.
    pub protocol: u8,
    /// [`hit_flags`].
    pub flags: u8,
    /// CPU that saw the packet; [`HitEvent::sequence`] counts per CPU.
    pub cpu: u16,
}

/// Bits of [`HitEvent::flags`].
pub mod hit_flags {
    /// The subscriber sent the packet.
    pub const OUTBOUND: u8 = 1;
    /// Addresses are IPv6.
    pub const IPV6: u8 = 1 << 1;
    /// The packet carries ports.
    pub const PORTS: u8 = 1 << 2;
    /// It came in where a subscriber's address cannot be forged (decision 8).
    pub const SOURCE_VALIDATED: u8 = 1 << 3;
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

/// Purposes a subscriber allows (R2): value of a consent entry.
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

/// Values of [`InterfaceSettings::role`] (design decision 9).
pub mod role {
    /// Packets come from subscribers.
    pub const ACCESS: u32 = 1;
    /// Packets come from outside.
    pub const CORE: u32 = 2;
    /// Either.
    pub const BOTH: u32 = 3;
}

/// Slots of the settings table, each a `u64` of its own, so that two writers
/// never undo each other.
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
}

/// Slots in the settings table.
pub const SETTINGS: u32 = 7;

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
    /// Compared with the C&C tables, nothing found.
    NoMatch = "no-match", Exit;
    /// Matched.
    Matched = "matched", Exit;
    /// Ethernet, but no IP above it (ARP, LLC, ...).
    NotIp = "not-ip", Exit;
    /// Shorter than an Ethernet header or a VLAN tag in it.
    TruncatedLink = "truncated-link", Exit;
    /// More VLAN tags than this version reads.
    VlanDepth = "vlan-depth", Exit;
    /// PPPoE session, not read yet.
    Pppoe = "pppoe", Exit;
    /// MPLS, not read yet.
    Mpls = "mpls", Exit;
    /// The frame ends inside the IP header.
    TruncatedIp = "truncated-ip", Exit;
    /// IP version, header length or total length that cannot be.
    MalformedIp = "malformed-ip", Exit;
    /// More IPv6 extension headers than this version reads, or one cut off.
    ExtensionHeaders = "extension-headers", Exit;
    /// A tunnel inside IP, not read yet: whose packet it is cannot be known.
    Tunnel = "tunnel", Exit;
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
}

/// What the parser in the kernel saw of one packet, for `matcher parse`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ParseReport {
    /// Source of the IP layer.
    pub source: AddressBytes,
    /// Destination of the IP layer.
    pub destination: AddressBytes,
    /// 0 when the packet was parsed to its end, else the [`Counter`] that
    /// says why not, plus 1.
    pub unparsed: u32,
    /// Fragment offset in bytes.
    pub fragment_offset: u16,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// 4 or 6 where an IP layer was read, else 0.
    pub ip_version: u8,
    /// Protocol above the IP layer and its extension headers.
    pub protocol: u8,
    /// 1 when the ports are there, else 0.
    pub has_ports: u8,
    /// VLAN tags.
    pub vlan_tags: u8,
    /// Zero.
    pub reserved: [u8; 2],
}
