//! The tables, and typed access to them. Sizes are set by the agent when it
//! loads the program; tries and hashes take memory for what they hold only.

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
    table::{
        self, LINE_WORDS, Line, Lines,
        class::{self, Class},
        filter,
    },
};

use crate::{clock::Clock, collate::Found, subscribers::Subscribers};

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
/// Images of the compiled tables: two halves of as many lines, of which a
/// generation names the one in use.
#[map]
static CLASSES_V4: Array<Line> = Array::with_max_entries(2, BPF_F_MMAPABLE);
#[map]
static CLASSES_V6: Array<Line> = Array::with_max_entries(2, BPF_F_MMAPABLE);
#[map]
static CONSENT_FILTER_V6: Array<Line> = Array::with_max_entries(2, BPF_F_MMAPABLE);
#[map]
static CC_FILTER_V4: Array<Line> = Array::with_max_entries(2, BPF_F_MMAPABLE);
#[map]
static CC_FILTER_V6: Array<Line> = Array::with_max_entries(2, BPF_F_MMAPABLE);
/// Lines of half an image, set by the agent when it loads the program.
#[unsafe(no_mangle)]
static CLASSES_V4_LINES: u32 = 1;
#[unsafe(no_mangle)]
static CLASSES_V6_LINES: u32 = 1;
#[unsafe(no_mangle)]
static CONSENT_FILTER_V6_LINES: u32 = 1;
#[unsafe(no_mangle)]
static CC_FILTER_V4_LINES: u32 = 1;
#[unsafe(no_mangle)]
static CC_FILTER_V6_LINES: u32 = 1;
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
// Single addresses, nearly all of a list, in hashes.
#[map]
static CC_HOSTS_V4_EVEN: HashMap<[u8; 4], RuleSpan> =
    HashMap::with_max_entries(ENTRIES, BPF_F_NO_PREALLOC);
#[map]
static CC_HOSTS_V4_ODD: HashMap<[u8; 4], RuleSpan> =
    HashMap::with_max_entries(ENTRIES, BPF_F_NO_PREALLOC);
#[map]
static CC_HOSTS_V6_EVEN: HashMap<[u8; 16], RuleSpan> =
    HashMap::with_max_entries(ENTRIES, BPF_F_NO_PREALLOC);
#[map]
static CC_HOSTS_V6_ODD: HashMap<[u8; 16], RuleSpan> =
    HashMap::with_max_entries(ENTRIES, BPF_F_NO_PREALLOC);
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

/// Half an image in an array map.
#[derive(Clone, Copy)]
struct Half {
    map: &'static Array<Line>,
    first: u32,
    lines: u32,
}

impl Half {
    /// The half that the generation names. `lines` is a constant of the object
    /// file that the loader patches.
    #[inline(always)]
    fn of(map: &'static Array<Line>, lines: *const u32, generation: u64) -> Self {
        // SAFETY: a static of this program; volatile, since the compiler would
        // take its value for known.
        let lines = unsafe { core::ptr::read_volatile(lines) };
        Self {
            map,
            first: if is_even(generation) { 0 } else { lines },
            lines,
        }
    }
}

impl Lines for Half {
    type Line = *const Line;

    #[inline(always)]
    fn line(&self, index: u32) -> Option<*const Line> {
        if index >= self.lines {
            return None;
        }
        self.map.get_ptr(self.first.wrapping_add(index))
    }

    #[inline(always)]
    fn word(&self, line: *const Line, at: u32) -> u64 {
        let at = (at & (LINE_WORDS - 1)) as usize;
        // SAFETY: a word inside a line of the map, which lives as long as the
        // program; volatile, since the agent writes to the same memory.
        unsafe { line.cast::<u64>().add(at).read_volatile() }
    }
}

/// Whether the address is a subscriber's in the space without a VLAN, and
/// whether the default consent holds for it, or a refusal.
#[inline(always)]
pub(crate) fn class(generation: u64, address: Address<'_>) -> Class {
    match address.family {
        Family::V4 => class::class_v4(
            &Half::of(&CLASSES_V4, &raw const CLASSES_V4_LINES, generation),
            table::v4_key(u32::from_be_bytes(address.bytes.v4())),
        ),
        Family::V6 => {
            let (high, low) = address.bytes.halves();
            class::class_v6(
                &Half::of(&CLASSES_V6, &raw const CLASSES_V6_LINES, generation),
                &Half::of(
                    &CONSENT_FILTER_V6,
                    &raw const CONSENT_FILTER_V6_LINES,
                    generation,
                ),
                high,
                low,
            )
        }
    }
}

/// The images that say "default" or "not listed" of nearly every address.
#[derive(Clone, Copy)]
pub(crate) struct Images {
    class_generation: u64,
    generation: u64,
}

impl Images {
    /// Those in use.
    #[inline(always)]
    pub(crate) fn current(settings: &Settings) -> Self {
        Self {
            class_generation: settings.get(Setting::ClassGeneration),
            generation: settings.get(Setting::Generation),
        }
    }

    /// [`class`].
    #[inline(always)]
    pub(crate) fn class(&self, address: Address<'_>) -> Class {
        class(self.class_generation, address)
    }

    /// Whether the C&C tables may hold an entry that covers the address.
    #[inline(always)]
    pub(crate) fn may_be_listed(&self, address: Address<'_>) -> bool {
        may_be_listed(self.generation, address)
    }
}

#[inline(always)]
fn may_be_listed(generation: u64, address: Address<'_>) -> bool {
    match address.family {
        Family::V4 => {
            let image = Half::of(&CC_FILTER_V4, &raw const CC_FILTER_V4_LINES, generation);
            filter::maybe_v4(
                &image,
                table::v4_key(u32::from_be_bytes(address.bytes.v4())),
            )
        }
        Family::V6 => {
            let image = Half::of(&CC_FILTER_V6, &raw const CC_FILTER_V6_LINES, generation);
            let (high, low) = address.bytes.halves();
            filter::maybe_v6(&image, high, low)
        }
    }
}

/// Counts a look-up in the C&C tables.
#[inline(always)]
pub(crate) fn count_lookup(family: Family) {
    count(match family {
        Family::V4 => Counter::LookupsV4,
        Family::V6 => Counter::LookupsV6,
    });
}

/// The rules of every C&C entry that covers the address. A filter says no to
/// nearly all addresses; only the others meet the exact tables.
#[inline(always)]
pub(crate) fn rules_for(generation: u64, address: Address<'_>) -> Option<RuleSpan> {
    count_lookup(address.family);
    if !may_be_listed(generation, address) {
        return None;
    }
    match address.family {
        Family::V4 => {
            let bytes = address.bytes.v4();
            // SAFETY: values of the half in use are never rewritten.
            let host = unsafe {
                if is_even(generation) {
                    CC_HOSTS_V4_EVEN.get(bytes)
                } else {
                    CC_HOSTS_V4_ODD.get(bytes)
                }
            };
            if let Some(span) = host {
                return Some(*span);
            }
            let key = address.key4();
            if is_even(generation) {
                CC_V4_EVEN.get(key).copied()
            } else {
                CC_V4_ODD.get(key).copied()
            }
        }
        Family::V6 => {
            let bytes = address.bytes.octets();
            // SAFETY: values of the half in use are never rewritten.
            let host = unsafe {
                if is_even(generation) {
                    CC_HOSTS_V6_EVEN.get(bytes)
                } else {
                    CC_HOSTS_V6_ODD.get(bytes)
                }
            };
            if let Some(span) = host {
                return Some(*span);
            }
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
    // SAFETY: a static of this program; volatile, since the compiler would
    // take its value for known.
    let half = unsafe { core::ptr::read_volatile(&raw const RULES_HALF) };
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
