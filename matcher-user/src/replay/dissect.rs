//! `matcher parse`: what the parser in the kernel saw of each packet.
//!
//! One line a packet. As JSON:
//!
//! ```json
//! {"capture":"x.pcap","packet":1,
//!  "layers":[{"source":"2001:db8:100::7","destination":"2001:db8::1","protocol":4,
//!             "fragment_offset":0,"source_port":null,"destination_port":null,"tunnel":null},
//!            {"source":"10.0.0.2","destination":"198.51.100.23","protocol":"tcp",
//!             "fragment_offset":0,"source_port":51413,"destination_port":443,"tunnel":"4in6"}],
//!  "source_port":51413,"destination_port":443,"vlan_tags":1,"vlans":[100],"tunnels":["4in6"],
//!  "unparsed":null,"by":"kernel"}
//! ```
//!
//! `layers` are the IP layers, outermost first, and `tunnels` what carries the
//! second and each further one. `protocol` is what stands above the layer and
//! its extension headers, by name or number; `fragment_offset` is in bytes.
//! Ports are null where the layer has none: no such protocol, a later fragment,
//! or a header that is cut off; those of the line are those of the innermost
//! layer. `vlan_tags` counts the tags in front of everything, `vlans` are the
//! ids of the first two. `unparsed` is null when the parser read the packet to
//! its end, else the name of the counter that such a packet bumps, and the
//! packet never matches. `by` is `host` for frames that the kernel's test entry
//! does not take.

use std::{
    io::{BufWriter, Write},
    net::IpAddr,
    path::PathBuf,
};

use matcher_common::{
    abi::{Counter, IpLayer, Packet, Tunnel},
    parse::{self, Family},
};
use serde::Serialize;

use super::{
    ReplayError,
    account::ParseAccount,
    captures::{Source, walk},
    line::{endpoint, place, printable},
};
use crate::{
    drain::address_of,
    hit::Endpoint,
    kernel::{
        object::Object,
        program::{Clock, FRAME_BYTES, Limits, Loaded},
    },
    protocol::Protocol,
};

/// What to parse.
#[derive(Clone, Debug)]
pub struct Request {
    /// JSON lines instead of text.
    pub json: bool,
    /// The captures, in order.
    pub captures: Vec<PathBuf>,
}

/// Runs the captures through the parser in the kernel: a line for every packet
/// to `out`, what is wrong with captures, and the account, to `err`.
///
/// # Errors
/// See [`ReplayError`]; what was seen until then has been written. A capture
/// that cannot be read is no error here: see
/// [`all_usable`](super::account::Captured::all_usable).
pub fn parse(
    object: &Object,
    request: &Request,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<ParseAccount, ReplayError> {
    let mut out = BufWriter::with_capacity(1 << 16, out);
    let mut loaded = Loaded::load(object, NO_TABLES, Clock::Replay)?;
    let mut account = ParseAccount::default();
    account.captured = walk(
        &request.captures,
        err,
        |source| -> Result<(), ReplayError> {
            let seen = Seen::of(source, &mut loaded)?;
            match seen.unparsed {
                None => account.parsed += 1,
                Some(reason) => *account.unparsed.entry(reason).or_default() += 1,
            }
            account.by_host += u64::from(seen.by == By::Host);
            if request.json {
                seen.write_json(&mut out, source)?;
            } else {
                seen.write_text(&mut out, source)?;
            }
            Ok(())
        },
    )?;
    out.flush()?;
    account.write(err)?;
    Ok(account)
}

/// The tables stay empty: the parser has no use for them.
const NO_TABLES: Limits = Limits {
    max_flows: 1,
    max_port_ranges: 1,
    max_indicators: 1,
    max_consent_entries: 1,
    ring_bytes: 1 << 12,
};

/// Where a packet was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum By {
    Kernel,
    Host,
}

/// What the parser saw of one packet.
struct Seen {
    layers: Vec<Layer>,
    vlan_tags: u8,
    vlans: Vec<u16>,
    unparsed: Option<Counter>,
    by: By,
}

#[derive(Clone, Copy, Serialize)]
struct Layer {
    source: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    fragment_offset: u16,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    tunnel: Option<&'static str>,
}

impl Layer {
    fn new(layer: &IpLayer) -> Self {
        let ipv6 = layer.family() == Family::V6;
        let ports = layer.ports();
        Self {
            source: address_of(&layer.source, ipv6),
            destination: address_of(&layer.destination, ipv6),
            protocol: Protocol(layer.protocol),
            fragment_offset: layer.fragment_offset,
            source_port: ports.map(|ports| ports.source),
            destination_port: ports.map(|ports| ports.destination),
            tunnel: Tunnel::from_number(layer.tunnel).map(Tunnel::name),
        }
    }
}

impl Seen {
    fn of(source: &Source<'_>, loaded: &mut Loaded) -> Result<Self, ReplayError> {
        if FRAME_BYTES.contains(&source.frame.len()) {
            Ok(Self::new(&loaded.parse(source.frame)?, By::Kernel))
        } else {
            Ok(Self::new(&parse::parse(source.frame), By::Host))
        }
    }

    fn new(packet: &Packet, by: By) -> Self {
        Self {
            layers: packet.layers().iter().map(Layer::new).collect(),
            vlan_tags: packet.vlan_tags,
            vlans: packet
                .vlan_ids
                .into_iter()
                .take(packet.vlan_tags.into())
                .collect(),
            unparsed: packet.unparsed(),
            by,
        }
    }

    fn write_json(&self, out: &mut dyn Write, source: &Source<'_>) -> std::io::Result<()> {
        #[derive(Serialize)]
        struct Line<'a> {
            capture: &'a str,
            packet: u64,
            layers: &'a [Layer],
            source_port: Option<u16>,
            destination_port: Option<u16>,
            vlan_tags: u8,
            vlans: &'a [u16],
            tunnels: Vec<&'static str>,
            unparsed: Option<&'static str>,
            by: By,
        }
        let innermost = self.layers.last();
        serde_json::to_writer(
            &mut *out,
            &Line {
                capture: source.capture,
                packet: source.packet,
                layers: &self.layers,
                source_port: innermost.and_then(|layer| layer.source_port),
                destination_port: innermost.and_then(|layer| layer.destination_port),
                vlan_tags: self.vlan_tags,
                vlans: &self.vlans,
                tunnels: self
                    .layers
                    .iter()
                    .filter_map(|layer| layer.tunnel)
                    .collect(),
                unparsed: self.unparsed.map(Counter::name),
                by: self.by,
            },
        )?;
        writeln!(out)
    }

    fn write_text(&self, out: &mut dyn Write, source: &Source<'_>) -> std::io::Result<()> {
        let mut line = place(source);
        for layer in &self.layers {
            if let Some(tunnel) = layer.tunnel {
                line.push_str(&format!("  {tunnel}:"));
            }
            let end = |ip, port| endpoint(Endpoint { ip, port });
            line.push_str(&format!(
                "  {} {} -> {}",
                layer.protocol,
                end(layer.source, layer.source_port),
                end(layer.destination, layer.destination_port),
            ));
            if layer.fragment_offset > 0 {
                line.push_str(&format!("  fragment at {}", layer.fragment_offset));
            }
        }
        if self.vlan_tags > 0 {
            line.push_str(&format!("  VLAN tags: {}", self.vlan_tags));
        }
        if let Some(reason) = self.unparsed {
            line.push_str(&format!("  not parsed: {}", reason.name()));
        }
        if self.by == By::Host {
            line.push_str("  (on the host)");
        }
        writeln!(out, "{}", printable(line))
    }
}
