//! Loading the program, and running single packets through it.

use aya::{
    Ebpf, EbpfError, EbpfLoader, VerifierLogLevel,
    maps::Map,
    programs::{ProgramError, TestRun as _, TestRunOptions, Xdp},
};
use matcher_common::{
    abi::{self, Packet, Setting},
    table::{
        LINE_BYTES,
        class::{ROOT, ROOT_LINES},
    },
};

use crate::tables::compiled::{Family, filter, hosts};

use super::{KernelError, folds::bounds_for, object::Object, support, tables::Tables};
use crate::subscribers::MAX_VLANS;

/// Sizes of the tables. Tries take memory for what they hold, and so do the
/// entries of VLANs; all else is taken when the maps are made.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// C&C prefixes in each of the two generations, for each family. Compiled
    /// tables and rules take about 180 bytes for each, in all.
    pub max_indicators: u32,
    /// Entries in the consent table and in the subscriber space, for each
    /// family.
    pub max_consent_entries: u32,
    /// Port ranges of shared addresses.
    pub max_port_ranges: u32,
    /// Flows of hits whose repetition is folded, in each of two generations:
    /// about 310 bytes each, in each, taken when the maps are made.
    pub max_flows: u32,
    /// Bytes of the ring buffer, a power of two, at least 4096.
    pub ring_bytes: u32,
}

/// Which clock decides over the validity of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The machine's.
    Kernel,
    /// Each packet's own time, for replay.
    Replay,
}

/// A loaded object with maps of its own.
pub struct Loaded {
    pub(super) ebpf: Ebpf,
    /// The maps.
    pub tables: Tables,
}

/// The programs in the object file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The one that is attached.
    Matcher,
    /// Tells what the parser sees.
    Parse,
}

impl Program {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Matcher => "matcher",
            Self::Parse => "parse",
        }
    }
}

/// Elements of one half of each map that has two.
struct Sizes {
    rules: u32,
    classes_v4: u32,
    classes_v6: u32,
    consent_v6: u32,
    filter: u32,
    hosts_v4: u32,
    hosts_v6: u32,
}

impl Sizes {
    fn of(limits: Limits) -> Self {
        let entries = limits.max_consent_entries;
        let indicators = u64::from(limits.max_indicators);
        let lines =
            |bytes: u64| u32::try_from(bytes / u64::from(LINE_BYTES)).unwrap_or(u32::MAX / 2);
        // Head, root, leaves for opt-outs that lie eight in a leaf on average
        // (256 addresses or prefixes), and nodes: for so many lines at most.
        let tree = |an_entry: u32, nodes: u32| {
            (ROOT + ROOT_LINES)
                .saturating_add(entries / 8)
                .saturating_add(entries.saturating_mul(an_entry).clamp(1024, nodes))
        };
        Self {
            // A host inside a listed prefix leads to the rules of both.
            rules: limits
                .max_indicators
                .saturating_add(limits.max_indicators / 4)
                .saturating_add(1024),
            classes_v4: tree(32, 16_384),
            classes_v6: tree(162, 65_536),
            consent_v6: lines(filter::bytes_at_most(entries.into())),
            filter: lines(filter::bytes_at_most(indicators)),
            hosts_v4: lines(hosts::bytes_at_most(Family::V4, indicators)),
            hosts_v6: lines(hosts::bytes_at_most(Family::V6, indicators)),
        }
    }

    /// Of the maps that hold two images in one value: map, constant with the
    /// lines of one, and that number.
    fn blocks(&self) -> [(&'static str, &'static str, &u32); 5] {
        [
            ("CLASSES_V4", "CLASSES_V4_LINES", &self.classes_v4),
            ("CLASSES_V6", "CLASSES_V6_LINES", &self.classes_v6),
            (
                "CONSENT_FILTER_V6",
                "CONSENT_FILTER_V6_LINES",
                &self.consent_v6,
            ),
            ("CC_FILTER_V4", "CC_FILTER_V4_LINES", &self.filter),
            ("CC_FILTER_V6", "CC_FILTER_V6_LINES", &self.filter),
        ]
    }

    /// Of the maps whose elements make two halves: map, constant with the
    /// elements of one, and that number.
    fn halves(&self) -> [(&'static str, &'static str, &u32); 3] {
        [
            ("RULES", "RULES_HALF", &self.rules),
            ("CC_HOSTS_V4", "CC_HOSTS_V4_LINES", &self.hosts_v4),
            ("CC_HOSTS_V6", "CC_HOSTS_V6_LINES", &self.hosts_v6),
        ]
    }
}

impl Loaded {
    /// Loads `object` and makes its maps; nothing is attached.
    pub fn load(object: &Object, limits: Limits, clock: Clock) -> Result<Self, KernelError> {
        Self::load_with(object, limits, clock, |_, _| Ok(()))
    }

    /// The same; `each` sees every map before it is put to use.
    pub(super) fn load_with(
        object: &Object,
        limits: Limits,
        clock: Clock,
        mut each: impl FnMut(&str, &Map) -> Result<(), KernelError>,
    ) -> Result<Self, KernelError> {
        support::require()?;
        let sizes = Sizes::of(limits);
        let replay = u8::from(clock == Clock::Replay);
        let mut loader = EbpfLoader::new();
        loader
            .verifier_log_level(VerifierLogLevel::DEBUG | VerifierLogLevel::STATS)
            .override_global("REPLAY", &replay, true)
            .map_max_entries("HITS", limits.ring_bytes);
        for name in ["CC_V4_EVEN", "CC_V4_ODD", "CC_V6_EVEN", "CC_V6_ODD"] {
            loader.map_max_entries(name, limits.max_indicators.max(1));
        }
        for (name, constant, half) in sizes.halves() {
            loader
                .map_max_entries(name, half.saturating_mul(2))
                .override_global(constant, half, true);
        }
        let blocks = sizes.blocks();
        for (_, constant, lines) in blocks {
            loader.override_global(constant, lines, true);
        }
        let bytes = blocks.map(|(name, _, lines)| (name, lines.saturating_mul(2 * LINE_BYTES)));
        let object_bytes = object.with_value_sizes(&bytes)?;
        for name in [
            "CONSENT_V4",
            "CONSENT_V6",
            "SUBSCRIBERS_V4",
            "SUBSCRIBERS_V6",
        ] {
            loader.map_max_entries(name, limits.max_consent_entries.max(1));
        }
        loader.map_max_entries("PORT_RANGES", limits.max_port_ranges.max(1));
        loader.map_max_entries("VLAN_SPACES", MAX_VLANS);
        for name in ["FOLDS_EVEN", "FOLDS_ODD"] {
            loader.map_max_entries(name, limits.max_flows.max(1));
        }
        for name in ["BOUNDS_EVEN", "BOUNDS_ODD"] {
            loader.map_max_entries(name, bounds_for(limits.max_flows));
        }
        let mut ebpf = loader
            .load(&object_bytes)
            .map_err(|error| load_error(object, error))?;
        let tables = Tables::collect(|name| {
            let map = ebpf.take_map(name).ok_or_else(|| KernelError::Object {
                path: object.origin.clone(),
                reason: format!("has no map {name}"),
            })?;
            each(name, &map)?;
            Ok(map)
        })?;
        let mut loaded = Self { ebpf, tables };
        loaded
            .tables
            .set(Setting::AbiVersion, abi::ABI_VERSION.into())?;
        Ok(loaded)
    }

    /// Passes a program through the verifier, so that it can run or be
    /// attached.
    pub(super) fn verified(&mut self, program: Program) -> Result<&mut Xdp, KernelError> {
        let missing = || KernelError::Object {
            path: "eBPF object".into(),
            reason: format!("has no XDP program {}", program.name()),
        };
        let xdp: &mut Xdp = self
            .ebpf
            .program_mut(program.name())
            .and_then(|found| found.try_into().ok())
            .ok_or_else(missing)?;
        match xdp.load() {
            Ok(()) => {
                #[cfg(feature = "kernel-log")]
                super::log::follow(xdp);
                Ok(xdp)
            }
            Err(ProgramError::AlreadyLoaded) => Ok(xdp),
            Err(ProgramError::LoadError {
                io_error,
                verifier_log,
            }) => Err(match io_error.raw_os_error() {
                Some(errno) if errno == rustix::io::Errno::PERM.raw_os_error() => {
                    KernelError::from_source("loading the program", io_error)
                }
                _ => KernelError::Unsupported(support::explain_load(&verifier_log.to_string())),
            }),
            Err(error) => Err(KernelError::from_source("loading the program", error)),
        }
    }

    /// Runs one frame through a program in the kernel, `repeat` times.
    /// `ifindex` is the interface it seems to come in on; it must exist in
    /// this network namespace.
    pub fn run(
        &mut self,
        program: Program,
        frame: &[u8],
        ifindex: u32,
        repeat: u32,
    ) -> Result<Outcome, KernelError> {
        run(self.verified(program)?, frame, ifindex, repeat)
    }

    /// What the parser in the kernel sees of one frame.
    pub fn parse(&mut self, frame: &[u8]) -> Result<Packet, KernelError> {
        self.run(Program::Parse, frame, LOOPBACK, 1)?;
        self.tables.parse_report()
    }
}

/// Runs one frame through a verified program.
pub(super) fn run(
    xdp: &Xdp,
    frame: &[u8],
    ifindex: u32,
    repeat: u32,
) -> Result<Outcome, KernelError> {
    let context = context(frame, ifindex);
    let result = xdp
        .test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::new()
        })
        .map_err(|error| {
            KernelError::from_source(
                format!("running a frame of {} bytes in the kernel", frame.len()),
                error,
            )
        })?;
    Ok(Outcome {
        action: result.return_value,
        duration: result.duration,
    })
}

/// Index of `lo`, the first interface of every network namespace; packets of
/// a replay seem to come in there. Nothing is attached to it.
pub const LOOPBACK: u32 = 1;

/// Frames that `BPF_PROG_TEST_RUN` takes, in bytes (net/bpf/test_run.c): an
/// Ethernet header at least, and what fits into the fragments of one packet.
pub const FRAME_BYTES: std::ops::RangeInclusive<usize> = 14..=65_535;

/// What a run of a program gave.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// `XDP_PASS` is 2.
    pub action: u32,
    /// Average duration of one run, whole nanoseconds.
    pub duration: std::time::Duration,
}

/// `struct xdp_md` (linux/bpf.h) for a frame: data, data_end, data_meta,
/// ingress_ifindex, rx_queue_index, egress_ifindex.
pub(super) fn context(frame: &[u8], ifindex: u32) -> [u8; 24] {
    let end = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let mut context = [0; 24];
    for (slot, value) in context.chunks_exact_mut(4).zip([0, end, 0, ifindex, 0, 0]) {
        slot.copy_from_slice(&value.to_ne_bytes());
    }
    context
}

fn load_error(object: &Object, error: EbpfError) -> KernelError {
    match error {
        EbpfError::ParseError(error) => KernelError::Object {
            path: object.origin.clone(),
            reason: error.to_string(),
        },
        error => KernelError::from_source(format!("loading {}", object.origin), error),
    }
}
