//! `tests/oracle/explained.toml`: the packets of which matcher says another thing than tshark and
//! is right, one by one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::compare::Difference;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    packet: Vec<Explained>,
}

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explained {
    /// The end of the capture's path, whole names.
    pub capture: String,
    /// Number in the capture, from 1.
    pub packet: u64,
    /// Exactly what differs.
    pub differences: Vec<Difference>,
    /// The sentence that decides it, and where it stands.
    pub because: String,
}

impl Explained {
    /// Whether it is of this capture.
    pub fn is_of(&self, capture: &Path) -> bool {
        capture.ends_with(&self.capture)
    }

    /// Whether it explains all of these differences and no other.
    pub fn covers(&self, differences: &[Difference]) -> bool {
        let set = |list: &[Difference]| list.iter().cloned().collect::<BTreeSet<_>>();
        set(&self.differences) == set(differences)
    }
}

/// Reads the file.
///
/// # Errors
/// An entry without a reason, without a difference, with a wildcard, or that comes twice.
pub fn read(path: &Path) -> Result<Vec<Explained>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| path.display().to_string())
}

fn parse(text: &str) -> Result<Vec<Explained>> {
    let file: File = toml::from_str(text)?;
    let mut known = BTreeSet::new();
    for entry in &file.packet {
        let Explained {
            capture, packet, ..
        } = entry;
        if capture.contains(['*', '?']) {
            bail!("{capture}: a capture is named in full, without wildcards");
        }
        if entry.differences.is_empty() {
            bail!("{capture} packet {packet}: no difference is named");
        }
        // A bare "see RFC" convinces nobody.
        if !entry.because.contains('"') {
            bail!("{capture} packet {packet}: `because` must quote the sentence that decides it");
        }
        if !known.insert((capture, packet)) {
            bail!("{capture} packet {packet} is explained twice");
        }
    }
    Ok(file.packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = r#"
        [[packet]]
        capture = "set/x.pcap"
        packet = 1
        because = 'RFC 791 says "so"'
        differences = [{ field = "layer 1", tshark = "none", matcher = "some" }]
    "#;

    #[test]
    fn an_entry_is_of_one_packet_of_one_capture() {
        let entries = parse(ENTRY).unwrap();
        assert!(entries[0].is_of(Path::new("/any/where/set/x.pcap")));
        assert!(!entries[0].is_of(Path::new("/any/where/reset/x.pcap")));
        let mut differences = entries[0].differences.clone();
        assert!(entries[0].covers(&differences));
        differences[0].matcher = "more".to_owned();
        assert!(!entries[0].covers(&differences));
        assert!(!entries[0].covers(&[]));
    }

    #[test]
    fn an_entry_that_explains_too_little_or_too_much_is_refused() {
        for (from, to, why) in [
            ("x.pcap", "*.pcap", "without wildcards"),
            ("\"so\"", "so", "must quote"),
            (
                "{ field = \"layer 1\", tshark = \"none\", matcher = \"some\" }",
                "",
                "no difference",
            ),
        ] {
            let error = parse(&ENTRY.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(parse(&ENTRY.repeat(2)).is_err());
        assert!(parse("packets = 1").is_err());
    }

    #[test]
    fn the_file_of_this_checkout_can_be_read() {
        let path = crate::workspace::root().join(super::super::EXPLAINED);
        assert!(!read(&path).unwrap().is_empty());
    }
}
