//! A hit as one line, for a program or for a person.

use std::{
    fmt::{self, Write as _},
    io::{self, Write},
};

use serde::Serialize;

use super::captures::Source;
use crate::hit::{Direction, Endpoint, Hit, IndicatorSummary, time_text};

/// The JSON line of the contract.
pub(super) fn write_json(out: &mut dyn Write, source: &Source<'_>, hit: &Hit) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        capture: &'a str,
        packet: u64,
        #[serde(flatten)]
        hit: &'a Hit,
    }
    serde_json::to_writer(
        &mut *out,
        &Line {
            capture: source.capture,
            packet: source.packet,
            hit,
        },
    )?;
    writeln!(out)
}

/// The line for a person; `width` is that of the widest place.
pub(super) fn write_text(
    out: &mut dyn Write,
    source: &Source<'_>,
    width: usize,
    hit: &Hit,
) -> io::Result<()> {
    let arrow = match hit.direction {
        Direction::Outbound => "->",
        Direction::Inbound => "<-",
    };
    let line = format!(
        "{}  {:<width$}  {:<6}  {:<21} {arrow} {:<21}  {}",
        time_text(hit.time),
        place(source),
        hit.protocol.to_string(),
        endpoint(hit.subscriber),
        endpoint(hit.remote),
        Listed(&hit.indicator),
    );
    writeln!(out, "{}", printable(line))
}

/// `CAPTURE:PACKET`.
pub(super) fn place(source: &Source<'_>) -> String {
    format!("{}:{}", source.capture, source.packet)
}

/// An address, with the port where there is one.
pub(super) fn endpoint(endpoint: Endpoint) -> String {
    match endpoint.port {
        Some(port) => std::net::SocketAddr::new(endpoint.ip, port).to_string(),
        None => endpoint.ip.to_string(),
    }
}

/// What an indicator says: `[feodo: 203.0.113.10 tcp port 443 Emotet]`.
struct Listed<'a>(&'a IndicatorSummary);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let indicator = self.0;
        write!(f, "[{}: {}", indicator.feeds.join(","), indicator.value)?;
        if let Some(protocol) = indicator.qualifier.protocol {
            write!(f, " {protocol}")?;
        }
        if let Some(port) = indicator.qualifier.port {
            write!(f, " port {port}")?;
        }
        if let Some(malware) = &indicator.malware {
            write!(f, " {malware}")?;
        }
        f.write_char(']')
    }
}

/// Text from files and their names on its way to a terminal: control
/// characters, which could steer it, are replaced.
pub(super) fn printable(text: String) -> String {
    let steers = |c: char| c.is_control() && c != '\n';
    if text.contains(steers) {
        text.replace(steers, "\u{fffd}")
    } else {
        text
    }
}
