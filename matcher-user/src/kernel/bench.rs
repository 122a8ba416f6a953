//! What `cargo xtask bench` runs in the kernel: the product's own program, and
//! the baselines it is held against, on one packet whose addresses change with
//! every run (`matcher-ebpf/src/baselines.rs` says how).

use std::{fs, path::Path};

use aya::{
    Ebpf, EbpfError, EbpfLoader, VerifierLogLevel,
    maps::{Array, MapData, ProgramArray},
    programs::{ProgramError, TestRun as _, TestRunOptions, Xdp},
};

use super::{
    KernelError,
    program::{LOOPBACK, Loaded, Outcome, Program, context},
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
}

/// The loaded baselines object with one list of addresses.
pub struct Rotor {
    ebpf: Ebpf,
    rotor: &'static str,
    target: ProgramArray<MapData>,
    origin: String,
}

impl Rotor {
    /// Loads the baselines object; packets will take their addresses from
    /// `flows`, round and round.
    ///
    /// # Errors
    /// The file is not the baselines object, `flows` is empty, or the kernel
    /// refuses.
    pub fn load(object: &Path, flows: &Flows) -> Result<Self, KernelError> {
        let origin = object.display().to_string();
        let wrong = |reason: String| KernelError::Object {
            path: origin.clone(),
            reason,
        };
        let bytes = fs::read(object).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let count = u32::try_from(flows.len())
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(|| wrong(format!("cannot rotate {} flows", flows.len())))?;
        let map = match flows {
            Flows::V4(_) => "FLOWS_V4",
            Flows::V6(_) => "FLOWS_V6",
        };
        let mut ebpf = EbpfLoader::new()
            .verifier_log_level(VerifierLogLevel::DEBUG | VerifierLogLevel::STATS)
            .override_global("FLOWS", &count, true)
            .map_max_entries(map, count)
            .load(&bytes)
            .map_err(|error| match error {
                EbpfError::ParseError(error) => wrong(error.to_string()),
                error => KernelError::from_source(format!("loading {origin}"), error),
            })?;
        let missing = |name: &str| wrong(format!("has no map {name}"));
        let typed = |error| KernelError::from_source("a map of the baselines", error);
        let target = ebpf.take_map("TARGET").ok_or_else(|| missing("TARGET"))?;
        let target = ProgramArray::try_from(target).map_err(typed)?;
        // Left where it is: loading a program needs it open.
        let addresses = ebpf.map_mut(map).ok_or_else(|| missing(map))?;
        match flows {
            Flows::V4(flows) => fill(Array::try_from(addresses).map_err(typed)?, flows)?,
            Flows::V6(flows) => fill(Array::try_from(addresses).map_err(typed)?, flows)?,
        }
        let mut loaded = Self {
            ebpf,
            rotor: flows.rotor(),
            target,
            origin,
        };
        // Before any target is set: what the slot takes is fixed by the
        // program that uses it.
        loaded.verified(loaded.rotor)?;
        Ok(loaded)
    }

    /// Puts a program behind the rotation, for the runs to come.
    pub fn aim(&mut self, target: Target<'_>) -> Result<(), KernelError> {
        let fd = match target {
            Target::Baseline(baseline) => self.verified(baseline.name())?.fd(),
            Target::Parse(loaded) => loaded.verified(Program::Parse)?.fd(),
            Target::Matcher(loaded) => loaded.verified(Program::Matcher)?.fd(),
        }
        .and_then(|fd| fd.try_clone().map_err(ProgramError::IOError))
        .map_err(|error| KernelError::from_source("naming the program to run", error))?;
        self.target
            .set(0, &fd, 0)
            .map_err(|error| KernelError::from_source("choosing the program to run", error))
    }

    /// Runs `frame` `repeat` times, each time with the next addresses.
    ///
    /// # Errors
    /// The kernel refuses, or the target did not run.
    pub fn run(&mut self, frame: &[u8], repeat: u32) -> Result<Outcome, KernelError> {
        let context = context(frame, LOOPBACK);
        let result = self
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
        instructions(self.verified(baseline.name())?)
    }

    fn verified(&mut self, name: &str) -> Result<&mut Xdp, KernelError> {
        let xdp: &mut Xdp = self
            .ebpf
            .program_mut(name)
            .and_then(|found| found.try_into().ok())
            .ok_or_else(|| KernelError::Object {
                path: self.origin.clone(),
                reason: format!("has no XDP program {name}"),
            })?;
        match xdp.load() {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(xdp),
            Err(error) => Err(KernelError::from_source(format!("loading {name}"), error)),
        }
    }
}

impl Loaded {
    /// Instructions that the verifier walked to accept the program; `None`
    /// where the kernel does not tell.
    pub fn verified_instructions(&mut self, program: Program) -> Result<Option<u32>, KernelError> {
        instructions(self.verified(program)?)
    }
}

fn instructions(xdp: &Xdp) -> Result<Option<u32>, KernelError> {
    xdp.info()
        .map(|info| info.verified_instruction_count())
        .map_err(|error| KernelError::from_source("asking about a loaded program", error))
}

fn fill<Flow: aya::Pod>(
    mut map: Array<&mut MapData, Flow>,
    flows: &[Flow],
) -> Result<(), KernelError> {
    for (index, flow) in (0..).zip(flows) {
        map.set(index, flow, 0)
            .map_err(|error| KernelError::from_source("writing the addresses of packets", error))?;
    }
    Ok(())
}
