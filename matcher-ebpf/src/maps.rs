//! The tables, and typed access to them. Sizes are set by the agent when it
//! loads the program; tries take memory for what they hold only, arrays for what
//! they could.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf, lpm_trie::Key},
};
use matcher_common::{
    abi::{
        AddressBytes, ConsentEntry, Counter, InterfaceSettings,
        LOW_INTERFACES as LOW_INTERFACE_COUNT, Nat64Bytes, PortRange, Rule, RuleSpan, SETTINGS,
        Setting,
    },
    parse::{Family, Parsing},
};

use crate::{clock::Clock, collate::Found, opaque::patched, subscribers::Subscribers};

const ENTRIES: u32 = 1 << 20;

type Trie4<V> = LpmTrie<[u8; 4], V>;
type Trie6<V> = LpmTrie<[u8; 16], V>;
/// Tries of subscribers: the number of a subscriber space comes first, whole.
type SpaceTrie4<V> = LpmTrie<[u8; 8], V>;
type SpaceTrie6<V> = LpmTrie<[u8; 20], V>;

/// All settings in one value, so that one look-up a packet finds them. The
/// agent maps it into its memory and writes one word at a time.
#[map]
static SETTING_VALUES: Array<Settings> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);
#[map]
static INTERFACES: HashMap<u32, InterfaceSettings> = HashMap::with_max_entries(256, 0);
/// The same for interfaces with a low index, as they mostly have: a hash takes
/// longer than all the rest that is done for most packets. Role 0: none here.
#[map]
static LOW_INTERFACES: Array<InterfaceSettings> = Array::with_max_entries(LOW_INTERFACE_COUNT, 0);

/// The subscriber space of a VLAN: by the ids of the outer and the inner tag,
/// the outer one in the upper half; inner 0 stands for any.
#[map]
static VLAN_SPACES: HashMap<u32, u32> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);
#[map]
static SUBSCRIBERS_V4: SpaceTrie4<u32> = LpmTrie::with_max_entries(ENTRIES, 0);
#[map]
static SUBSCRIBERS_V6: SpaceTrie6<u32> = LpmTrie::with_max_entries(ENTRIES, 0);
#[map]
static CONSENT_V4: SpaceTrie4<ConsentEntry> = LpmTrie::with_max_entries(ENTRIES, 0);
#[map]
static CONSENT_V6: SpaceTrie6<ConsentEntry> = LpmTrie::with_max_entries(ENTRIES, 0);
/// Who has refused a moment ago, in whatever space and at whatever port: holds
/// until the consent tables say it exactly. The value is when it was said.
#[map]
static REFUSED_NOW_V4: Trie4<u64> = LpmTrie::with_max_entries(1024, 0);
#[map]
static REFUSED_NOW_V6: Trie6<u64> = LpmTrie::with_max_entries(1024, 0);
/// The ranges of all entries. The agent maps it into its memory: it writes
/// millions of them.
#[map]
static PORT_RANGES: Array<PortRange> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// NAT64 prefixes, RFC 6052.
#[map]
static NAT64: Trie6<Nat64Bytes> = LpmTrie::with_max_entries(64, 0);

// The C&C tables twice: one half in use, the other to build the next
// generation in (design decision 6).
#[map]
static CC_V4_EVEN: Trie4<RuleSpan> = LpmTrie::with_max_entries(ENTRIES, 0);
#[map]
static CC_V4_ODD: Trie4<RuleSpan> = LpmTrie::with_max_entries(ENTRIES, 0);
#[map]
static CC_V6_EVEN: Trie6<RuleSpan> = LpmTrie::with_max_entries(ENTRIES, 0);
#[map]
static CC_V6_ODD: Trie6<RuleSpan> = LpmTrie::with_max_entries(ENTRIES, 0);
#[map]
static RULES: Array<Rule> = Array::with_max_entries(2, BPF_F_MMAPABLE);
/// Rules of each half.
#[unsafe(no_mangle)]
static RULES_HALF: u32 = 1;

/// The ring buffer of hits.
#[map]
pub(crate) static HITS: RingBuf = RingBuf::with_byte_size(1 << 22, 0);
#[map]
static SEQUENCE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// What the `parse` program saw of the last packet.
#[map]
static PARSE_REPORT: Array<Parsing> = Array::with_max_entries(1, 0);
/// The packet under way on each CPU.
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// What is known so far of the packet under way. In a map, because it is too
/// big for the stack, and because the verifier forgets what it holds: so paths
/// through the program become one again where they meet.
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) parsing: Parsing,
    pub(crate) clock: Clock,
    /// Interface that the packet came in on.
    pub(crate) ifindex: u32,
    pub(crate) interface: InterfaceSettings,
    /// Subscriber space of the packet's VLAN.
    pub(crate) space: u32,
    /// Read once: the whole packet is judged by one image.
    pub(crate) class_generation: u64,
    pub(crate) subscribers: Subscribers,
    pub(crate) found: Found,
    /// An IPv4 address that an IPv6 address carries.
    pub(crate) carried: AddressBytes,
}

/// One address of a packet.
#[derive(Clone, Copy)]
pub(crate) struct Address<'a> {
    pub(crate) family: Family,
    pub(crate) bytes: &'a AddressBytes,
}

impl Address<'_> {
    #[inline(always)]
    fn key4(&self) -> Key<[u8; 4]> {
        Key::new(32, self.bytes.v4())
    }

    #[inline(always)]
    fn key6(&self) -> Key<[u8; 16]> {
        Key::new(128, self.bytes.octets())
    }

    #[inline(always)]
    fn space_key4(&self, space: u32) -> Key<[u8; 8]> {
        let mut key = [0; 8];
        key[..4].copy_from_slice(&space.to_ne_bytes());
        key[4..].copy_from_slice(&self.bytes.v4());
        Key::new(64, key)
    }

    #[inline(always)]
    fn space_key6(&self, space: u32) -> Key<[u8; 20]> {
        let mut key = [0; 20];
        key[..4].copy_from_slice(&space.to_ne_bytes());
        key[4..].copy_from_slice(&self.bytes.octets());
        Key::new(160, key)
    }
}

/// This CPU's place to take a packet apart.
#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: this CPU's own slot; XDP programs do not preempt each other on
    // one CPU, and each asks for it once. Any bytes are a valid value.
    unsafe { SCRATCH.get_ptr_mut(0)?.as_mut() }
}

/// The subscriber space of a packet with these VLAN ids.
#[inline(always)]
pub(crate) fn space(vlan_ids: [u16; 2]) -> u32 {
    if setting(Setting::VlanSpaces) == 0 || vlan_ids == [0; 2] {
        return 0;
    }
    let [outer, inner] = vlan_ids.map(u32::from);
    // SAFETY: values of 4 bytes that the agent replaces whole.
    unsafe {
        match VLAN_SPACES.get(outer << 16 | inner) {
            Some(space) => *space,
            None => VLAN_SPACES.get(outer << 16).copied().unwrap_or(0),
        }
    }
}

/// Whether the address lies in the subscriber space.
#[inline(always)]
pub(crate) fn is_subscriber(space: u32, address: Address<'_>) -> bool {
    let found = match address.family {
        Family::V4 => SUBSCRIBERS_V4.get(address.space_key4(space)),
        Family::V6 => SUBSCRIBERS_V6.get(address.space_key6(space)),
    };
    // The value is read, not only its presence: the compiler would else merge
    // two such tests by "or" on the pointers, which the verifier refuses.
    found.is_some_and(|found| *found != 0)
}

/// Whether somebody at this address has refused a moment ago.
#[inline(always)]
pub(crate) fn refused_now(settings: &Settings, address: Address<'_>) -> bool {
    if settings.get(Setting::RefusedNow) == 0 {
        return false;
    }
    let said = match address.family {
        Family::V4 => REFUSED_NOW_V4.get(address.key4()),
        Family::V6 => REFUSED_NOW_V6.get(address.key6()),
    };
    // Never 0; read for the reason that `is_subscriber` gives.
    said.is_some_and(|said| *said != 0)
}

/// What the subscribers at this address allow, if that is other than usual.
#[inline(always)]
pub(crate) fn consent(space: u32, address: Address<'_>) -> Option<ConsentEntry> {
    match address.family {
        Family::V4 => CONSENT_V4.get(address.space_key4(space)).copied(),
        Family::V6 => CONSENT_V6.get(address.space_key6(space)).copied(),
    }
}

/// One range of ports of a consent entry.
#[inline(always)]
pub(crate) fn port_range(index: u32) -> Option<PortRange> {
    PORT_RANGES.get(index).copied()
}

/// Where the IPv6 address carries an IPv4 address, if it is of a NAT64 prefix.
#[inline(always)]
pub(crate) fn nat64(address: &AddressBytes) -> Option<Nat64Bytes> {
    if setting(Setting::Nat64) == 0 {
        return None;
    }
    NAT64.get(Key::new(128, address.octets())).copied()
}

/// Counts a look-up in the C&C tables.
#[inline(always)]
pub(crate) fn count_lookup(family: Family) {
    count(match family {
        Family::V4 => Counter::LookupsV4,
        Family::V6 => Counter::LookupsV6,
    });
}

/// The rules of the longest C&C prefix that covers the address, of those that
/// are no hosts with a place among the compiled ones.
#[inline(always)]
pub(crate) fn longest_prefix(generation: u64, address: Address<'_>) -> Option<RuleSpan> {
    match address.family {
        Family::V4 => {
            let key = address.key4();
            if is_even(generation) {
                CC_V4_EVEN.get(key).copied()
            } else {
                CC_V4_ODD.get(key).copied()
            }
        }
        Family::V6 => {
            let key = address.key6();
            if is_even(generation) {
                CC_V6_EVEN.get(key).copied()
            } else {
                CC_V6_ODD.get(key).copied()
            }
        }
    }
}

/// One rule of a span.
#[inline(always)]
pub(crate) fn rule(generation: u64, index: u32) -> Option<Rule> {
    let half = patched(&RULES_HALF);
    if index >= half {
        return None;
    }
    let first = if is_even(generation) { 0 } else { half };
    RULES.get(first.wrapping_add(index)).copied()
}

#[inline(always)]
fn is_even(generation: u64) -> bool {
    generation & 1 == 0
}

/// What the agent says of an interface, if it has said anything.
#[inline(always)]
pub(crate) fn interface(ifindex: u32) -> Option<InterfaceSettings> {
    if let Some(low) = LOW_INTERFACES.get(ifindex)
        && low.role != 0
    {
        return Some(*low);
    }
    // SAFETY: a value of 8 bytes that the agent replaces whole.
    unsafe { INTERFACES.get(ifindex).copied() }
}

/// The settings, of which each is 0 until the agent writes it.
#[derive(Clone, Copy)]
pub(crate) struct Settings([u64; SETTINGS as usize]);

impl Settings {
    /// One of them, as it is now.
    #[expect(clippy::indexing_slicing, reason = "the enum has no more slots")]
    #[inline(always)]
    pub(crate) fn get(&self, setting: Setting) -> u64 {
        // SAFETY: a word of the array; volatile, since the agent writes beside
        // us.
        unsafe { (&raw const self.0[setting as usize]).read_volatile() }
    }
}

/// The settings.
#[inline(always)]
pub(crate) fn settings() -> Option<&'static Settings> {
    SETTING_VALUES.get(0)
}

/// One of the settings.
#[inline(always)]
pub(crate) fn setting(setting: Setting) -> u64 {
    // The array has the slot: 0 cannot come from here.
    settings().map_or(0, |settings| settings.get(setting))
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    count_slot(counter as u32);
}

/// Adds one to the counter of this CPU in that slot.
#[inline(always)]
pub(crate) fn count_slot(slot: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: this CPU's own slot; XDP programs do not preempt each other
        // on one CPU.
        unsafe { *value = (*value).wrapping_add(1) };
    }
}

/// The next sequence number of this CPU. One per CPU, so that a flood of hits
/// does not make CPUs fight over one cache line.
#[inline(always)]
pub(crate) fn next_sequence() -> u64 {
    match SEQUENCE.get_ptr_mut(0) {
        // SAFETY: this CPU's own slot; XDP programs do not preempt each other
        // on one CPU.
        Some(value) => unsafe {
            let sequence = *value;
            *value = sequence.wrapping_add(1);
            sequence
        },
        None => 0,
    }
}

/// Where the `parse` program tells what it saw.
#[inline(always)]
pub(crate) fn report() -> Option<&'static mut Parsing> {
    // SAFETY: one packet at a time is handed to the `parse` program, by a test
    // run that waits for it. Any bytes are a valid value.
    unsafe { PARSE_REPORT.get_ptr_mut(0)?.as_mut() }
}
