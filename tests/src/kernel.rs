//! The program in the real kernel, for tests: no interface, no mocks.

use std::{env, fs::OpenOptions, io::Write, path::Path, sync::Arc};

use jiff::Timestamp;
use matcher_common::abi::{Counter, HitEvent, InterfaceSettings, Setting};
use matcher_user::{
    consent::{
        ConsentInputs, ConsentModel, ConsentTable, ListKind, ParsedList, PurposeSet, state::List,
    },
    kernel::{
        object::Object,
        program::{Clock, LOOPBACK, Limits, Loaded, Program},
        ring::Ring,
        tables::Counters,
    },
    tables::{
        consent::{ConsentEntries, transition},
        indicators::{compile, unix_ns},
    },
};

use crate::model::{Consent, World};

/// Sizes for tests: small, so that they load fast.
pub const LIMITS: Limits = Limits {
    max_indicators: 4096,
    max_consent_entries: 4096,
    ring_bytes: 1 << 18,
};

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
    println!("skipped: needs root: {test}");
    if let Some(log) = env::var_os("MATCHER_SKIP_LOG") {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(log)
            .and_then(|mut log| writeln!(log, "{test}"))
            .expect("the log of skipped tests takes a line");
    }
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

/// Sends a frame through the program.
///
/// # Panics
/// The kernel refuses it, or the program does not let it pass.
pub fn send(loaded: &mut Loaded, frame: &[u8]) {
    send_often(loaded, frame, 1);
}

/// Sends a frame through the program, so many times in a row.
///
/// # Panics
/// The kernel refuses it, or the program does not let it pass.
pub fn send_often(loaded: &mut Loaded, frame: &[u8], times: u32) {
    let outcome = loaded
        .run(Program::Matcher, frame, LOOPBACK, times)
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
    pub fn start(loaded: &Loaded) -> Self {
        Self { last: read(loaded) }
    }

    /// What was counted since the start or the last call, in the order of the
    /// counters, without the zeros.
    ///
    /// # Panics
    /// The counters cannot be read, or one went back.
    pub fn take(&mut self, loaded: &Loaded) -> Counts {
        let now = read(loaded);
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

fn read(loaded: &Loaded) -> Counters {
    loaded
        .tables
        .counters()
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Puts a whole world into the kernel's tables, and gives the generation of
/// the C&C tables. Refusals go the way of an operator's opt-out list.
///
/// # Panics
/// It cannot be compiled or written.
pub fn install(loaded: &mut Loaded, world: &World) -> u64 {
    let tables = &mut loaded.tables;
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
        .set_subscribers(&world.subscribers)
        .unwrap_or_else(|error| panic!("{error}"));
    let plan = transition(
        &tables.consent().expect("the consent table is read"),
        &consent_entries(&world.consent),
    );
    tables
        .change_consent(&plan)
        .unwrap_or_else(|error| panic!("{error}"));
    let compiled = compile(&world.indicators).unwrap_or_else(|error| panic!("{error}"));
    tables
        .load_indicators(&compiled)
        .unwrap_or_else(|error| panic!("{error}"))
}

fn consent_entries(consent: &Consent) -> ConsentEntries {
    let lines = match consent {
        Consent::LongestPrefix(entries, default) => {
            return ConsentEntries {
                entries: entries.clone(),
                default: *default,
            };
        }
        Consent::Refusals(lines) => lines,
    };
    let mut text = String::new();
    for (prefix, refused) in lines {
        let purposes = PurposeSet::from_bits(*refused as u8);
        text.push_str(&format!("{prefix} purposes={purposes}\n"));
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
            notice_since: None,
            matching_allowed: true,
        },
        Timestamp::UNIX_EPOCH,
    );
    ConsentEntries {
        entries: table
            .entries()
            .iter()
            .map(|(prefix, allowed)| (*prefix, allowed.bits().into()))
            .collect(),
        default: table.default_allowed().bits().into(),
    }
}
