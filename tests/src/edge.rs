//! The program in the real kernel, with subscribers and opt-outs given as an
//! operator writes them.

use std::{net::IpAddr, path::Path, sync::Arc};

use ipnet::IpNet;
use jiff::Timestamp;
use matcher_common::abi::{Counter, InterfaceSettings, Setting, role};
use matcher_user::{
    consent::{
        ConsentInputs, ConsentModel, ConsentTable, ListKind, ParsedList, Space, state::List,
    },
    kernel::{
        object::Object,
        program::{Clock, LOOPBACK, Limits, Loaded, Program},
        tables::Counters,
    },
    tables::{consent::ConsentEntries, indicators::compile, spaces::SpaceTables},
};

use crate::packets;

/// The C&C server that every edge knows.
pub const CC: [u8; 4] = [198, 51, 100, 23];

/// Sizes for most tests.
pub const LIMITS: Limits = Limits {
    max_flows: 1024,
    max_indicators: 16,
    max_consent_entries: 4096,
    max_port_ranges: 65_536,
    ring_bytes: 1 << 16,
};

/// One edge, with [`CC`] listed; nobody is a subscriber yet, and nobody has
/// opted out.
pub struct Edge {
    /// The program and its tables.
    pub loaded: Loaded,
    spaces: SpaceTables,
    last: Counters,
}

/// Exits that a packet can have.
fn exits(counters: &Counters) -> Vec<(Counter, u64)> {
    counters
        .iter()
        .filter(|(counter, _)| counter.kind() == matcher_common::abi::CounterKind::Exit)
        .collect()
}

impl Edge {
    /// Loads the built-in program.
    ///
    /// # Panics
    /// It does not load.
    pub fn new(limits: Limits) -> Self {
        let object = Object::built_in().expect("the built-in object is one of this version");
        let mut loaded =
            Loaded::load(&object, limits, Clock::Replay).unwrap_or_else(|error| panic!("{error}"));
        let tables = &mut loaded.tables;
        let settings = InterfaceSettings {
            role: role::BOTH,
            source_validated: 1,
        };
        tables.set_interface(LOOPBACK, settings).unwrap();
        tables.set(Setting::ConsentDeadline, u64::MAX).unwrap();
        let cc = packets::indicator(1, IpNet::from(IpAddr::from(CC)));
        tables.load_indicators(&compile([&cc]).unwrap()).unwrap();
        let last = tables.counters().unwrap();
        let mut edge = Self {
            loaded,
            spaces: SpaceTables::default(),
            last,
        };
        edge.opt_out("");
        edge
    }

    /// Changes who is a subscriber; consent stays as it is.
    ///
    /// # Panics
    /// The kernel refuses it.
    pub fn set_spaces(&mut self, spaces: SpaceTables) {
        self.loaded.tables.set_spaces(&spaces).unwrap();
        self.spaces = spaces;
    }

    /// Makes this the opt-out list in force, and gives it compiled.
    ///
    /// # Panics
    /// A line is wrong, or the kernel refuses it.
    pub fn opt_out(&mut self, lines: &str) -> ConsentTable {
        let table = compiled(lines, &self.spaces.for_consent());
        let change = self
            .loaded
            .tables
            .set_consent(&ConsentEntries::from(&table))
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(change.without_room, 0);
        table
    }

    /// How a packet leaves the program.
    ///
    /// # Panics
    /// The kernel refuses it, it does not pass, or it has not one exit.
    pub fn exit(&mut self, frame: &[u8]) -> Counter {
        let outcome = self
            .loaded
            .run(Program::Matcher, frame, LOOPBACK, 1)
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(outcome.action, 2, "every packet passes (XDP_PASS)");
        let now = self.loaded.tables.counters().unwrap();
        let counted: Vec<Counter> = exits(&now)
            .into_iter()
            .filter(|(counter, value)| *value != self.last.get(*counter))
            .map(|(counter, _)| counter)
            .collect();
        self.last = now;
        match counted[..] {
            [exit] => exit,
            _ => panic!("exits {counted:?}"),
        }
    }
}

/// An opt-out list, compiled as the agent does.
///
/// # Panics
/// A line is wrong.
pub fn compiled(lines: &str, spaces: &[Space]) -> ConsentTable {
    let source: Arc<Path> = Path::new("opt-out").into();
    let read = ParsedList::read(ListKind::OptOut, &source, lines.as_bytes());
    assert!(read.problems.is_empty(), "{:?}", read.problems);
    let list = List {
        kind: read.kind,
        source: read.source,
        entries: read.entries,
    };
    ConsentTable::compile(
        &ConsentInputs {
            model: ConsentModel::OptOut,
            lists: vec![&list],
            spaces,
            notice_since: None,
            matching_allowed: true,
        },
        Timestamp::UNIX_EPOCH,
    )
}
