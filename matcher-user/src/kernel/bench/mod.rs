//! What `cargo xtask bench` needs of the kernel beside the product's own
//! programs (`matcher-ebpf/src/baselines.rs`).
//!
//! - `rotor`: gives each packet of a test run new addresses.
//! - `reference`: plain tries and hashes, run or attached.
//! - `generator`: live frames into an interface.
//! - `bare`: a ring buffer with nothing before or behind it.
//! - `foreign`: the pinned map of another product.
//! - `memory`: what the maps of this process take.

mod bare;
mod foreign;
mod generator;
mod memory;
mod reference;
mod rotor;

use std::{fs, path::Path};

use aya::{
    Ebpf, EbpfError, EbpfLoader, VerifierLogLevel,
    maps::{Array, Map, MapData, MapError},
    programs::{ProgramError, Xdp},
};

use super::KernelError;

pub use bare::{BareConsumer, BareRing};
pub use foreign::XdpFilterAddresses;
pub use generator::{Generator, Passed};
pub use memory::{MapMemory, maps_of_this_process};
pub use reference::{Reference, ReferenceProgram, ReferenceTables, Tally};
pub use rotor::{Baseline, Flows, Rotor, Target};

/// The loaded baselines object.
struct Baselines {
    ebpf: Ebpf,
    origin: String,
}

impl Baselines {
    /// Loads it; `set` sizes its maps and sets its constants.
    fn load<'a>(object: &Path, set: impl FnOnce(&mut EbpfLoader<'a>)) -> Result<Self, KernelError> {
        let origin = object.display().to_string();
        let wrong = |reason: String| KernelError::Object {
            path: origin.clone(),
            reason,
        };
        let bytes = fs::read(object).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let mut loader = EbpfLoader::new();
        loader.verifier_log_level(VerifierLogLevel::DEBUG | VerifierLogLevel::STATS);
        set(&mut loader);
        let ebpf = loader.load(&bytes).map_err(|error| match error {
            EbpfError::ParseError(error) => wrong(error.to_string()),
            error => KernelError::from_source(format!("loading {origin}"), error),
        })?;
        Ok(Self { ebpf, origin })
    }

    fn missing(&self, name: &str) -> KernelError {
        KernelError::Object {
            path: self.origin.clone(),
            reason: format!("has no map {name}"),
        }
    }

    /// A map, taken out: loading a program that uses it still works, its place
    /// in the instructions is already filled in.
    fn take<T: TryFrom<Map, Error = MapError>>(&mut self, name: &str) -> Result<T, KernelError> {
        let map = self.ebpf.take_map(name).ok_or_else(|| self.missing(name))?;
        T::try_from(map).map_err(typed)
    }

    /// A map, left where it is: loading a program needs it open.
    fn array<V: aya::Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, V>, KernelError> {
        let missing = self.missing(name);
        let map = self.ebpf.map_mut(name).ok_or(missing)?;
        Array::try_from(map).map_err(typed)
    }

    /// A program, passed through the verifier.
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

    /// What the programs counted: `TALLY` of the object.
    fn tally(&mut self) -> Result<[u64; 4], KernelError> {
        self.array::<[u64; 4]>(".bss")?
            .get(&0, 0)
            .map_err(|error| KernelError::from_source("reading what the baselines counted", error))
    }
}

fn typed(error: MapError) -> KernelError {
    KernelError::from_source("a map of the baselines", error)
}

/// Writes addresses into a map, one system call each.
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

/// So many of them, as the object's constant wants it.
fn count_of(object: &Path, flows: usize) -> Result<u32, KernelError> {
    u32::try_from(flows)
        .ok()
        .filter(|count| *count > 0)
        .ok_or_else(|| KernelError::Object {
            path: object.display().to_string(),
            reason: format!("cannot rotate {flows} flows"),
        })
}
