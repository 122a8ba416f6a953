//! The programs that the product is held against, with tables of their own.

use std::path::Path;

use aya::{
    Pod,
    maps::{HashMap, LpmTrie, MapData, MapError, lpm_trie::Key},
    programs::{ProgramError, Xdp, XdpMode},
};
use ipnet::IpNet;

use super::{
    super::{KernelError, attach::Mode},
    Baselines,
    rotor::instructions,
};

/// A program that is held against the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceProgram {
    /// Passes everything.
    PassOnly,
    /// One look-up in a trie of opt-outs, one in a trie of C&C prefixes.
    PlainTries,
    /// One look-up in a hash of opt-outs, one in a hash of C&C hosts.
    HashMap,
}

impl ReferenceProgram {
    fn name(self) -> &'static str {
        match self {
            Self::PassOnly => "empty",
            Self::PlainTries => "plain_tries",
            Self::HashMap => "hash_map",
        }
    }
}

/// Which tables a reference is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceTables {
    /// None.
    None,
    /// LPM tries.
    Tries,
    /// Hashes; of a prefix only its first address goes in.
    Hashes,
}

/// What a reference counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Look-ups in its C&C table.
    pub lookups: u64,
    /// Those that found an entry.
    pub hits: u64,
}

/// A loaded reference.
pub struct Reference {
    baselines: Baselines,
    tables: Tables,
}

enum Tables {
    None,
    Tries {
        consent: (Trie<4>, Trie<16>),
        cc: (Trie<4>, Trie<16>),
    },
    Hashes {
        consent: (Hash<4>, Hash<16>),
        cc: (Hash<4>, Hash<16>),
    },
}

type Trie<const N: usize> = LpmTrie<MapData, [u8; N], u32>;
type Hash<const N: usize> = HashMap<MapData, [u8; N], u32>;

impl Reference {
    /// Loads the baselines object with room for so many opt-outs and C&C
    /// entries in each family.
    ///
    /// # Errors
    /// The file is not the baselines object, or the kernel refuses.
    pub fn load(
        object: &Path,
        tables: ReferenceTables,
        opt_outs: u32,
        entries: u32,
    ) -> Result<Self, KernelError> {
        let prefix = match tables {
            ReferenceTables::Tries => "PLAIN",
            ReferenceTables::None | ReferenceTables::Hashes => "HASH",
        };
        let names =
            ["CONSENT_V4", "CONSENT_V6", "CC_V4", "CC_V6"].map(|name| format!("{prefix}_{name}"));
        let [consent4, consent6, cc4, cc6] = &names;
        let mut baselines = Baselines::load(object, |loader| {
            if tables != ReferenceTables::None {
                loader
                    .map_max_entries(consent4, opt_outs.max(1))
                    .map_max_entries(consent6, opt_outs.max(1))
                    .map_max_entries(cc4, entries.max(1))
                    .map_max_entries(cc6, entries.max(1));
            }
        })?;
        let tables = match tables {
            ReferenceTables::None => Tables::None,
            ReferenceTables::Tries => Tables::Tries {
                consent: (baselines.take(consent4)?, baselines.take(consent6)?),
                cc: (baselines.take(cc4)?, baselines.take(cc6)?),
            },
            ReferenceTables::Hashes => Tables::Hashes {
                consent: (baselines.take(consent4)?, baselines.take(consent6)?),
                cc: (baselines.take(cc4)?, baselines.take(cc6)?),
            },
        };
        Ok(Self { baselines, tables })
    }

    /// Adds opt-outs.
    ///
    /// # Errors
    /// The kernel refuses, for want of room for example.
    pub fn opt_out(&mut self, prefixes: &[IpNet]) -> Result<(), KernelError> {
        match &mut self.tables {
            Tables::None => Ok(()),
            Tables::Tries { consent, .. } => into_tries(consent, prefixes),
            Tables::Hashes { consent, .. } => into_hashes(consent, prefixes),
        }
        .map_err(full)
    }

    /// Adds C&C entries.
    ///
    /// # Errors
    /// The kernel refuses, for want of room for example.
    pub fn list(&mut self, prefixes: &[IpNet]) -> Result<(), KernelError> {
        match &mut self.tables {
            Tables::None => Ok(()),
            Tables::Tries { cc, .. } => into_tries(cc, prefixes),
            Tables::Hashes { cc, .. } => into_hashes(cc, prefixes),
        }
        .map_err(full)
    }

    /// What its programs counted since it was loaded.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn tally(&mut self) -> Result<Tally, KernelError> {
        let [lookups, hits, ..] = self.baselines.tally()?;
        Ok(Tally { lookups, hits })
    }

    /// Attaches a program to an interface of the calling thread's network
    /// namespace, as long as `self` lives.
    ///
    /// # Errors
    /// The driver does not take it.
    pub fn attach(
        &mut self,
        program: ReferenceProgram,
        ifindex: u32,
        mode: Mode,
    ) -> Result<(), KernelError> {
        let mode = match mode {
            Mode::Native => XdpMode::Driver,
            Mode::Generic => XdpMode::Skb,
        };
        self.verified(program)?
            .attach_to_if_index(ifindex, mode)
            .map(|_| ())
            .map_err(|error: ProgramError| {
                KernelError::from_source(format!("attaching {}", program.name()), error)
            })
    }

    /// Instructions that the verifier walked to accept the program; `None`
    /// where the kernel does not tell.
    ///
    /// # Errors
    /// The kernel refuses the program.
    pub fn verified_instructions(
        &mut self,
        program: ReferenceProgram,
    ) -> Result<Option<u32>, KernelError> {
        instructions(self.verified(program)?)
    }

    pub(super) fn verified(&mut self, program: ReferenceProgram) -> Result<&mut Xdp, KernelError> {
        self.baselines.verified(program.name())
    }
}

fn into_tries(tries: &mut (Trie<4>, Trie<16>), prefixes: &[IpNet]) -> Result<(), MapError> {
    for prefix in prefixes {
        let length = prefix.prefix_len().into();
        match prefix {
            IpNet::V4(net) => insert(&mut tries.0, length, net.network().octets())?,
            IpNet::V6(net) => insert(&mut tries.1, length, net.network().octets())?,
        }
    }
    Ok(())
}

fn insert<K: Pod>(
    trie: &mut LpmTrie<MapData, K, u32>,
    length: u32,
    key: K,
) -> Result<(), MapError> {
    trie.insert(&Key::new(length, key), 1, 0)
}

fn into_hashes(hashes: &mut (Hash<4>, Hash<16>), prefixes: &[IpNet]) -> Result<(), MapError> {
    for prefix in prefixes {
        match prefix {
            IpNet::V4(net) => hashes.0.insert(net.network().octets(), 1, 0)?,
            IpNet::V6(net) => hashes.1.insert(net.network().octets(), 1, 0)?,
        }
    }
    Ok(())
}

fn full(error: MapError) -> KernelError {
    KernelError::from_source("filling the tables of a reference", error)
}
