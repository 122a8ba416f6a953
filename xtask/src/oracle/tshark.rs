//! What tshark says of a capture, packet by packet.
//!
//! JSON with every protocol of a packet in order, those of interest with all that is in them.
//! What a protocol quotes, such as the packet in an ICMP error, stands inside that protocol; what
//! it carries stands behind it. So the IP layers are the `ip` and `ipv6` at the top. IPv6
//! extension headers stand inside their `ipv6`. A name can come twice, which JSON libraries do
//! not expect: hence [`Node`].

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io::{self, BufReader, Read, Seek};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::seen::{Layer, Theirs};
use crate::process;

/// Protocols whose fields are printed; of all others only the name.
const SHOWN: &str = "ip ipv6 ah tcp udp udplite sctp dccp";

/// Packets as they are, and nothing guessed.
const PREFERENCES: [&str; 5] = [
    "ip.defragment:FALSE",
    "ipv6.defragment:FALSE",
    "tcp.desegment_tcp_streams:FALSE",
    // Length 0 where the NIC was to cut the packet up ("BIG TCP").
    "ip.tso_support:TRUE",
    "ipv6.tso_support:TRUE",
];

/// Ports that tshark does not know by itself: VXLAN as Linux sends it unless told otherwise.
const PORTS: [&str; 1] = ["udp.port==8472,vxlan"];

/// Not dissected, since tshark finds keys in captures and would show what is not on the wire.
const DECRYPTED: [&str; 1] = ["wg"];

/// Extension headers, inside `ipv6` (and AH behind `ip`), with the field that names what follows.
const EXTENSIONS: [(&str, &str); 5] = [
    ("ipv6.hopopts", "ipv6.hopopts.nxt"),
    ("ipv6.routing", "ipv6.routing.nxt"),
    ("ipv6.dstopts", "ipv6.dstopts.nxt"),
    ("ipv6.fraghdr", "ipv6.fraghdr.nxt"),
    ("ah", "ah.next_header"),
];

/// Protocols with ports, with the fields that hold them (UDP-Lite's are UDP's).
const TRANSPORTS: [(&str, &str, &str); 5] = [
    ("tcp", "tcp.srcport", "tcp.dstport"),
    ("udp", "udp.srcport", "udp.dstport"),
    ("udplite", "udp.srcport", "udp.dstport"),
    ("sctp", "sctp.srcport", "sctp.dstport"),
    ("dccp", "dccp.srcport", "dccp.dstport"),
];

/// A tshark of this machine.
pub struct Tshark {
    /// As it names itself.
    pub version: String,
    heuristics: Vec<String>,
    home: tempfile::TempDir,
}

impl Tshark {
    /// Asks tshark about itself.
    pub fn find() -> Result<Self> {
        let home = tempfile::tempdir().context("cannot make a folder for tshark's settings")?;
        let mut tshark = Self {
            version: String::new(),
            heuristics: Vec::new(),
            home,
        };
        let said = process::output(tshark.command("tshark").arg("--version"))?;
        tshark.version = said.lines().next().unwrap_or_default().to_owned();
        tshark.heuristics = tshark.guesses()?;
        Ok(tshark)
    }

    /// Names of the dissectors that guess by content, as `--disable-heuristic` takes them. tshark
    /// 4.0 lists them without those names, which are made of the parts for most: those it does
    /// not know are left out.
    fn guesses(&self) -> Result<Vec<String>> {
        let list = process::output(self.command("tshark").args(["-G", "heuristic-decodes"]))?;
        let mut names: Vec<String> = list.lines().filter_map(heuristic).collect();
        let empty = self.home.path().join("empty.pcap");
        fs::write(&empty, EMPTY).with_context(|| format!("cannot write {}", empty.display()))?;
        let mut attempt = self.command("tshark");
        for name in &names {
            attempt.arg("--disable-heuristic").arg(name);
        }
        let output = attempt.arg("-r").arg(empty).stdin(Stdio::null()).output();
        let output = output.context("cannot start tshark")?;
        let said = String::from_utf8_lossy(&output.stderr);
        let unknown: HashSet<&str> = said.lines().filter_map(unknown).collect();
        names.retain(|name| !unknown.contains(name.as_str()));
        Ok(names)
    }

    /// With the settings of nobody.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("HOME", self.home.path())
            .env("WIRESHARK_CONFIG_DIR", self.home.path())
            .env_remove("XDG_CONFIG_HOME");
        command
    }

    /// Every packet of each capture, in order, as far as tshark can read it.
    ///
    /// Starting tshark takes longer than reading a small capture, so they are put behind one
    /// another first. Where that does not work out, the half in which it does not is read one by
    /// one in the end.
    pub fn read(&self, captures: &[PathBuf]) -> Result<Vec<Vec<Theirs>>> {
        let (left, right) = match captures {
            [] => return Ok(Vec::new()),
            [one] => return Ok(vec![self.dissect(one)?]),
            more => more.split_at(more.len() / 2),
        };
        if let Some(read) = self.read_merged(captures)? {
            return Ok(read);
        }
        let mut read = self.read(left)?;
        read.extend(self.read(right)?);
        Ok(read)
    }

    /// The captures in one go; `None` when they cannot be put together without a loss.
    fn read_merged(&self, captures: &[PathBuf]) -> Result<Option<Vec<Vec<Theirs>>>> {
        let mut capinfos = self.command("capinfos");
        // A table without a head: name, tab, number of packets.
        capinfos.args(["-T", "-r", "-M", "-c"]).args(captures);
        let Ok(table) = process::output(&mut capinfos) else {
            return Ok(None);
        };
        let counts: Vec<usize> = table.lines().filter_map(count).collect();
        let folder = tempfile::tempdir().context("cannot make a folder for merged captures")?;
        let merged = folder.path().join("merged.pcapng");
        let mut mergecap = self.command("mergecap");
        mergecap.args(["-a", "-I", "none", "-F", "pcapng", "-w"]);
        if process::output(mergecap.arg(&merged).args(captures)).is_err() {
            return Ok(None);
        }
        let mut packets = self.dissect(&merged)?.into_iter();
        if counts.len() != captures.len() || counts.iter().sum::<usize>() != packets.len() {
            return Ok(None);
        }
        let taken = counts
            .into_iter()
            .map(|count| packets.by_ref().take(count).collect());
        Ok(Some(taken.collect()))
    }

    fn dissect(&self, capture: &Path) -> Result<Vec<Theirs>> {
        let mut command = self.command("tshark");
        command.args(["-n", "-T", "json", "-J", SHOWN]);
        for preference in PREFERENCES {
            command.args(["-o", preference]);
        }
        for port in PORTS {
            command.args(["-d", port]);
        }
        for heuristic in &self.heuristics {
            command.arg("--disable-heuristic").arg(heuristic);
        }
        for protocol in DECRYPTED {
            command.args(["--disable-protocol", protocol]);
        }
        command.arg("-r").arg(capture);
        let mut said = tempfile::tempfile().context("cannot make a file for tshark's remarks")?;
        let remarks = said.try_clone().context("cannot make a file twice")?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(remarks)
            .spawn()
            .context("cannot start tshark")?;
        // Taken as it comes: the text is many times as long as the capture.
        let packets = match child.stdout.take() {
            Some(stdout) => packets(BufReader::new(stdout)),
            None => bail!("tshark has no output"),
        };
        let status = child.wait().context("cannot wait for tshark")?;
        let mut text = String::new();
        said.rewind()
            .and_then(|()| said.read_to_string(&mut text))
            .context("tshark's remarks")?;
        // 2: the capture is damaged; what comes before that has been written.
        if !matches!(status.code(), Some(0 | 2)) {
            bail!(
                "tshark failed on {}: {status}: {}",
                capture.display(),
                text.trim()
            );
        }
        packets.with_context(|| format!("tshark on {}: {}", capture.display(), text.trim()))
    }
}

/// The number of packets in a line of capinfos.
fn count(line: &str) -> Option<usize> {
    line.rsplit_once('\t')?.1.trim().parse().ok()
}

/// A capture without packets.
const EMPTY: [u8; 24] = [
    0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0,
];

/// The name in tshark's complaint about it.
fn unknown(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("No such protocol ")?;
    Some(rest.split_once(',')?.0)
}

/// The short name in a line of `tshark -G heuristic-decodes`.
fn heuristic(line: &str) -> Option<String> {
    let columns: Vec<&str> = line.split('\t').collect();
    match *columns.as_slice() {
        [parent, child, _] => Some(format!("{child}_{parent}")),
        // From 4.2 on.
        [_, _, _, _, short] => Some(short.to_owned()),
        _ => None,
    }
}

/// A JSON value whose objects keep their order and names that come twice.
#[derive(Debug, PartialEq, Eq)]
enum Node {
    Text(String),
    Object(Vec<(String, Node)>),
    List(Vec<Node>),
    Nothing,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, an object, a list or null")
            }

            fn visit_str<E>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Text(text.to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Text(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Text(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Text(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                Ok(Node::Text(value.to_string()))
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Nothing)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Node::Object(entries))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

impl Node {
    fn entries(&self) -> &[(String, Self)] {
        match self {
            Self::Object(entries) => entries,
            _ => &[],
        }
    }

    /// The first member of that name.
    fn get(&self, name: &str) -> Option<&Self> {
        let mut entries = self.entries().iter();
        entries.find_map(|(key, value)| (key == name).then_some(value))
    }

    fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn number<N: std::str::FromStr>(&self, name: &str) -> Option<N> {
        self.text(name)?.parse().ok()
    }
}

/// tshark's list of packets, each dissected as soon as it has been read.
fn packets(json: impl Read) -> Result<Vec<Theirs>> {
    let mut deserializer = serde_json::Deserializer::from_reader(Ascii(json));
    match List::deserialize(&mut deserializer) {
        Ok(List(packets)) => Ok(packets),
        // A capture without packets may give no list at all.
        Err(error) if error.is_eof() && (error.line(), error.column()) <= (1, 0) => Ok(Vec::new()),
        Err(error) => Err(error).context("not the JSON that is expected"),
    }
}

struct List(Vec<Theirs>);

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Packets;

        impl<'de> Visitor<'de> for Packets {
            type Value = List;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of packets")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List, A::Error> {
                let mut packets = Vec::new();
                while let Some(packet) = seq.next_element::<Node>()? {
                    let layers = packet
                        .get("_source")
                        .and_then(|source| source.get("layers"));
                    let missing = || serde::de::Error::custom("a packet without layers");
                    packets.push(dissect(layers.ok_or_else(missing)?));
                }
                Ok(List(packets))
            }
        }

        deserializer.deserialize_seq(Packets)
    }
}

/// Text out of packets is not always UTF-8, and nothing that is compared is beyond ASCII.
struct Ascii<R>(R);

impl<R: Read> Read for Ascii<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.0.read(buffer)?;
        for byte in buffer.iter_mut().take(length) {
            if !byte.is_ascii() {
                *byte = b'?';
            }
        }
        Ok(length)
    }
}

fn dissect(protocols: &Node) -> Theirs {
    let mut theirs = Theirs::default();
    // Whether the next protocol stands directly above the last IP layer.
    let mut above_ip = false;
    for (name, node) in protocols.entries() {
        match name.as_str() {
            // Neither are remarks protocols ("Duplicate IP address ...").
            "frame" => continue,
            remark if remark.contains(' ') => continue,
            "ip" | "ipv6" => {
                if let Some(layer) = layer(name, node) {
                    theirs.layers.push(layer);
                    above_ip = true;
                }
            }
            extension if EXTENSIONS.iter().any(|(known, _)| *known == extension) => {
                if let Some(last) = theirs.layers.last_mut().filter(|_| above_ip) {
                    extend(last, extension, node);
                }
            }
            other => {
                if let Some((_, source, destination)) =
                    TRANSPORTS.iter().find(|(known, ..)| *known == other)
                    && let Some(last) = theirs.layers.last_mut().filter(|_| above_ip)
                {
                    last.source_port = node.number(source);
                    last.destination_port = node.number(destination);
                }
                above_ip = false;
                if theirs.layers.is_empty() {
                    match other {
                        "vlan" | "ieee8021ad" => theirs.vlan_tags += 1,
                        "eth" | "raw" => {}
                        _ => theirs.below.push(other.to_owned()),
                    }
                }
            }
        }
        theirs.protocols.push(name.clone());
    }
    theirs
}

/// The layer, when tshark got as far as its addresses.
fn layer(name: &str, node: &Node) -> Option<Layer> {
    let address = |side: &str| node.number::<IpAddr>(&format!("{name}.{side}"));
    let mut layer = Layer {
        source: address("src")?,
        destination: address("dst")?,
        protocol: node.number(if name == "ip" { "ip.proto" } else { "ipv6.nxt" })?,
        // In units of eight bytes.
        fragment_offset: node.number::<u32>("ip.frag_offset").unwrap_or_default() * 8,
        source_port: None,
        destination_port: None,
    };
    for (name, node) in node.entries() {
        extend(&mut layer, name, node);
    }
    Some(layer)
}

/// What an extension header changes.
fn extend(layer: &mut Layer, name: &str, node: &Node) {
    let Some((_, next)) = EXTENSIONS.iter().find(|(known, _)| *known == name) else {
        return;
    };
    if let Some(next) = node.number(next) {
        layer.protocol = next;
    }
    if let Some(units) = node.number::<u32>("ipv6.fraghdr.offset") {
        layer.fragment_offset = units * 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(layers: &str) -> Theirs {
        let json = format!(r#"[{{"_index":"x","_score":null,"_source":{{"layers":{layers}}}}}]"#);
        packets(json.as_bytes()).unwrap().remove(0)
    }

    fn shown(theirs: &Theirs) -> Vec<String> {
        theirs.layers.iter().map(Layer::to_string).collect()
    }

    const INNER: &str =
        r#""ip":{"ip.src":"192.0.2.1","ip.dst":"192.0.2.2","ip.proto":"6","ip.frag_offset":"0"}"#;

    #[test]
    fn every_ip_header_in_a_tunnel_is_a_layer() {
        let theirs = one(&format!(
            r#"{{"frame":{{"filtered":"frame"}},"eth":{{}},"vlan":{{}},
            "ipv6":{{"ipv6.src":"2001:db8::1","ipv6.dst":"2001:db8::2","ipv6.nxt":"60",
                "ipv6.dstopts":{{"ipv6.dstopts.nxt":"4"}}}},
            {INNER},"tcp":{{"tcp.srcport":"1","tcp.dstport":"2"}}}}"#
        ));
        assert_eq!(
            shown(&theirs),
            [
                "2001:db8::1 > 2001:db8::2 protocol 4",
                "192.0.2.1 port 1 > 192.0.2.2 port 2 protocol 6"
            ]
        );
        assert_eq!(theirs.vlan_tags, 1);
    }

    #[test]
    fn a_quoted_packet_is_no_layer() {
        let theirs = one(&format!(
            r#"{{"eth":{{}},"ip":{{"ip.src":"198.51.100.1","ip.dst":"192.0.2.1","ip.proto":"1"}},
            "icmp":{{"icmp.type":"3",{INNER},"tcp":{{"tcp.srcport":"1","tcp.dstport":"2"}}}}}}"#
        ));
        assert_eq!(shown(&theirs), ["198.51.100.1 > 192.0.2.1 protocol 1"]);
    }

    #[test]
    fn a_later_fragment_has_its_offset_in_bytes() {
        let theirs = one(
            r#"{"ipv6":{"ipv6.src":"::1","ipv6.dst":"::2","ipv6.nxt":"44",
            "ipv6.fraghdr":{"ipv6.fraghdr.nxt":"17","ipv6.fraghdr.offset":"185"}},"data":{}}"#,
        );
        assert_eq!(shown(&theirs), ["::1 > ::2 protocol 17 fragment at 1480"]);
    }

    #[test]
    fn ports_that_do_not_stand_directly_above_ip_are_not_taken() {
        let theirs = one(
            r#"{"ip":{"ip.src":"192.0.2.1","ip.dst":"192.0.2.2","ip.proto":"108"},
            "ipcomp":{},"tcp":{"tcp.srcport":"1","tcp.dstport":"2"}}"#,
        );
        assert_eq!(shown(&theirs), ["192.0.2.1 > 192.0.2.2 protocol 108"]);
    }

    #[test]
    fn names_of_guesses_are_read_from_either_layout() {
        assert_eq!(heuristic("sctp\tsip\tT").as_deref(), Some("sip_sctp"));
        assert_eq!(
            heuristic("sctp\tsip\tT\tSIP over SCTP\tsip_sctp").as_deref(),
            Some("sip_sctp")
        );
    }
}
