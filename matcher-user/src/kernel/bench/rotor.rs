//! One packet whose addresses change with every run.

use std::{path::Path, time::Duration};

use aya::{
    maps::{MapData, ProgramArray},
    programs::{ProgramError, TestRun as _, TestRunOptions, Xdp},
};

use super::{
    super::{
        KernelError,
        program::{LOOPBACK, Loaded, Outcome, Program, context},
    },
    BareRing, Baselines, Reference, ReferenceProgram, count_of, fill,
};

/// Source and destination of a packet, in network order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flows {
    /// IPv4: four bytes each.
    V4(Vec<[u8; 8]>),
    /// IPv6: sixteen bytes each.
    V6(Vec<[u8; 32]>),
}

impl Flows {
    fn len(&self) -> usize {
        match self {
            Self::V4(flows) => flows.len(),
            Self::V6(flows) => flows.len(),
        }
    }

    fn rotor(&self) -> &'static str {
        match self {
            Self::V4(_) => "rotate_v4",
            Self::V6(_) => "rotate_v6",
        }
    }
}

/// A program of the baselines object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// Passes everything.
    Empty,
    /// Reads the addresses of the packet and passes it.
    ParseMin,
}

impl Baseline {
    fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::ParseMin => "parse_min",
        }
    }
}

/// What runs after the addresses have been changed.
pub enum Target<'a> {
    /// A baseline.
    Baseline(Baseline),
    /// The parser alone.
    Parse(&'a mut Loaded),
    /// The program that is attached, with these tables.
    Matcher(&'a mut Loaded),
    /// A reference, with its tables.
    Reference(&'a mut Reference, ReferenceProgram),
    /// A record of the size of a hit for each packet, and nothing else.
    Bare(&'a mut BareRing),
}

/// The loaded baselines object with one list of addresses.
pub struct Rotor {
    baselines: Baselines,
    rotor: &'static str,
    target: ProgramArray<MapData>,
}

impl Rotor {
    /// Loads the baselines object; packets will take their addresses from
    /// `flows`, round and round.
    ///
    /// # Errors
    /// The file is not the baselines object, `flows` is empty, or the kernel
    /// refuses.
    pub fn load(object: &Path, flows: &Flows) -> Result<Self, KernelError> {
        Self::with(object, flows, flows.rotor())
    }

    /// The same for IPv4, but each packet has the source of one flow and the
    /// destination of another, so that hardly any pair comes twice; and it
    /// keeps a [`Rotor::pace`].
    ///
    /// # Errors
    /// As [`Rotor::load`].
    pub fn load_pairs(object: &Path, flows: Vec<[u8; 8]>) -> Result<Self, KernelError> {
        Self::with(object, &Flows::V4(flows), "rotate_pairs_v4")
    }

    fn with(object: &Path, flows: &Flows, rotor: &'static str) -> Result<Self, KernelError> {
        let count = count_of(object, flows.len())?;
        let map = match flows {
            Flows::V4(_) => "FLOWS_V4",
            Flows::V6(_) => "FLOWS_V6",
        };
        let mut baselines = Baselines::load(object, |loader| {
            loader
                .override_global("FLOWS", &count, true)
                .map_max_entries(map, count);
        })?;
        let target = baselines.take("TARGET")?;
        match flows {
            Flows::V4(flows) => fill(baselines.array(map)?, flows)?,
            Flows::V6(flows) => fill(baselines.array(map)?, flows)?,
        }
        let mut loaded = Self {
            baselines,
            rotor,
            target,
        };
        // Before any target is set: what the slot takes is fixed by the
        // program that uses it.
        loaded.baselines.verified(loaded.rotor)?;
        Ok(loaded)
    }

    /// Puts a program behind the rotation, for the runs to come.
    pub fn aim(&mut self, target: Target<'_>) -> Result<(), KernelError> {
        let fd = match target {
            Target::Baseline(baseline) => self.baselines.verified(baseline.name())?.fd(),
            Target::Parse(loaded) => loaded.verified(Program::Parse)?.fd(),
            Target::Matcher(loaded) => loaded.verified(Program::Matcher)?.fd(),
            Target::Reference(reference, program) => reference.verified(program)?.fd(),
            Target::Bare(bare) => bare.verified()?.fd(),
        }
        .and_then(|fd| fd.try_clone().map_err(ProgramError::IOError))
        .map_err(|error| KernelError::from_source("naming the program to run", error))?;
        self.target
            .set(0, &fd, 0)
            .map_err(|error| KernelError::from_source("choosing the program to run", error))
    }

    /// Lets so much time go by from one packet to the next, up to a
    /// millisecond; zero: none. Only for one of [`Rotor::load_pairs`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn pace(&mut self, between: Duration) -> Result<(), KernelError> {
        let nanoseconds = u64::try_from(between.as_nanos()).unwrap_or(u64::MAX);
        self.baselines
            .array::<u64>("PACE")?
            .set(0, nanoseconds, 0)
            .map_err(|error| KernelError::from_source("setting the pace of packets", error))
    }

    /// Runs `frame` `repeat` times, each time with the next addresses.
    ///
    /// # Errors
    /// The kernel refuses, or the target did not run.
    pub fn run(&mut self, frame: &[u8], repeat: u32) -> Result<Outcome, KernelError> {
        let context = context(frame, LOOPBACK);
        let result = self
            .baselines
            .verified(self.rotor)?
            .test_run(TestRunOptions {
                data_in: Some(frame),
                ctx_in: Some(&context),
                repeat,
                ..TestRunOptions::new()
            })
            .map_err(|error| KernelError::from_source("running the benchmark's packet", error))?;
        Ok(Outcome {
            action: result.return_value,
            duration: result.duration,
        })
    }

    /// Instructions that the verifier walked to accept a baseline; `None`
    /// where the kernel does not tell.
    pub fn verified_instructions(
        &mut self,
        baseline: Baseline,
    ) -> Result<Option<u32>, KernelError> {
        instructions(self.baselines.verified(baseline.name())?)
    }
}

impl Loaded {
    /// Instructions that the verifier walked to accept the program; `None`
    /// where the kernel does not tell.
    pub fn verified_instructions(&mut self, program: Program) -> Result<Option<u32>, KernelError> {
        instructions(self.verified(program)?)
    }
}

pub(super) fn instructions(xdp: &Xdp) -> Result<Option<u32>, KernelError> {
    xdp.info()
        .map(|info| info.verified_instruction_count())
        .map_err(|error| KernelError::from_source("asking about a loaded program", error))
}
