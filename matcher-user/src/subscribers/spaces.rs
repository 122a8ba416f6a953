//! Subscriber spaces that overlap and are told apart by VLAN: the same private
//! address is one subscriber's in one VLAN and another's in the next.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr};

use ipnet::IpNet;

use super::{SubscriberError, SubscriberSpace, exact_prefix};
use crate::consent::{Space, SpacePrefix};

/// VLANs that can have a space of their own, over all spaces.
pub const MAX_VLANS: u32 = 1 << 16;

/// VLANs: an outer id or several, and of these all or only those with certain
/// inner ids.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VlanRange {
    /// First and last id of the outer (or only) tag, 1-4094.
    outer: (u16, u16),
    /// First and last id of the inner tag; `None`: any, and frames without.
    inner: Option<(u16, u16)>,
}

/// A text that names no VLAN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no VLAN: write 100, 300-399, or 100.200 for inner 200 in outer 100 (ids 1-4094)")]
pub struct NoVlan(pub String);

impl FromStr for VlanRange {
    type Err = NoVlan;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = |text: &str| {
            // 0 only carries a priority, 4095 is reserved (IEEE 802.1Q).
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let id = text.parse().ok().filter(|_| digits);
            id.filter(|id| (1u16..=4094).contains(id))
        };
        let ids = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (id(first)?, id(last)?);
            (first <= last).then_some((first, last))
        };
        let read = || {
            Some(match text.split_once('.') {
                Some((outer, inner)) => Self {
                    outer: ids(outer)?,
                    inner: Some(ids(inner)?),
                },
                None => Self {
                    outer: ids(text)?,
                    inner: None,
                },
            })
        };
        read().ok_or_else(|| NoVlan(text.to_owned()))
    }
}

impl fmt::Display for VlanRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = |f: &mut fmt::Formatter<'_>, (first, last)| {
            if first == last {
                write!(f, "{first}")
            } else {
                write!(f, "{first}-{last}")
            }
        };
        ids(f, self.outer)?;
        match self.inner {
            None => Ok(()),
            Some(inner) => {
                f.write_str(".")?;
                ids(f, inner)
            }
        }
    }
}

impl VlanRange {
    /// How many they are.
    pub fn count(self) -> u32 {
        let ids = |(first, last): (u16, u16)| u32::from(last - first) + 1;
        ids(self.outer) * self.inner.map_or(1, ids)
    }

    /// Each as the kernel's table has it: the outer id in the upper half, the
    /// inner one, or 0 for any, in the lower.
    pub fn keys(self) -> impl Iterator<Item = u32> {
        let (first, last) = self.outer;
        let (inner_first, inner_last) = self.inner.unwrap_or((0, 0));
        (first..=last).flat_map(move |outer| {
            (inner_first..=inner_last).map(move |inner| u32::from(outer) << 16 | u32::from(inner))
        })
    }
}

/// Where a space other than 0 comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceSource {
    /// Its number, not 0.
    pub id: u32,
    /// The VLANs whose packets it is for.
    pub vlans: Vec<VlanRange>,
    /// Its prefixes.
    pub prefixes: Vec<IpNet>,
    /// Files with more of them, one a line.
    pub files: Vec<PathBuf>,
}

impl FromStr for SpaceSource {
    type Err = String;

    /// Reads `ID:VLAN[,VLAN...]:CIDR[,CIDR...]`, as on a command line.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, ':');
        let (Some(id), Some(vlans), Some(prefixes)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(format!(
                "{text:?} is not of the form ID:VLAN[,VLAN...]:CIDR[,CIDR...], as \
                 7:100,300-399:10.0.0.0/8"
            ));
        };
        Ok(Self {
            id: id
                .parse()
                .ok()
                .filter(|id| *id != 0)
                .ok_or_else(|| format!("{id:?} is no number of a space from 1 to 4294967295"))?,
            vlans: vlans
                .split(',')
                .map(|vlan| vlan.trim().parse())
                .collect::<Result<_, NoVlan>>()
                .map_err(|error| error.to_string())?,
            prefixes: prefixes
                .split(',')
                .map(|prefix| exact_prefix(prefix.trim()))
                .collect::<Result<_, _>>()?,
            files: Vec::new(),
        })
    }
}

/// What is wrong with the VLANs of several spaces.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VlanError {
    /// Whose packets would they be?
    #[error("VLAN {vlan} is in the spaces {first} and {second}: give it to one")]
    Twice {
        /// The VLAN.
        vlan: String,
        /// The one space.
        first: u32,
        /// The other.
        second: u32,
    },
    /// The table has an end.
    #[error(
        "the spaces have more than {MAX_VLANS} VLANs; name outer ids alone where all inner ids belong together"
    )]
    TooMany,
}

/// Which space each VLAN has, by the kernel's key.
///
/// # Errors
/// A VLAN has two spaces, or there are more than [`MAX_VLANS`].
pub fn vlan_spaces<'a>(
    spaces: impl IntoIterator<Item = (u32, &'a [VlanRange])>,
) -> Result<BTreeMap<u32, u32>, VlanError> {
    let mut found = BTreeMap::new();
    for (space, ranges) in spaces {
        for range in ranges {
            if range.count() > MAX_VLANS {
                return Err(VlanError::TooMany);
            }
            for key in range.keys() {
                if let Some(before) = found.insert(key, space).filter(|before| *before != space) {
                    let (outer, inner) = (key >> 16, key & 0xffff);
                    return Err(VlanError::Twice {
                        vlan: match inner {
                            0 => outer.to_string(),
                            inner => format!("{outer}.{inner}"),
                        },
                        first: before,
                        second: space,
                    });
                }
            }
            if found.len() > usize::try_from(MAX_VLANS).unwrap_or(usize::MAX) {
                return Err(VlanError::TooMany);
            }
        }
    }
    Ok(found)
}

/// All subscriber spaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriberSpaces {
    default: SubscriberSpace,
    others: Vec<(u32, SubscriberSpace)>,
    vlans: BTreeMap<u32, u32>,
}

impl SubscriberSpaces {
    /// Space 0 alone.
    pub fn one(default: SubscriberSpace) -> Self {
        Self {
            default,
            ..Self::default()
        }
    }

    /// Space 0, and others read from their sources.
    ///
    /// # Errors
    /// Those of [`SubscriberSpace::load`]; a number that is there twice, or
    /// VLANs that cannot be ([`VlanError`]).
    pub fn load(
        default: SubscriberSpace,
        sources: &[SpaceSource],
    ) -> Result<Self, SubscriberError> {
        let vlans = sources
            .iter()
            .map(|source| (source.id, source.vlans.as_slice()));
        let vlans = vlan_spaces(vlans).map_err(|error| SubscriberError::Item(error.to_string()))?;
        let mut others: Vec<(u32, SubscriberSpace)> = Vec::with_capacity(sources.len());
        for source in sources {
            if others.iter().any(|(id, _)| *id == source.id) {
                return Err(SubscriberError::Item(format!(
                    "the subscriber space {} is there twice",
                    source.id
                )));
            }
            let space = SubscriberSpace::load(source.prefixes.iter().copied(), &source.files)?;
            others.push((source.id, space));
        }
        others.sort_unstable_by_key(|(id, _)| *id);
        Ok(Self {
            default,
            others,
            vlans,
        })
    }

    /// The space of packets whose VLAN has none of its own.
    pub fn default_space(&self) -> &SubscriberSpace {
        &self.default
    }

    /// Every prefix of every space.
    pub fn prefixes(&self) -> impl Iterator<Item = SpacePrefix> + '_ {
        let others = self.others.iter().map(|(id, space)| (*id, space));
        [(0, &self.default)]
            .into_iter()
            .chain(others)
            .flat_map(|(space, prefixes)| {
                let prefixes = prefixes.prefixes().iter();
                prefixes.map(move |prefix| SpacePrefix {
                    space,
                    prefix: *prefix,
                })
            })
    }

    /// Which space each VLAN has, by the kernel's key.
    pub fn vlans(&self) -> &BTreeMap<u32, u32> {
        &self.vlans
    }

    /// The spaces besides 0, as consent depends on them.
    pub fn for_consent(&self) -> Vec<Space> {
        self.others
            .iter()
            .map(|(id, space)| Space {
                id: *id,
                prefixes: space.prefixes().to_vec(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> VlanRange {
        text.parse().unwrap()
    }

    #[test]
    fn vlans_are_read_as_people_write_them() {
        let keys = |text| range(text).keys().collect::<Vec<_>>();
        assert_eq!(keys("100"), [100 << 16]);
        assert_eq!(keys("100.200"), [100 << 16 | 200]);
        assert_eq!(keys("300-302"), [300 << 16, 301 << 16, 302 << 16]);
        assert_eq!(keys("1-2.4093-4094").len(), 4);
        for wrong in [
            "", "0", "4095", "x", "3-2", "100.0", "1.2.3", "+1", "100.", "-5",
        ] {
            assert!(wrong.parse::<VlanRange>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_vlan_belongs_to_one_space() {
        let (a, b) = ([range("100"), range("100.7")], [range("90-110")]);
        let error = vlan_spaces([(7, a.as_slice()), (9, b.as_slice())]).unwrap_err();
        insta::assert_snapshot!(error, @"VLAN 100 is in the spaces 7 and 9: give it to one");
        // An inner one may lie in an outer one of another space.
        let b = [range("100.8")];
        let found = vlan_spaces([(7, a.as_slice()), (9, b.as_slice())]).unwrap();
        assert_eq!(found.into_values().collect::<Vec<_>>(), [7, 7, 9]);
        let all = [range("1-4094.1-4094")];
        assert_eq!(vlan_spaces([(7, all.as_slice())]), Err(VlanError::TooMany));
        let many = [range("1-20.1-2000"), range("21-40.1-2000")];
        assert_eq!(vlan_spaces([(7, many.as_slice())]), Err(VlanError::TooMany));
    }

    #[test]
    fn a_space_of_the_command_line_is_read() {
        let space: SpaceSource = "7:100,300-399:10.0.0.0/8,fd00::/8".parse().unwrap();
        assert_eq!(space.id, 7);
        assert_eq!(space.vlans, [range("100"), range("300-399")]);
        assert_eq!(space.prefixes.len(), 2);
        for wrong in [
            "7",
            "7:100",
            "0:100:10.0.0.0/8",
            "7:x:10.0.0.0/8",
            "7:100:10.0.0.1/8",
        ] {
            assert!(wrong.parse::<SpaceSource>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_range_survives_its_text(
            outer in (1u16..=4094, 1u16..=4094),
            inner in prop::option::of((1u16..=4094, 1u16..=4094)),
        ) {
            let ordered = |(a, b): (u16, u16)| (a.min(b), a.max(b));
            let range = VlanRange { outer: ordered(outer), inner: inner.map(ordered) };
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }
    }
}
