//! Repetition: packets of one flow become one event and a count (design
//! decision 7), and events of one subscriber and one indicator are bounded.
//!
//! All tables exist twice. The agent moves on to the other half, waits until no
//! packet under way uses the one before, reads what was folded there and empties
//! it. A table that is full folds nothing: every packet is then an event.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{HashMap, PerCpuArray},
};
use matcher_common::abi::{
    BEYOND_BOUND, Bound, BoundKey, CANARY_INDICATOR, Counter, Flow, Fold, Setting,
};

use crate::maps;

const FLOWS: u32 = 1 << 16;

// Not allocated on demand: in a flood that costs more than the look-up, and may
// fail where there is room.
#[map]
static FOLDS_EVEN: HashMap<Flow, Fold> = HashMap::with_max_entries(FLOWS, 0);
#[map]
static FOLDS_ODD: HashMap<Flow, Fold> = HashMap::with_max_entries(FLOWS, 0);
#[map]
static BOUNDS_EVEN: HashMap<BoundKey, Bound> = HashMap::with_max_entries(FLOWS, 0);
#[map]
static BOUNDS_ODD: HashMap<BoundKey, Bound> = HashMap::with_max_entries(FLOWS, 0);
/// The hit under way on each CPU.
#[map]
static DESK: PerCpuArray<Desk> = PerCpuArray::with_max_entries(1, 0);

/// Keys and values of the packet under way: too big for the stack.
#[repr(C)]
pub(crate) struct Desk {
    pub(crate) flow: Flow,
    key: BoundKey,
    bound: Bound,
}

/// This CPU's place to describe a hit.
#[inline(always)]
pub(crate) fn desk() -> Option<&'static mut Desk> {
    // SAFETY: this CPU's own slot; XDP programs do not preempt each other on
    // one CPU, and each asks for it once. Any bytes are a valid value.
    unsafe { DESK.get_ptr_mut(0)?.as_mut() }
}

/// What is to become of a matched packet.
pub(crate) enum Fate {
    /// It is counted into an earlier event.
    Folded,
    /// It is to become an event.
    Event(Permit),
}

/// That a packet may become an event. Ends in [`Permit::used`] or
/// [`Permit::unused`].
pub(crate) enum Permit {
    /// Nothing is folded.
    Free,
    /// The first packet of a flow; `placed` when it took a place of its bound.
    New { odd: bool, placed: bool },
    /// A flow whose window is long over: the agent is late or gone.
    Late(LiveFold),
}

/// A fold in a table of the half that the packet uses, where it stays until the
/// packet is done. All CPUs write it, in whole words.
#[derive(Clone, Copy)]
pub(crate) struct LiveFold(*mut Fold);

/// What to do with the event that a packet was permitted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Submit,
    Discard,
}

/// Counts the packet into what is known of its flow, or permits an event.
#[inline(always)]
pub(crate) fn fold(desk: &mut Desk, now_ns: u64) -> Fate {
    let window = maps::setting(Setting::FoldWindowNs);
    // Each canary is awaited, and must not be counted into the one before.
    if window == 0 || desk.flow.indicator == CANARY_INDICATOR {
        return Fate::Event(Permit::Free);
    }
    let odd = maps::setting(Setting::FoldGeneration) & 1 != 0;
    if let Some(known) = find(odd, &desk.flow) {
        // Twice: a flow that began right after the agent closed the window
        // before is that old when the agent comes a little late.
        if now_ns.wrapping_sub(known.started_ns()) < window.wrapping_mul(2) {
            known.add(now_ns);
            return Fate::Folded;
        }
        return Fate::Event(Permit::Late(known));
    }
    describe_pair(desk);
    match take_place(odd, desk) {
        Place::Taken => Fate::Event(Permit::New { odd, placed: true }),
        Place::Full => Fate::Event(Permit::New { odd, placed: false }),
        Place::None if add_beyond(odd, desk, now_ns) => Fate::Folded,
        Place::None => Fate::Event(Permit::New { odd, placed: false }),
    }
}

impl Permit {
    /// The event has its room in the ring buffer: notes that the flow has one.
    /// With [`Outcome::Discard`] another CPU was faster, and the packet was
    /// counted into its event.
    #[inline(always)]
    pub(crate) fn used(self, desk: &mut Desk, now_ns: u64) -> Outcome {
        match self {
            Self::Free => {}
            Self::Late(known) => known.start(now_ns),
            Self::New { odd, placed } => {
                let fold = Fold {
                    started_ns: now_ns,
                    last_ns: now_ns,
                    folded: 0,
                };
                if insert(odd, &desk.flow, &fold).is_err() {
                    if let Some(known) = find(odd, &desk.flow) {
                        known.add(now_ns);
                        if placed {
                            give_back(odd, desk);
                        }
                        return Outcome::Discard;
                    }
                    maps::count(Counter::FoldsFull);
                }
            }
        }
        Outcome::Submit
    }

    /// The ring buffer has no room. True when the packet is counted all the
    /// same; the flow's next packet asks again.
    #[inline(always)]
    pub(crate) fn unused(self, desk: &mut Desk, now_ns: u64) -> bool {
        match self {
            Self::Free => false,
            Self::Late(known) => {
                known.add(now_ns);
                true
            }
            Self::New { odd, placed } => {
                if placed {
                    give_back(odd, desk);
                }
                false
            }
        }
    }
}

impl LiveFold {
    #[inline(always)]
    fn started_ns(self) -> u64 {
        // SAFETY: inside the entry.
        load(unsafe { &raw mut (*self.0).started_ns })
    }

    #[inline(always)]
    fn start(self, now_ns: u64) {
        // SAFETY: inside the entry.
        store(unsafe { &raw mut (*self.0).started_ns }, now_ns);
    }

    #[inline(always)]
    fn add(self, now_ns: u64) {
        // SAFETY: inside the entry.
        store(unsafe { &raw mut (*self.0).last_ns }, now_ns);
        // SAFETY: inside the entry.
        add(unsafe { &raw mut (*self.0).folded }, 1);
    }
}

#[inline(always)]
fn find(odd: bool, flow: &Flow) -> Option<LiveFold> {
    let found = if odd {
        FOLDS_ODD.get_ptr_mut(flow)
    } else {
        FOLDS_EVEN.get_ptr_mut(flow)
    };
    found.map(LiveFold)
}

#[inline(always)]
fn insert(odd: bool, flow: &Flow, fold: &Fold) -> Result<(), i32> {
    if odd {
        FOLDS_ODD.insert(flow, fold, BPF_NOEXIST.into())
    } else {
        FOLDS_EVEN.insert(flow, fold, BPF_NOEXIST.into())
    }
}

/// A place among the events of subscriber and indicator.
enum Place {
    Taken,
    /// All are taken.
    None,
    /// The table is full, so nobody counts.
    Full,
}

#[inline(always)]
fn describe_pair(desk: &mut Desk) {
    desk.key = BoundKey {
        subscriber: desk.flow.subscriber,
        space: desk.flow.space,
        indicator: desk.flow.indicator,
        lane: 0,
        reserved: 0,
    };
}

/// CPUs that come at the same time may take one place each too many.
#[inline(always)]
fn take_place(odd: bool, desk: &mut Desk) -> Place {
    let most = maps::setting(Setting::FoldBound);
    let Some(taken) = bound(odd, &desk.key) else {
        desk.bound = Bound {
            count: 1,
            last_ns: 0,
            flow: Flow::default(),
        };
        if insert_bound(odd, &desk.key, &desk.bound) {
            return Place::Taken;
        }
        // Another CPU was faster, or there is no room.
        return match bound(odd, &desk.key) {
            Some(taken) => {
                taken.add(1);
                Place::Taken
            }
            None => {
                maps::count(Counter::FoldsFull);
                Place::Full
            }
        };
    };
    if taken.count() >= most {
        return Place::None;
    }
    taken.add(1);
    Place::Taken
}

#[inline(always)]
fn give_back(odd: bool, desk: &mut Desk) {
    desk.key.lane = 0;
    if let Some(taken) = bound(odd, &desk.key) {
        taken.add(u64::MAX);
    }
}

/// Counts a packet beyond the bound; false when there is no room for that.
#[inline(always)]
fn add_beyond(odd: bool, desk: &mut Desk, now_ns: u64) -> bool {
    desk.key.lane = BEYOND_BOUND | u32::from(desk.flow.flags);
    if let Some(beyond) = bound(odd, &desk.key) {
        beyond.note(now_ns);
        return true;
    }
    desk.bound = Bound {
        count: 1,
        last_ns: now_ns,
        flow: desk.flow,
    };
    if insert_bound(odd, &desk.key, &desk.bound) {
        return true;
    }
    match bound(odd, &desk.key) {
        Some(beyond) => {
            beyond.note(now_ns);
            true
        }
        None => {
            maps::count(Counter::FoldsFull);
            false
        }
    }
}

/// As [`LiveFold`].
#[derive(Clone, Copy)]
struct LiveBound(*mut Bound);

impl LiveBound {
    #[inline(always)]
    fn count(self) -> u64 {
        // SAFETY: inside the entry.
        load(unsafe { &raw mut (*self.0).count })
    }

    #[inline(always)]
    fn add(self, value: u64) {
        // SAFETY: inside the entry.
        add(unsafe { &raw mut (*self.0).count }, value);
    }

    /// One packet more beyond the bound.
    #[inline(always)]
    fn note(self, now_ns: u64) {
        // SAFETY: inside the entry.
        store(unsafe { &raw mut (*self.0).last_ns }, now_ns);
        self.add(1);
    }
}

#[inline(always)]
fn bound(odd: bool, key: &BoundKey) -> Option<LiveBound> {
    let found = if odd {
        BOUNDS_ODD.get_ptr_mut(key)
    } else {
        BOUNDS_EVEN.get_ptr_mut(key)
    };
    found.map(LiveBound)
}

#[inline(always)]
fn insert_bound(odd: bool, key: &BoundKey, bound: &Bound) -> bool {
    let inserted = if odd {
        BOUNDS_ODD.insert(key, bound, BPF_NOEXIST.into())
    } else {
        BOUNDS_EVEN.insert(key, bound, BPF_NOEXIST.into())
    };
    inserted.is_ok()
}

#[inline(always)]
fn load(word: *mut u64) -> u64 {
    // SAFETY: an aligned word of an entry; volatile, since other CPUs write it.
    unsafe { word.read_volatile() }
}

#[inline(always)]
fn store(word: *mut u64, value: u64) {
    // SAFETY: an aligned word of an entry; volatile, since other CPUs read it.
    unsafe { word.write_volatile(value) };
}

/// Adds to a word of an entry. (The target has no atomic arithmetic in `core`.)
#[inline(always)]
fn add(word: *mut u64, value: u64) {
    // SAFETY: an aligned word of an entry.
    unsafe {
        core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) word, in(reg) value,
            options(nostack, preserves_flags));
    }
}
