//! Typed access to the maps of the program, pinned or not.

use std::collections::BTreeMap;

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray};
use ipnet::IpNet;
use matcher_common::abi::{
    self, ConsentEntry, Counter, InterfaceSettings, IpLayer, Nat64Bytes, Packet, RuleSpan, Setting,
};
use matcher_common::parse::Parsing;
use zerocopy::{FromBytes, IntoBytes};

use super::{
    KernelError,
    classes::{always_maybe, random_seeds},
    error::root_errno,
    folds::Folds,
    grace::wait_for_packets,
    image::Halves,
    port_ranges::PortRanges,
    rules::Rules,
    settings::{self, Settings},
    tries::{SpaceTries, Tries, full},
};
use crate::{
    tables::{
        compiled::{Family, filter, hosts},
        indicators::IndicatorTables,
    },
    threads::both,
};

type Word = [u8; 4];

/// The maps.
pub struct Tables {
    pub(super) settings: Settings,
    counters: PerCpuArray<MapData, u64>,
    interfaces: HashMap<MapData, u32, [u8; size_of::<InterfaceSettings>()]>,
    low_interfaces: Array<MapData, [u8; size_of::<InterfaceSettings>()]>,
    pub(super) vlans: HashMap<MapData, u32, u32>,
    pub(super) subscribers: SpaceTries<Word>,
    pub(super) consent: SpaceTries<[u8; size_of::<ConsentEntry>()]>,
    pub(super) refused_now: Tries<u64>,
    pub(super) port_ranges: PortRanges,
    pub(super) nat64: LpmTrie<MapData, [u8; 16], Nat64Bytes>,
    pub(super) images: Images,
    rules: Rules,
    pub(super) folds: Folds,
    /// C&C prefixes, beside the halves of filter, hosts and rules.
    even: CcTries,
    odd: CcTries,
    /// C&C entries that there may be in each family: so many have room in each
    /// trie.
    max_indicators: usize,
    pub(super) hits: MapData,
    report: Array<MapData, [u8; size_of::<Parsing>()]>,
}

/// The compiled tables, each in two halves.
pub(super) struct Images {
    pub(super) classes_v4: Halves,
    pub(super) classes_v6: Halves,
    pub(super) consent_v6: Halves,
    filter_v4: Halves,
    filter_v6: Halves,
    hosts_v4: Halves,
    hosts_v6: Halves,
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
        let mut max_indicators = usize::MAX;
        let mut half = |v4: &str, v6: &str| -> Result<_, KernelError> {
            let (map_v4, map_v6) = (get(v4)?, get(v6)?);
            max_indicators = max_indicators
                .min(max_entries(v4, &map_v4)?)
                .min(max_entries(v6, &map_v6)?);
            Ok(Tries {
                v4: typed(v4, map_v4)?,
                v6: typed(v6, map_v6)?,
            })
        };
        let even = half("CC_V4_EVEN", "CC_V6_EVEN")?;
        let odd = half("CC_V4_ODD", "CC_V6_ODD")?;
        let mut image = |name: &str| Halves::open(name, get(name)?);
        let images = Images {
            classes_v4: image("CLASSES_V4")?,
            classes_v6: image("CLASSES_V6")?,
            consent_v6: image("CONSENT_FILTER_V6")?,
            filter_v4: image("CC_FILTER_V4")?,
            filter_v6: image("CC_FILTER_V6")?,
            hosts_v4: image("CC_HOSTS_V4")?,
            hosts_v6: image("CC_HOSTS_V6")?,
        };
        let subscribers = SpaceTries {
            v4: typed("SUBSCRIBERS_V4", get("SUBSCRIBERS_V4")?)?,
            v6: typed("SUBSCRIBERS_V6", get("SUBSCRIBERS_V6")?)?,
        };
        let consent = SpaceTries {
            v4: typed("CONSENT_V4", get("CONSENT_V4")?)?,
            v6: typed("CONSENT_V6", get("CONSENT_V6")?)?,
        };
        let refused_now = Tries {
            v4: typed("REFUSED_NOW_V4", get("REFUSED_NOW_V4")?)?,
            v6: typed("REFUSED_NOW_V6", get("REFUSED_NOW_V6")?)?,
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
            settings: Settings::open(get(settings::MAP)?)?,
            counters: typed("COUNTERS", get("COUNTERS")?)?,
            interfaces: typed("INTERFACES", get("INTERFACES")?)?,
            low_interfaces: typed("LOW_INTERFACES", get("LOW_INTERFACES")?)?,
            vlans: typed("VLAN_SPACES", get("VLAN_SPACES")?)?,
            subscribers,
            consent,
            refused_now,
            port_ranges: PortRanges::open(get("PORT_RANGES")?)?,
            nat64: typed("NAT64", get("NAT64")?)?,
            images,
            rules: Rules::open(get("RULES")?)?,
            folds: Folds::collect(&mut get)?,
            even,
            odd,
            max_indicators,
            hits,
            report: typed("PARSE_REPORT", get("PARSE_REPORT")?)?,
        })
    }

    /// One setting.
    pub fn setting(&self, setting: Setting) -> Result<u64, KernelError> {
        Ok(self.settings.get(setting))
    }

    /// Writes one setting; in force for the next packet.
    pub fn set(&mut self, setting: Setting, value: u64) -> Result<(), KernelError> {
        self.settings.set(setting, value);
        Ok(())
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
            .map_err(|error| KernelError::from_source("writing the interface table", error))?;
        self.set_low_interface(ifindex, value)
    }

    fn set_low_interface(
        &mut self,
        ifindex: u32,
        value: [u8; size_of::<InterfaceSettings>()],
    ) -> Result<(), KernelError> {
        if ifindex >= abi::LOW_INTERFACES {
            return Ok(());
        }
        self.low_interfaces
            .set(ifindex, value, 0)
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
        self.set_low_interface(ifindex, [0; size_of::<InterfaceSettings>()])?;
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
        let next = self.setting(Setting::Generation)?.wrapping_add(1);
        let (half, before) = if next & 1 == 0 {
            (&mut self.even, &mut self.odd)
        } else {
            (&mut self.odd, &mut self.even)
        };
        // Before anything is written.
        let is_v4 = |(prefix, _): &&(IpNet, RuleSpan)| matches!(prefix, IpNet::V4(_));
        let v4 = tables.prefixes.iter().filter(is_v4).count();
        let v6 = tables.prefixes.len() - v4;
        for (table, entries) in [("C&C IPv4", v4), ("C&C IPv6", v6)] {
            if entries > self.max_indicators {
                return Err(full(table, INDICATORS_KEY, self.max_indicators));
            }
        }
        if tables.rules.len() > self.rules.capacity() {
            return Err(full("C&C rules", INDICATORS_KEY, self.rules.capacity()));
        }
        let seeds = random_seeds()?;
        let prefixes = || tables.prefixes.iter().map(|(prefix, _)| *prefix);
        let filter = |family| filter::Plan::before_hosts(family, prefixes()).build(seeds);
        let hosts = |family| hosts::Plan::new(family, &tables.prefixes).build(seeds);
        let rules = &mut self.rules;
        let written = || -> Result<usize, KernelError> {
            // Until the last switch it was in use, and packets that came before
            // it may still be compared with it.
            wait_for_packets();
            half.clear(CC_TABLE)?;
            rules.write(next, &tables.rules);
            let in_tries = tables.prefixes.iter().filter(|at| !hosts::is_host(&at.0));
            insert(half, 0, in_tries)
        };
        let (written, ([filter_v4, filter_v6], [hosts_v4, hosts_v6])) =
            both(tables.prefixes.len(), written, || {
                let families = [Family::V4, Family::V6];
                (families.map(filter), families.map(hosts))
            });
        insert(half, written?, hosts_v4.left.iter().chain(&hosts_v6.left))?;
        for (table, halves, image) in [
            ("C&C IPv4", &mut self.images.hosts_v4, &hosts_v4.image),
            ("C&C IPv6", &mut self.images.hosts_v6, &hosts_v6.image),
        ] {
            if !halves.write(next, image) {
                // Cannot be, as they are sized for the most entries there may be.
                return Err(full(table, INDICATORS_KEY, self.max_indicators));
            }
        }
        for (halves, image) in [
            (&mut self.images.filter_v4, &filter_v4),
            (&mut self.images.filter_v6, &filter_v6),
        ] {
            if !halves.write(next, image) {
                // Cannot be, as they are sized for the most entries there may
                // be; then all packets ask the exact tables.
                halves.write(next, &always_maybe());
            }
        }
        self.settings.set(Setting::Generation, next);
        // The memory of the last one's tries is given back, off the packets'
        // way. An image keeps its memory, which is the map's, whatever it holds.
        wait_for_packets();
        before.clear(CC_TABLE)?;
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

/// Inserts C&C entries into the tries of a half, of which so many are done; gives
/// how many are done then.
fn insert<'a>(
    half: &mut CcTries,
    done: usize,
    entries: impl Iterator<Item = &'a (IpNet, RuleSpan)>,
) -> Result<usize, KernelError> {
    let mut done = done;
    for (prefix, span) in entries {
        let mut value = [0; size_of::<RuleSpan>()];
        value.copy_from_slice(span.as_bytes());
        half.insert(CC_TABLE, INDICATORS_KEY, done, prefix, value)?;
        done += 1;
    }
    Ok(done)
}

/// C&C entries with their rules.
type CcTries = Tries<[u8; size_of::<RuleSpan>()]>;

const CC_TABLE: &str = "C&C";
const INDICATORS_KEY: &str = "tables.max_indicators";

/// Entries that a map has room for.
fn max_entries(name: &str, map: &Map) -> Result<usize, KernelError> {
    let Map::LpmTrie(data) = map else {
        return Err(KernelError::Failed {
            action: format!("map {name}"),
            reason: "is not an LPM trie".into(),
        });
    };
    let info = data
        .info()
        .map_err(|error| KernelError::from_source(format!("map {name}"), error))?;
    Ok(usize::try_from(info.max_entries()).unwrap_or(usize::MAX))
}
