//! Several captures, one after the other: every packet that is an Ethernet
//! frame or can be made one.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use jiff::Timestamp;

use super::{account::Captured, line::printable};
use crate::capture::{Capture, CaptureProblem, LinkType, ethernet_frame};

/// A packet of a capture.
pub(super) struct Source<'a> {
    /// The capture, as it was named by the caller.
    pub(super) capture: &'a str,
    /// Number in the capture, from 1.
    pub(super) packet: u64,
    /// When it was captured.
    pub(super) time: Timestamp,
    /// From the Ethernet header on.
    pub(super) frame: &'a [u8],
}

/// Calls `each` with every packet of the captures, in order. Says on `err`
/// what cannot be read.
///
/// # Errors
/// Those of `each`, and when `err` cannot be written.
pub(super) fn walk<E: From<io::Error>>(
    paths: &[PathBuf],
    err: &mut dyn Write,
    mut each: impl FnMut(&Source<'_>) -> Result<(), E>,
) -> Result<Captured, E> {
    let mut captured = Captured::default();
    for path in paths {
        captured.captures += 1;
        let name = path.display().to_string();
        let capture = match Capture::open(path) {
            Ok(capture) => capture,
            Err(error) => {
                captured.unusable += 1;
                writeln!(err, "{}", printable(error.to_string()))?;
                continue;
            }
        };
        let mut skipped = Skipped::default();
        for next in capture {
            let packet = match next {
                Ok(packet) => packet,
                Err(error) => {
                    match error.problem {
                        CaptureProblem::Io { .. } | CaptureProblem::NotACapture(_) => {
                            captured.unusable += 1;
                        }
                        CaptureProblem::CutOff { .. } | CaptureProblem::Damaged { .. } => {
                            captured.broken += 1;
                        }
                    }
                    writeln!(err, "{}", printable(error.to_string()))?;
                    break;
                }
            };
            captured.packets += 1;
            match ethernet_frame(&packet) {
                Some(frame) => each(&Source {
                    capture: &name,
                    packet: packet.number,
                    time: packet.time,
                    frame: &frame,
                })?,
                None => skipped.count(packet.link),
            }
        }
        let name = printable(name);
        for (link, packets) in skipped.0 {
            captured.skipped += packets;
            writeln!(
                err,
                "{name}: {packets} packets skipped: {link} is not read, only Ethernet and raw IP"
            )?;
        }
    }
    Ok(captured)
}

/// Packets that were skipped, by link type, in the order of first sight. A
/// capture has one link type, or a handful (pcapng).
#[derive(Default)]
struct Skipped(Vec<(LinkType, u64)>);

impl Skipped {
    fn count(&mut self, link: LinkType) {
        match self.0.iter_mut().find(|(known, _)| *known == link) {
            Some((_, packets)) => *packets += 1,
            None => self.0.push((link, 1)),
        }
    }
}
