//! Typed access to the maps of the program, pinned or not.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, lpm_trie::Key};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use matcher_common::abi::{
    self, ConsentEntry, Counter, InterfaceSettings, Packet, Rule, RuleSpan, Setting,
};
use zerocopy::{FromBytes, IntoBytes};

use super::{KernelError, error::root_errno, grace::wait_for_packets};
use crate::tables::{
    consent::{ConsentEntries, Transition},
    indicators::IndicatorTables,
};

type Word = [u8; 4];

/// The maps.
pub struct Tables {
    settings: Array<MapData, u64>,
    counters: PerCpuArray<MapData, u64>,
    interfaces: HashMap<MapData, u32, [u8; size_of::<InterfaceSettings>()]>,
    subscribers: SpaceTries<Word>,
    consent: SpaceTries<[u8; size_of::<ConsentEntry>()]>,
    even: Half,
    odd: Half,
    pub(super) hits: MapData,
    report: Array<MapData, [u8; size_of::<Packet>()]>,
}

/// One half of the C&C tables.
struct Half {
    prefixes: Tries<[u8; size_of::<RuleSpan>()]>,
    rules: HashMap<MapData, u32, [u8; size_of::<Rule>()]>,
}

/// Every packet counter, summed over CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<Counter, u64>);

impl Counters {
    /// The value of one counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(&counter).copied().unwrap_or(0)
    }

    /// Packets seen: the sum of all exits.
    pub fn packets(&self) -> u64 {
        self.0
            .iter()
            .filter(|(counter, _)| counter.kind() == abi::CounterKind::Exit)
            .map(|(_, value)| value)
            .sum()
    }

    /// All counters in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        self.0.iter().map(|(counter, value)| (*counter, *value))
    }
}

impl Tables {
    /// Collects the maps; `get` hands out each by name.
    pub(super) fn collect(
        mut get: impl FnMut(&str) -> Result<Map, KernelError>,
    ) -> Result<Self, KernelError> {
        fn typed<T: TryFrom<Map, Error = MapError>>(
            name: &str,
            map: Map,
        ) -> Result<T, KernelError> {
            T::try_from(map).map_err(|error| KernelError::from_source(format!("map {name}"), error))
        }
        let mut half = |v4: &str, v6: &str, rules: &str| -> Result<Half, KernelError> {
            Ok(Half {
                prefixes: Tries {
                    v4: typed(v4, get(v4)?)?,
                    v6: typed(v6, get(v6)?)?,
                },
                rules: typed(rules, get(rules)?)?,
            })
        };
        let even = half("CC_V4_EVEN", "CC_V6_EVEN", "RULES_EVEN")?;
        let odd = half("CC_V4_ODD", "CC_V6_ODD", "RULES_ODD")?;
        let subscribers = SpaceTries {
            v4: typed("SUBSCRIBERS_V4", get("SUBSCRIBERS_V4")?)?,
            v6: typed("SUBSCRIBERS_V6", get("SUBSCRIBERS_V6")?)?,
        };
        let consent = SpaceTries {
            v4: typed("CONSENT_V4", get("CONSENT_V4")?)?,
            v6: typed("CONSENT_V6", get("CONSENT_V6")?)?,
        };
        let hits = match get("HITS")? {
            Map::RingBuf(data) => data,
            _ => {
                return Err(KernelError::Failed {
                    action: "map HITS".into(),
                    reason: "is not a ring buffer".into(),
                });
            }
        };
        Ok(Self {
            settings: typed("SETTING_VALUES", get("SETTING_VALUES")?)?,
            counters: typed("COUNTERS", get("COUNTERS")?)?,
            interfaces: typed("INTERFACES", get("INTERFACES")?)?,
            subscribers,
            consent,
            even,
            odd,
            hits,
            report: typed("PARSE_REPORT", get("PARSE_REPORT")?)?,
        })
    }

    /// One setting.
    pub fn setting(&self, setting: Setting) -> Result<u64, KernelError> {
        self.settings.get(&(setting as u32), 0).map_err(|error| {
            KernelError::from_source(format!("reading setting {setting:?}"), error)
        })
    }

    /// Writes one setting; in force for the next packet.
    pub fn set(&mut self, setting: Setting, value: u64) -> Result<(), KernelError> {
        self.settings
            .set(setting as u32, value, 0)
            .map_err(|error| {
                KernelError::from_source(format!("writing setting {setting:?}"), error)
            })
    }

    /// All counters.
    pub fn counters(&self) -> Result<Counters, KernelError> {
        let mut counters = BTreeMap::new();
        for counter in Counter::ALL {
            let values = self
                .counters
                .get(&(*counter as u32), 0)
                .map_err(|error| KernelError::from_source("reading counters", error))?;
            counters.insert(*counter, values.iter().sum());
        }
        Ok(Counters(counters))
    }

    /// Gives an interface its role.
    pub fn set_interface(
        &mut self,
        ifindex: u32,
        settings: InterfaceSettings,
    ) -> Result<(), KernelError> {
        let mut value = [0; size_of::<InterfaceSettings>()];
        value.copy_from_slice(settings.as_bytes());
        self.interfaces
            .insert(ifindex, value, 0)
            .map_err(|error| KernelError::from_source("writing the interface table", error))
    }

    /// The roles by interface index.
    pub fn interfaces(&self) -> Result<Vec<(u32, InterfaceSettings)>, KernelError> {
        self.interfaces
            .iter()
            .filter_map(|entry| match entry {
                Ok((ifindex, value)) => InterfaceSettings::read_from_bytes(&value)
                    .ok()
                    .map(|settings| Ok((ifindex, settings))),
                Err(error) => Some(Err(KernelError::from_source(
                    "reading the interface table",
                    error,
                ))),
            })
            .collect()
    }

    /// Takes an interface's role away; its packets then pass unmatched.
    pub fn remove_interface(&mut self, ifindex: u32) -> Result<(), KernelError> {
        match self.interfaces.remove(&ifindex) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => match root_errno(&error) {
                Some(rustix::io::Errno::NOENT) => Ok(()),
                _ => Err(KernelError::from_source(
                    "writing the interface table",
                    error,
                )),
            },
        }
    }

    /// Makes the subscriber space hold exactly these prefixes. On the way it
    /// holds the old ones and the new ones: an address in both is at no moment
    /// outside, where its subscriber's refusal would not count (R1).
    pub fn set_subscribers(&mut self, prefixes: &[IpNet]) -> Result<(), KernelError> {
        const TABLE: &str = "subscriber space";
        let wanted: BTreeSet<IpNet> = prefixes.iter().map(IpNet::trunc).collect();
        let old = self.subscribers.entries(TABLE)?;
        for (done, prefix) in wanted.iter().enumerate() {
            self.subscribers
                .insert(TABLE, SIZE_KEY, done, prefix, [1, 0, 0, 0])?;
        }
        for (prefix, _) in old {
            if !wanted.contains(&prefix) {
                self.subscribers.remove(TABLE, &prefix)?;
            }
        }
        Ok(())
    }

    /// Prefixes in the subscriber space.
    pub fn subscribers(&self) -> Result<Vec<IpNet>, KernelError> {
        Ok(self
            .subscribers
            .entries("subscriber space")?
            .into_iter()
            .map(|(prefix, _)| prefix)
            .collect())
    }

    /// What the consent table holds now.
    pub fn consent(&self) -> Result<ConsentEntries, KernelError> {
        let entries = self
            .consent
            .entries("consent")?
            .into_iter()
            .map(|(prefix, value)| (prefix, consent_entry(&value).allowed))
            .collect();
        let default = self.setting(Setting::DefaultPurposes)?;
        Ok(ConsentEntries {
            entries,
            default: u32::try_from(default).unwrap_or(0),
        })
    }

    /// Carries out a planned change of consent, restrictions first.
    pub fn change_consent(&mut self, plan: &Transition) -> Result<(), KernelError> {
        self.set(Setting::DefaultPurposes, plan.narrow_default.into())?;
        for (done, (prefix, value)) in plan.restrict.iter().chain(&plan.grant).enumerate() {
            self.consent
                .insert("consent", SIZE_KEY, done, prefix, consent_value(*value))?;
        }
        for prefix in &plan.remove {
            self.consent.remove("consent", prefix)?;
        }
        if plan.final_default != plan.narrow_default {
            // A packet may have found no entry before the restrictions were
            // written, and read the default only now.
            wait_for_packets();
        }
        self.set(Setting::DefaultPurposes, plan.final_default.into())
    }

    /// Purposes that the kernel allows for one address.
    pub fn allowed_purposes(&self, address: IpAddr) -> Result<u32, KernelError> {
        match self.consent.lookup("consent", address)? {
            Some(value) => Ok(consent_entry(&value).allowed),
            None => Ok(u32::try_from(self.setting(Setting::DefaultPurposes)?).unwrap_or(0)),
        }
    }

    /// Builds the next generation of C&C tables aside and switches to it in
    /// one step; returns its number. A failure changes nothing that packets
    /// see.
    pub fn load_indicators(&mut self, tables: &IndicatorTables) -> Result<u64, KernelError> {
        const TABLE: &str = "C&C";
        let next = self.setting(Setting::Generation)?.wrapping_add(1);
        let half = if next & 1 == 0 {
            &mut self.even
        } else {
            &mut self.odd
        };
        // Until the last switch it was in use, and packets that came before
        // it may still be compared with it.
        wait_for_packets();
        half.prefixes.clear(TABLE)?;
        half.clear_rules()?;
        for (index, rule) in tables.rules.iter().enumerate() {
            let mut value = [0; size_of::<Rule>()];
            value.copy_from_slice(rule.as_bytes());
            let key = u32::try_from(index).unwrap_or(u32::MAX);
            half.rules
                .insert(key, value, 0)
                .map_err(|error| full_or("C&C rules", INDICATORS_KEY, index, error))?;
        }
        for (done, (prefix, span)) in tables.prefixes.iter().enumerate() {
            let mut value = [0; size_of::<RuleSpan>()];
            value.copy_from_slice(span.as_bytes());
            half.prefixes
                .insert(TABLE, INDICATORS_KEY, done, prefix, value)?;
        }
        self.set(Setting::Generation, next)?;
        Ok(next)
    }

    /// What the `parse` program saw of the last packet.
    pub(super) fn parse_report(&self) -> Result<Packet, KernelError> {
        let bytes = self
            .report
            .get(&0, 0)
            .map_err(|error| KernelError::from_source("reading the parse report", error))?;
        Packet::read_from_bytes(&bytes).map_err(|error| KernelError::Failed {
            action: "reading the parse report".into(),
            reason: error.to_string(),
        })
    }
}

const SIZE_KEY: &str = "tables.max_consent_entries";
const INDICATORS_KEY: &str = "tables.max_indicators";

impl Half {
    fn clear_rules(&mut self) -> Result<(), KernelError> {
        let failed = |error| KernelError::from_source("clearing the C&C rules", error);
        while let Some(key) = self.rules.keys().next() {
            self.rules.remove(&key.map_err(failed)?).map_err(failed)?;
        }
        Ok(())
    }
}

/// An IPv4 and an IPv6 trie; never one for both (design decision 10).
struct Tries<V: aya::Pod> {
    v4: LpmTrie<MapData, [u8; 4], V>,
    v6: LpmTrie<MapData, [u8; 16], V>,
}

impl<V: aya::Pod> Tries<V> {
    fn insert(
        &mut self,
        table: &'static str,
        size_key: &'static str,
        done: usize,
        prefix: &IpNet,
        value: V,
    ) -> Result<(), KernelError> {
        match prefix {
            IpNet::V4(prefix) => self.v4.insert(&key4(prefix), value, 0),
            IpNet::V6(prefix) => self.v6.insert(&key6(prefix), value, 0),
        }
        .map_err(|error| full_or(table, size_key, done, error))
    }

    fn clear(&mut self, table: &str) -> Result<(), KernelError> {
        let failed = |error| KernelError::from_source(format!("clearing table {table}"), error);
        while let Some(key) = self.v4.keys().next() {
            self.v4.remove(&key.map_err(failed)?).map_err(failed)?;
        }
        while let Some(key) = self.v6.keys().next() {
            self.v6.remove(&key.map_err(failed)?).map_err(failed)?;
        }
        Ok(())
    }
}

/// An IPv4 and an IPv6 trie of subscribers: in each key the number of the
/// subscriber space comes first.
struct SpaceTries<V: aya::Pod> {
    v4: LpmTrie<MapData, [u8; 8], V>,
    v6: LpmTrie<MapData, [u8; 20], V>,
}

impl<V: aya::Pod> SpaceTries<V> {
    fn insert(
        &mut self,
        table: &'static str,
        size_key: &'static str,
        done: usize,
        prefix: &IpNet,
        value: V,
    ) -> Result<(), KernelError> {
        match prefix {
            IpNet::V4(prefix) => self.v4.insert(&space_key4(prefix), value, 0),
            IpNet::V6(prefix) => self.v6.insert(&space_key6(prefix), value, 0),
        }
        .map_err(|error| full_or(table, size_key, done, error))
    }

    fn remove(&mut self, table: &str, prefix: &IpNet) -> Result<(), KernelError> {
        match prefix {
            IpNet::V4(prefix) => self.v4.remove(&space_key4(prefix)),
            IpNet::V6(prefix) => self.v6.remove(&space_key6(prefix)),
        }
        .map_err(|error| {
            KernelError::from_source(format!("removing {prefix} from table {table}"), error)
        })
    }

    fn lookup(&self, table: &str, address: IpAddr) -> Result<Option<V>, KernelError> {
        let found = match address {
            IpAddr::V4(address) => self.v4.get(&space_key4(&address.into()), 0),
            IpAddr::V6(address) => self.v6.get(&space_key6(&address.into()), 0),
        };
        match found {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(KernelError::from_source(
                format!("looking up in table {table}"),
                error,
            )),
        }
    }

    fn entries(&self, table: &str) -> Result<Vec<(IpNet, V)>, KernelError> {
        let failed = |error| KernelError::from_source(format!("reading table {table}"), error);
        let mut entries = Vec::new();
        for entry in self.v4.iter() {
            let (key, value) = entry.map_err(failed)?;
            let [_, _, _, _, address @ ..] = key.data();
            if let Ok(net) =
                IpNet::new(IpAddr::from(address), length(key.prefix_len() - SPACE_BITS))
            {
                entries.push((net, value));
            }
        }
        for entry in self.v6.iter() {
            let (key, value) = entry.map_err(failed)?;
            let [_, _, _, _, address @ ..] = key.data();
            if let Ok(net) =
                IpNet::new(IpAddr::from(address), length(key.prefix_len() - SPACE_BITS))
            {
                entries.push((net, value));
            }
        }
        Ok(entries)
    }
}

fn length(prefix_len: u32) -> u8 {
    u8::try_from(prefix_len).unwrap_or(u8::MAX)
}

fn key4(prefix: &Ipv4Net) -> Key<[u8; 4]> {
    Key::new(prefix.prefix_len().into(), prefix.network().octets())
}

fn key6(prefix: &Ipv6Net) -> Key<[u8; 16]> {
    Key::new(prefix.prefix_len().into(), prefix.network().octets())
}

fn space_key4(prefix: &Ipv4Net) -> Key<[u8; 8]> {
    let [a, b, c, d] = prefix.network().octets();
    Key::new(
        SPACE_BITS + u32::from(prefix.prefix_len()),
        [0, 0, 0, 0, a, b, c, d],
    )
}

fn space_key6(prefix: &Ipv6Net) -> Key<[u8; 20]> {
    let mut key = [0; 20];
    for (to, from) in key.iter_mut().skip(4).zip(prefix.network().octets()) {
        *to = from;
    }
    Key::new(SPACE_BITS + u32::from(prefix.prefix_len()), key)
}

const SPACE_BITS: u32 = 32;

fn consent_value(allowed: u32) -> [u8; size_of::<ConsentEntry>()] {
    let entry = ConsentEntry {
        allowed,
        portless: allowed,
        first: 0,
        count: 0,
    };
    let mut value = [0; size_of::<ConsentEntry>()];
    value.copy_from_slice(entry.as_bytes());
    value
}

fn consent_entry(value: &[u8; size_of::<ConsentEntry>()]) -> ConsentEntry {
    zerocopy::transmute!(*value)
}

fn full_or(table: &'static str, key: &'static str, entries: usize, error: MapError) -> KernelError {
    // LPM tries say ENOSPC, hashes E2BIG.
    match root_errno(&error) {
        Some(rustix::io::Errno::NOSPC | rustix::io::Errno::TOOBIG) => KernelError::TableFull {
            table,
            entries,
            key,
        },
        _ => KernelError::from_source(format!("writing table {table}"), error),
    }
}
