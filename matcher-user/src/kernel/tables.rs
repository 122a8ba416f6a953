//! Typed access to the maps of the program, pinned or not.

use std::collections::BTreeMap;

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray};
use matcher_common::abi::{
    self, ConsentEntry, Counter, InterfaceSettings, IpLayer, Nat64Bytes, Packet, Rule, RuleSpan,
    Setting,
};
use matcher_common::parse::Parsing;
use zerocopy::{FromBytes, IntoBytes};

use super::{
    KernelError,
    error::root_errno,
    grace::wait_for_packets,
    port_ranges::PortRanges,
    tries::{SpaceTries, Tries, full_or},
};
use crate::tables::indicators::IndicatorTables;

type Word = [u8; 4];

/// The maps.
pub struct Tables {
    settings: Array<MapData, u64>,
    counters: PerCpuArray<MapData, u64>,
    interfaces: HashMap<MapData, u32, [u8; size_of::<InterfaceSettings>()]>,
    pub(super) vlans: HashMap<MapData, u32, u32>,
    pub(super) subscribers: SpaceTries<Word>,
    pub(super) consent: SpaceTries<[u8; size_of::<ConsentEntry>()]>,
    pub(super) port_ranges: PortRanges,
    pub(super) nat64: LpmTrie<MapData, [u8; 16], Nat64Bytes>,
    even: Half,
    odd: Half,
    pub(super) hits: MapData,
    report: Array<MapData, [u8; size_of::<Parsing>()]>,
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
            vlans: typed("VLAN_SPACES", get("VLAN_SPACES")?)?,
            subscribers,
            consent,
            port_ranges: PortRanges::open(get("PORT_RANGES")?)?,
            nat64: typed("NAT64", get("NAT64")?)?,
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
        // What stands behind the packet is the parser's own.
        let (mut packet, _) =
            Packet::read_from_prefix(&bytes).map_err(|error| KernelError::Failed {
                action: "reading the parse report".into(),
                reason: error.to_string(),
            })?;
        // Those behind the count are the packets' before.
        for unused in packet.layers.iter_mut().skip(packet.layer_count as usize) {
            *unused = IpLayer::default();
        }
        Ok(packet)
    }
}

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
