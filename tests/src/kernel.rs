//! The program in the real kernel, for tests: no interface, no mocks.

use std::{
    mem,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use matcher_common::abi::{Counter, HitEvent, InterfaceSettings, Setting};
use matcher_user::{
    consent::{
        Answer, ConsentInputs, ConsentModel, ConsentTable, ListKind, ParsedList, PortRun,
        PurposeSet, state::List,
    },
    kernel::{
        object::Object,
        program::{Clock, LOOPBACK, Limits, Loaded, Program},
        ring::Ring,
        tables::{Counters, Tables},
    },
    tables::{
        consent::ConsentEntries,
        indicators::{compile, unix_ns},
        spaces::SpaceTables,
    },
};

use crate::{
    matcher::PATIENCE,
    model::{Consent, Sharer, World},
    skip::skip,
};

/// Sizes for tests: small, so that they load fast.
pub const LIMITS: Limits = Limits {
    max_flows: 1024,
    max_indicators: 4096,
    max_consent_entries: 4096,
    max_port_ranges: 4096,
    ring_bytes: 1 << 18,
};

/// How many changes a test has meet packets.
const CHANGES: usize = 50;

/// `XDP_PASS` (linux/bpf.h), the only action of a passive program.
const PASS: u32 = 2;

/// Whether `test` has to be skipped because this process is not root. Says so,
/// also to the log of `cargo xtask test`.
///
/// # Panics
/// The log cannot be written.
pub fn is_skipped(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return false;
    }
    skip(test, "needs root");
    true
}

/// The built-in program with maps of its own, at [`LIMITS`].
///
/// # Panics
/// It does not load.
pub fn load(clock: Clock) -> Loaded {
    load_with(LIMITS, clock)
}

/// The built-in program with maps of its own.
///
/// # Panics
/// It does not load.
pub fn load_with(limits: Limits, clock: Clock) -> Loaded {
    let object = Object::built_in().expect("the built-in object is one of this version");
    Loaded::load(&object, limits, clock).unwrap_or_else(|error| panic!("{error}"))
}

/// Sends a frame through the program. The first one takes a while: it has the
/// program verified.
///
/// # Panics
/// The kernel refuses it, or the program does not let it pass.
pub fn send(loaded: &mut Loaded, frame: &[u8]) {
    run(loaded, frame, 1);
}

/// Sends a frame so many times.
///
/// # Panics
/// The kernel refuses it, or the program does not let it pass.
pub fn send_often(loaded: &mut Loaded, frame: &[u8], times: u64) {
    // One by one: before it repeats a frame, the kernel puts the program into
    // its dispatcher (net/bpf/test_run.c) and waits for all CPUs, which takes
    // longer than all of these.
    for _ in 0..times {
        run(loaded, frame, 1);
    }
}

fn run(loaded: &mut Loaded, frame: &[u8], repeat: u32) {
    let outcome = loaded
        .run(Program::Matcher, frame, LOOPBACK, repeat)
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(outcome.action, PASS, "every packet passes");
}

/// Every event that waits, given back to the kernel.
///
/// # Panics
/// A record is no event.
pub fn drain(ring: &mut Ring) -> Vec<HitEvent> {
    let mut events = Vec::new();
    while let Some(event) = ring.next_event() {
        events.push(event.unwrap_or_else(|error| panic!("{error}")));
    }
    ring.release();
    events
}

/// What was counted, without the zeros.
pub type Counts = Vec<(Counter, u64)>;

/// What was counted since the last time.
#[derive(Debug)]
pub struct Tally {
    last: Counters,
}

impl Tally {
    /// Starts to count now.
    ///
    /// # Panics
    /// The counters cannot be read.
    pub fn start(tables: &Tables) -> Self {
        Self { last: read(tables) }
    }

    /// What was counted since the start or the last call, in the order of the
    /// counters, without the zeros.
    ///
    /// # Panics
    /// The counters cannot be read, or one went back.
    pub fn take(&mut self, tables: &Tables) -> Counts {
        let now = read(tables);
        let counts = now
            .iter()
            .filter_map(|(counter, value)| {
                let before = self.last.get(counter);
                let more = value
                    .checked_sub(before)
                    .unwrap_or_else(|| panic!("{counter:?} went from {before} to {value}"));
                (more > 0).then_some((counter, more))
            })
            .collect();
        self.last = now;
        counts
    }
}

fn read(tables: &Tables) -> Counters {
    tables.counters().unwrap_or_else(|error| panic!("{error}"))
}

/// Puts a whole world into the kernel's tables, and gives the generation of
/// the C&C tables.
///
/// # Panics
/// It cannot be compiled or written.
pub fn install(tables: &mut Tables, world: &World) -> u64 {
    let deadline = if world.consent_confirmed { u64::MAX } else { 0 };
    let settings = [
        (Setting::Stopped, u64::from(world.stopped)),
        (Setting::ConsentDeadline, deadline),
        (Setting::ReplayNow, unix_ns(world.now)),
    ];
    for (setting, value) in settings {
        tables.set(setting, value).expect("settings are written");
    }
    match world.role {
        None => tables.remove_interface(LOOPBACK),
        Some(role) => tables.set_interface(
            LOOPBACK,
            InterfaceSettings {
                role,
                source_validated: u32::from(world.source_validated),
            },
        ),
    }
    .expect("roles are written");
    tables
        .set_spaces(&SpaceTables::one(world.subscribers.iter().copied()))
        .unwrap_or_else(|error| panic!("{error}"));
    set_consent(tables, &world.consent, &world.sharers);
    let compiled = compile(&world.indicators).unwrap_or_else(|error| panic!("{error}"));
    tables
        .load_indicators(&compiled)
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Changes consent the way that the agent does: restrictions first. Refusals
/// go the way of an operator's opt-out list.
///
/// # Panics
/// It cannot be compiled or written.
pub fn set_consent(tables: &mut Tables, consent: &Consent, sharers: &[Sharer]) {
    let change = tables
        .set_consent(&consent_entries(consent, sharers))
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(change.without_room, 0);
}

fn consent_entries(consent: &Consent, sharers: &[Sharer]) -> ConsentEntries {
    let lines = match consent {
        Consent::LongestPrefix(entries, default) => {
            let set = |bits: u32| PurposeSet::from_bits(bits as u8);
            // Sharers have addresses of their own here.
            let shared = sharers.iter().map(|sharer| {
                let (first, last) = sharer.ports;
                let run = PortRun {
                    first,
                    last,
                    value: set(*default & !sharer.refused),
                };
                (sharer.prefix.into(), Answer::new(set(*default), [run]))
            });
            return ConsentEntries {
                entries: entries
                    .iter()
                    .map(|(prefix, allowed)| ((*prefix).into(), Answer::Whole(set(*allowed))))
                    .chain(shared)
                    .collect(),
                default: set(*default),
            };
        }
        Consent::Refusals(lines) => lines,
    };
    let mut text = String::new();
    for (prefix, refused) in lines {
        let purposes = PurposeSet::from_bits(*refused as u8);
        text.push_str(&format!("{prefix} purposes={purposes}\n"));
    }
    for Sharer {
        prefix,
        ports: (first, last),
        refused,
    } in sharers
    {
        let purposes = PurposeSet::from_bits(*refused as u8);
        text.push_str(&format!(
            "{prefix} ports={first}-{last} purposes={purposes}\n"
        ));
    }
    let source: Arc<Path> = Path::new("opt-out").into();
    let read = ParsedList::read(ListKind::OptOut, &source, text.as_bytes());
    assert!(read.is_clean(), "{:?}", read.problems);
    let list = List {
        kind: read.kind,
        source: read.source,
        entries: read.entries,
    };
    let table = ConsentTable::compile(
        &ConsentInputs {
            model: ConsentModel::OptOut,
            lists: vec![&list],
            spaces: &[],
            notice_since: None,
            matching_allowed: true,
        },
        Timestamp::UNIX_EPOCH,
    );
    ConsentEntries::from(&table)
}

/// Sends frames while somebody else writes the tables.
pub struct Sender {
    loaded: Loaded,
}

/// Parts the program from its tables, for tests of what happens when packets
/// and changes meet.
///
/// # Panics
/// No second program loads.
pub fn part(mut loaded: Loaded) -> (Sender, Tables) {
    // So that the sender has not to wait for the verifier.
    send(&mut loaded, &[0; 14]);
    // Its maps take the place of the ones that are handed out; nothing asks
    // for them.
    let mut spare = load(Clock::Kernel);
    mem::swap(&mut loaded.tables, &mut spare.tables);
    (Sender { loaded }, spare.tables)
}

impl Sender {
    /// Sends `frame` without a pause while `change` is called again and again,
    /// with the number of the call, from 1 on. Every change meets packets under way, and
    /// packets meet every state: the next change waits until some were decided
    /// after this one, however little of a CPU the sender gets.
    ///
    /// # Panics
    /// The kernel refuses a frame, the program does not let it pass, or none is
    /// sent for a minute.
    pub fn send_meanwhile(
        mut self,
        frame: &[u8],
        tables: &mut Tables,
        mut change: impl FnMut(&mut Tables, usize),
    ) {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    run(&mut self.loaded, frame, 20_000);
                }
            });
            let _done = SetAtEnd(&done);
            for number in 1..=CHANGES {
                change(tables, number);
                let (decided, since) = (read(tables).packets(), Instant::now());
                while read(tables).packets() == decided {
                    assert!(since.elapsed() < PATIENCE, "no packet is sent");
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
    }
}

/// Ends the sender also when the one who changes panics.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
