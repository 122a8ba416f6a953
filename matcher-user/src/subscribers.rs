//! The subscriber space: the addresses that the operator gives to its own
//! subscribers. A packet with no end in it is transit and none of the
//! product's business.

use std::{
    fmt, fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use ipnet::IpNet;

mod spaces;

pub use self::spaces::{
    MAX_VLANS, NoVlan, SpaceSource, SubscriberSpaces, VlanError, VlanRange, vlan_spaces,
};

use crate::consent::prefix::{first, last, number, read_prefix, shortened};

/// The prefixes of the subscribers, both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriberSpace {
    prefixes: Vec<IpNet>,
    /// First and last address, disjoint and sorted.
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
}

/// A line of a file of prefixes that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: error: {message}", path.display())]
pub struct PrefixProblem {
    /// The file.
    pub path: PathBuf,
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

/// A subscriber space that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SubscriberError {
    /// A file of prefixes cannot be read.
    #[error("{}: cannot read it: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        error: io::Error,
    },
    /// Lines are no prefixes. A space with holes would count subscribers as
    /// remote ends, so nothing of it is used.
    #[error("{}", Lines(.0))]
    Lines(Vec<PrefixProblem>),
    /// An item of a list on the command line is no prefix, or the spaces do not
    /// go together.
    #[error("{0}")]
    Item(String),
}

struct Lines<'a>(&'a [PrefixProblem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl SubscriberSpace {
    /// The space of these prefixes; duplicates and covered ones fall together,
    /// neighbours are joined.
    pub fn new(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        let prefixes: Vec<IpNet> = prefixes.into_iter().map(|net| net.trunc()).collect();
        let mut prefixes = IpNet::aggregate(&prefixes);
        prefixes.sort_unstable();
        let ranges = |v4: bool| {
            prefixes
                .iter()
                .filter(|net| net.addr().is_ipv4() == v4)
                .map(|net| (first(net), last(net)))
                .collect()
        };
        Self {
            v4: ranges(true),
            v6: ranges(false),
            prefixes,
        }
    }

    /// The space of these prefixes and of those in the files, one a line.
    ///
    /// # Errors
    /// A file cannot be read, or has lines that are no prefixes: all of them
    /// are named.
    pub fn load(
        prefixes: impl IntoIterator<Item = IpNet>,
        files: &[PathBuf],
    ) -> Result<Self, SubscriberError> {
        let mut all: Vec<IpNet> = prefixes.into_iter().collect();
        let mut problems = Vec::new();
        for path in files {
            let bytes = fs::read(path).map_err(|error| SubscriberError::Unreadable {
                path: path.clone(),
                error,
            })?;
            let (read, wrong) = read_prefix_lines(path, &bytes);
            all.extend(read);
            problems.extend(wrong);
        }
        if problems.is_empty() {
            Ok(Self::new(all))
        } else {
            Err(SubscriberError::Lines(problems))
        }
    }

    /// Whether a subscriber holds the address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let ranges = if address.is_ipv4() {
            &self.v4
        } else {
            &self.v6
        };
        let number = number(address);
        let after = ranges.partition_point(|(first, _)| *first <= number);
        after
            .checked_sub(1)
            .and_then(|index| ranges.get(index))
            .is_some_and(|(_, last)| number <= *last)
    }

    /// The prefixes: sorted, disjoint, as few as possible.
    pub fn prefixes(&self) -> &[IpNet] {
        &self.prefixes
    }

    /// Whether nobody is a subscriber: then every packet is transit.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }
}

/// Reads prefixes, one a line; `#` starts a comment. Gives those that could be
/// read, and the lines that could not.
pub fn read_prefix_lines(path: &Path, bytes: &[u8]) -> (Vec<IpNet>, Vec<PrefixProblem>) {
    let mut prefixes = Vec::new();
    let mut problems = Vec::new();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        match exact_prefix(line) {
            Ok(net) => prefixes.push(net),
            Err(message) => problems.push(PrefixProblem {
                path: path.to_owned(),
                line: index + 1,
                message,
            }),
        }
    }
    (prefixes, problems)
}

/// Reads a prefix without host bits: who writes `203.0.113.7/24` may have
/// meant one subscriber or 256.
///
/// # Errors
/// What is wrong with the text, and what to write instead.
pub fn exact_prefix(text: &str) -> Result<IpNet, String> {
    let read = read_prefix(text).map_err(|error| error.to_string())?;
    if read.host_bits {
        return Err(format!(
            "{} is an address inside a prefix: write {}, or the address alone",
            shortened(text),
            read.net
        ));
    }
    Ok(read.net)
}

/// The subscriber space as given on the command line: `CIDR[,CIDR...]` or
/// `@FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriberArgument {
    /// The prefixes themselves.
    Prefixes(Vec<IpNet>),
    /// A file with one prefix a line.
    File(PathBuf),
}

impl FromStr for SubscriberArgument {
    type Err = SubscriberError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix('@') {
            if path.is_empty() {
                return Err(SubscriberError::Item("@ names no file".to_owned()));
            }
            return Ok(Self::File(path.into()));
        }
        text.split(',')
            .map(|item| exact_prefix(item.trim()).map_err(SubscriberError::Item))
            .collect::<Result<_, _>>()
            .map(Self::Prefixes)
    }
}

impl SubscriberArgument {
    /// The space, read from the file where it is one.
    ///
    /// # Errors
    /// Those of [`SubscriberSpace::load`].
    pub fn load(&self) -> Result<SubscriberSpace, SubscriberError> {
        match self {
            Self::Prefixes(prefixes) => Ok(SubscriberSpace::new(prefixes.iter().copied())),
            Self::File(path) => SubscriberSpace::load([], std::slice::from_ref(path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn duplicates_covered_prefixes_and_neighbours_fall_together() {
        let space = SubscriberSpace::new(nets(&[
            "203.0.113.0/25",
            "203.0.113.128/25",
            "203.0.113.7/32",
            "2001:db8::/32",
            "2001:db8:1::/48",
        ]));
        assert_eq!(space.prefixes(), nets(&["203.0.113.0/24", "2001:db8::/32"]));
    }

    #[test]
    fn every_bad_line_is_named_with_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("space.txt");
        fs::write(
            &path,
            b"# ours\n203.0.113.0/24 # lab\n203.0.113.7/24\r\n\nx\n\xff\n",
        )
        .unwrap();
        let error = SubscriberSpace::load([], std::slice::from_ref(&path)).unwrap_err();
        let text = error
            .to_string()
            .replace(&format!("{}/", folder.path().display()), "");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = SubscriberArgument::from_str("@/nowhere/space.txt")
            .unwrap()
            .load()
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("/nowhere/space.txt: cannot read it")
        );
    }

    #[test]
    fn the_command_line_takes_prefixes_or_a_file() {
        assert_eq!(
            SubscriberArgument::from_str("203.0.113.0/24, 2001:db8::/32").unwrap(),
            SubscriberArgument::Prefixes(nets(&["203.0.113.0/24", "2001:db8::/32"]))
        );
        assert_eq!(
            SubscriberArgument::from_str("@space.txt").unwrap(),
            SubscriberArgument::File("space.txt".into())
        );
        for wrong in ["", "@", "203.0.113.0/24,", "203.0.113.1/24", "ours"] {
            assert!(SubscriberArgument::from_str(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn the_space_holds_what_one_of_its_prefixes_holds(
            v4 in prop::collection::vec((0u32..512, 22u8..=32), 0..12),
            v6 in prop::collection::vec((0u128..512, 118u8..=128), 0..12),
            asked in 0u32..640,
        ) {
            let given: Vec<IpNet> = v4
                .into_iter()
                .map(|(bits, length)| IpNet::new(IpAddr::V4(bits.into()), length).unwrap().trunc())
                .chain(v6.into_iter().map(|(bits, length)| {
                    IpNet::new(IpAddr::V6(bits.into()), length).unwrap().trunc()
                }))
                .collect();
            let space = SubscriberSpace::new(given.iter().copied());
            for address in [IpAddr::V4(asked.into()), IpAddr::V6(u128::from(asked).into())] {
                prop_assert_eq!(
                    space.contains(address),
                    given.iter().any(|net| net.contains(&address))
                );
            }
        }

        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            let (_, problems) = read_prefix_lines(Path::new("x"), &bytes);
            prop_assert!(problems.len() <= bytes.len());
        }
    }
}
