//! What `matcher parse --json` says of captures.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::seen::{Layer, Ours};

/// One line; the keys that are compared. `matcher-user/src/replay/dissect.rs` says what they mean.
#[derive(Deserialize)]
struct Line {
    capture: PathBuf,
    packet: u64,
    layers: Vec<LineLayer>,
    vlan_tags: usize,
    unparsed: Option<String>,
}

#[derive(Deserialize)]
struct LineLayer {
    source: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    fragment_offset: u32,
    source_port: Option<u16>,
    destination_port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Protocol {
    Number(u8),
    Name(String),
}

impl Protocol {
    fn number(self) -> Result<u8> {
        Ok(match self {
            Self::Number(number) => number,
            Self::Name(name) => match name.as_str() {
                "icmp" => 1,
                "tcp" => 6,
                "udp" => 17,
                "icmpv6" => 58,
                "sctp" => 132,
                _ => bail!("matcher names a protocol {name}, which the oracle does not know"),
            },
        })
    }
}

/// Every packet that matcher reads, by capture.
pub struct Parsed {
    /// In the order of the packets.
    pub packets: HashMap<PathBuf, Vec<Ours>>,
    /// What matcher had to say of captures it could not read, or not to their end.
    pub remarks: String,
}

/// Runs the captures through the program in the kernel.
///
/// # Errors
/// `matcher` cannot load its program (exit status 3 of the contract), or says what cannot be read.
pub fn parse(matcher: &Path, captures: &[PathBuf]) -> Result<Parsed> {
    let mut command = Command::new(matcher);
    command.args(["parse", "--json"]).args(captures);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", matcher.display()))?;
    let remarks = String::from_utf8_lossy(&output.stderr).into_owned();
    // 1: some capture is damaged, which the remarks say.
    if !matches!(output.status.code(), Some(0 | 1)) {
        bail!(
            "`{} parse` failed: {}: {}",
            matcher.display(),
            output.status,
            remarks.trim()
        );
    }
    let text = String::from_utf8(output.stdout).context("matcher does not write UTF-8")?;
    let mut packets: HashMap<PathBuf, Vec<Ours>> = HashMap::new();
    for line in text.lines() {
        let (capture, packet) =
            read(line).with_context(|| format!("a line of `matcher parse`: {line}"))?;
        packets.entry(capture).or_default().push(packet);
    }
    Ok(Parsed { packets, remarks })
}

fn read(line: &str) -> Result<(PathBuf, Ours)> {
    let line: Line = serde_json::from_str(line)?;
    let layers: Result<Vec<Layer>> = line
        .layers
        .into_iter()
        .map(|layer| {
            Ok(Layer {
                source: layer.source,
                destination: layer.destination,
                protocol: layer.protocol.number()?,
                fragment_offset: layer.fragment_offset,
                source_port: layer.source_port,
                destination_port: layer.destination_port,
            })
        })
        .collect();
    let packet = Ours {
        packet: line.packet,
        layers: layers?,
        vlan_tags: line.vlan_tags,
        unparsed: line.unparsed,
    };
    Ok((line.capture, packet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_the_layers_with_protocols_by_number() {
        let line = r#"{"capture":"a/x.pcap","packet":7,"layers":[{"source":"2001:db8::1","destination":"2001:db8::2","protocol":4,"fragment_offset":0,"source_port":null,"destination_port":null,"tunnel":null},{"source":"10.0.0.2","destination":"198.51.100.23","protocol":"tcp","fragment_offset":0,"source_port":51413,"destination_port":443,"tunnel":"4in6"}],"source_port":51413,"destination_port":443,"vlan_tags":1,"vlans":[100],"tunnels":["4in6"],"unparsed":null,"by":"kernel"}"#;
        let (capture, packet) = read(line).unwrap();
        assert_eq!(capture, PathBuf::from("a/x.pcap"));
        assert_eq!((packet.packet, packet.vlan_tags), (7, 1));
        let shown: Vec<String> = packet.layers.iter().map(Layer::to_string).collect();
        assert_eq!(
            shown,
            [
                "2001:db8::1 > 2001:db8::2 protocol 4",
                "10.0.0.2 port 51413 > 198.51.100.23 port 443 protocol 6"
            ]
        );
    }

    #[test]
    fn a_line_of_another_shape_is_refused() {
        assert!(read(r#"{"capture":"x","packet":1}"#).is_err());
    }
}
