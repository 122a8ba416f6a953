//! `matcher parse`: what the parser in the kernel saw of each packet.
//!
//! One line a packet. As JSON:
//!
//! ```json
//! {"capture":"x.pcap","packet":1,
//!  "layers":[{"source":"203.0.113.7","destination":"198.51.100.23","protocol":"tcp",
//!             "fragment_offset":0}],
//!  "source_port":51413,"destination_port":443,"vlan_tags":0,"tunnels":[],
//!  "unparsed":null,"by":"kernel"}
//! ```
//!
//! `layers` are the IP layers, outermost first: one where IP was read, and no
//! more as long as tunnels are not looked into (`unparsed` is then `tunnel`,
//! and `tunnels`, the kinds that were, stays empty). `protocol` is what stands
//! above the layer and its extension headers, by name or number;
//! `fragment_offset` is in bytes. Ports are null where the packet has none: no
//! such protocol, a later fragment, or a header that is cut off. `unparsed` is
//! null when the parser read all that it claims to read, else the name of the
//! counter that such a packet bumps, and the packet never matches. `by` is
//! `host` for frames that the kernel's test entry does not take.

use std::{
    io::{BufWriter, Write},
    net::IpAddr,
    path::PathBuf,
};

use matcher_common::{
    abi::{Counter, ParseReport},
    parse,
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
    layer: Option<Layer>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    vlan_tags: u8,
    unparsed: Option<Counter>,
    by: By,
}

#[derive(Clone, Copy, Serialize)]
struct Layer {
    source: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    fragment_offset: u16,
}

impl Seen {
    fn of(source: &Source<'_>, loaded: &mut Loaded) -> Result<Self, ReplayError> {
        if FRAME_BYTES.contains(&source.frame.len()) {
            let report = loaded.parse(source.frame)?;
            Ok(Self::new(&report, By::Kernel))
        } else {
            let report = parse::parse(source.frame).report();
            Ok(Self::new(&report, By::Host))
        }
    }

    fn new(report: &ParseReport, by: By) -> Self {
        let port = |port| (report.has_ports != 0).then_some(port);
        let ipv6 = report.ip_version == 6;
        Self {
            layer: (report.ip_version != 0).then(|| Layer {
                source: address_of(&report.source, ipv6),
                destination: address_of(&report.destination, ipv6),
                protocol: Protocol(report.protocol),
                fragment_offset: report.fragment_offset,
            }),
            source_port: port(report.source_port),
            destination_port: port(report.destination_port),
            vlan_tags: report.vlan_tags,
            unparsed: report.unparsed.checked_sub(1).and_then(counter),
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
            tunnels: [&'static str; 0],
            unparsed: Option<&'static str>,
            by: By,
        }
        serde_json::to_writer(
            &mut *out,
            &Line {
                capture: source.capture,
                packet: source.packet,
                layers: self.layer.as_slice(),
                source_port: self.source_port,
                destination_port: self.destination_port,
                vlan_tags: self.vlan_tags,
                tunnels: [],
                unparsed: self.unparsed.map(Counter::name),
                by: self.by,
            },
        )?;
        writeln!(out)
    }

    fn write_text(&self, out: &mut dyn Write, source: &Source<'_>) -> std::io::Result<()> {
        let mut line = place(source);
        if let Some(layer) = self.layer {
            let end = |ip, port| endpoint(Endpoint { ip, port });
            line.push_str(&format!(
                "  {} {} -> {}",
                layer.protocol,
                end(layer.source, self.source_port),
                end(layer.destination, self.destination_port),
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

/// The counter in that slot; the object's ABI is ours, so there is one.
fn counter(slot: u32) -> Option<Counter> {
    Counter::ALL.get(usize::try_from(slot).ok()?).copied()
}
