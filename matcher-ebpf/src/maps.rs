//! The tables, and typed access to them. Sizes are set by the agent when it
//! loads the program; tries and hashes take memory for what they hold only.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf, lpm_trie::Key},
};
use matcher_common::{
    abi::{
        AddressBytes, Counter, InterfaceSettings, ParseReport, Rule, RuleSpan, SETTINGS, Setting,
    },
    parse::Family,
};

const ENTRIES: u32 = 1 << 20;

type Trie4<V> = LpmTrie<[u8; 4], V>;
type Trie6<V> = LpmTrie<AddressBytes, V>;

#[map]
static SETTING_VALUES: Array<u64> = Array::with_max_entries(SETTINGS, 0);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);
#[map]
static INTERFACES: HashMap<u32, InterfaceSettings> = HashMap::with_max_entries(256, 0);

#[map]
static SUBSCRIBERS_V4: Trie4<u32> = LpmTrie::with_max_entries(ENTRIES, 0);
#[map]
static SUBSCRIBERS_V6: Trie6<u32> = LpmTrie::with_max_entries(ENTRIES, 0);
#[map]
static CONSENT_V4: Trie4<u32> = LpmTrie::with_max_entries(ENTRIES, 0);
#[map]
static CONSENT_V6: Trie6<u32> = LpmTrie::with_max_entries(ENTRIES, 0);

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
static RULES_EVEN: HashMap<u32, Rule> = HashMap::with_max_entries(ENTRIES, BPF_F_NO_PREALLOC);
#[map]
static RULES_ODD: HashMap<u32, Rule> = HashMap::with_max_entries(ENTRIES, BPF_F_NO_PREALLOC);

/// The ring buffer of hits.
#[map]
pub(crate) static HITS: RingBuf = RingBuf::with_byte_size(1 << 22, 0);
#[map]
static SEQUENCE: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
#[map]
static PARSE_REPORT: Array<ParseReport> = Array::with_max_entries(1, 0);

/// One address of a packet.
#[derive(Clone, Copy)]
pub(crate) struct Address<'a> {
    pub(crate) family: Family,
    pub(crate) bytes: &'a AddressBytes,
}

impl Address<'_> {
    #[inline(always)]
    fn key4(&self) -> Key<[u8; 4]> {
        let [a, b, c, d, ..] = *self.bytes;
        Key::new(32, [a, b, c, d])
    }

    #[inline(always)]
    fn key6(&self) -> Key<AddressBytes> {
        Key::new(128, *self.bytes)
    }
}

/// Whether the address lies in the subscriber space.
#[inline(always)]
pub(crate) fn is_subscriber(address: Address<'_>) -> bool {
    let space = match address.family {
        Family::V4 => SUBSCRIBERS_V4.get(address.key4()),
        Family::V6 => SUBSCRIBERS_V6.get(address.key6()),
    };
    // The value is read, not only its presence: the compiler would else merge
    // two such tests by "or" on the pointers, which the verifier refuses.
    space.is_some_and(|space| *space != 0)
}

/// The purposes that the subscriber at this address allows.
#[inline(always)]
pub(crate) fn allowed_purposes(address: Address<'_>) -> u32 {
    let entry = match address.family {
        Family::V4 => CONSENT_V4.get(address.key4()),
        Family::V6 => CONSENT_V6.get(address.key6()),
    };
    match entry {
        Some(purposes) => *purposes,
        None => setting(Setting::DefaultPurposes) as u32,
    }
}

/// The rules of every C&C entry that covers the address.
#[inline(always)]
pub(crate) fn rules_for(generation: u64, address: Address<'_>) -> Option<RuleSpan> {
    match address.family {
        Family::V4 => {
            count(Counter::LookupsV4);
            let key = address.key4();
            if is_even(generation) {
                CC_V4_EVEN.get(key).copied()
            } else {
                CC_V4_ODD.get(key).copied()
            }
        }
        Family::V6 => {
            count(Counter::LookupsV6);
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
    // SAFETY: rules of the half in use are never rewritten; the agent only
    // writes to the other half.
    unsafe {
        if is_even(generation) {
            RULES_EVEN.get(index).copied()
        } else {
            RULES_ODD.get(index).copied()
        }
    }
}

#[inline(always)]
fn is_even(generation: u64) -> bool {
    generation & 1 == 0
}

/// What the agent says of an interface, if it has said anything.
#[inline(always)]
pub(crate) fn interface(ifindex: u32) -> Option<InterfaceSettings> {
    // SAFETY: a value of 8 bytes that the agent replaces whole.
    unsafe { INTERFACES.get(ifindex).copied() }
}

/// One slot of the settings; 0 until the agent writes it.
#[inline(always)]
pub(crate) fn setting(setting: Setting) -> u64 {
    match SETTING_VALUES.get_ptr(setting as u32) {
        // SAFETY: a pointer into the array, aligned to 8 bytes, that lives as
        // long as the program; volatile, since the agent writes beside us.
        Some(value) => unsafe { value.read_volatile() },
        None => 0,
    }
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
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

/// Hands a parse report to the agent.
#[inline(always)]
pub(crate) fn report(report: ParseReport) {
    // Cannot fail: the array has the slot.
    let _ = PARSE_REPORT.set(0, report, 0);
}
