//! Captures (pcap and pcapng) as a stream of packets.
//!
//! Captures come from anywhere: another machine's byte order, a disk that ran
//! full, a program nobody knows. So a packet that can be read is always
//! delivered, the first thing that cannot be read ends the stream with an error
//! that says where, and no bytes whatever make the reader panic.
//!
//! `pcap-parser` reads the records; the framing around it is ours, so that a
//! length that lies is found at its own offset, and so are three things that
//! version 0.17 leaves out or gets wrong: the old packet block of pcapng, time
//! offsets in big-endian sections, and resolutions that are powers of two.
//!
//! Sources: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.

mod link;
mod pcapng;
mod record;
mod time;

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use jiff::Timestamp;
use pcap_parser::{LegacyPcapBlock, PcapHeader, nom, parse_pcap_header};

pub use link::{LinkType, ethernet_frame};
use pcapng::Section;
use record::{Fill, Record};

/// No real packet comes near this (BIG TCP ends at half a MiB), so a larger
/// length means that the file is damaged.
const LONGEST_RECORD: usize = 16 << 20;

/// One packet of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Position in the capture, from 1; every packet counts, whatever its link
    /// type. The number that Wireshark shows.
    pub number: u64,
    /// When it was captured. Times outside jiff's years (-9999 to 9999) are
    /// moved to the nearest end. The epoch where the capture holds no time
    /// (simple packet blocks).
    pub time: Timestamp,
    /// What the first header of `data` is.
    pub link: LinkType,
    /// The bytes that were captured.
    pub data: Vec<u8>,
    /// Bytes on the wire: more than `data` where the capture cut packets.
    pub original_length: u32,
}

/// Why a capture could not be read, or not to its end.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct CaptureError {
    /// The capture's name, as given.
    pub file: String,
    /// What is wrong with it.
    #[source]
    pub problem: CaptureProblem,
}

/// What is wrong with a capture.
#[derive(Debug, thiserror::Error)]
pub enum CaptureProblem {
    /// The file does not start as any capture does.
    #[error("not a pcap or pcapng capture: {0}")]
    NotACapture(String),
    /// The file ends within a record, as after a full disk.
    #[error("cut off within the record at byte {offset}, after {packets} whole packets")]
    CutOff {
        /// Where the incomplete record starts.
        offset: u64,
        /// Packets delivered before it.
        packets: u64,
    },
    /// A record contradicts itself; nothing after it can be trusted.
    #[error("damaged at byte {offset}, after {packets} whole packets: {what}")]
    Damaged {
        /// Where the bad record starts.
        offset: u64,
        /// Packets delivered before it.
        packets: u64,
        /// What is wrong there.
        what: String,
    },
    /// The system could not read the file.
    #[error("cannot read it (after {packets} packets): {source}")]
    Io {
        /// Packets delivered before.
        packets: u64,
        /// The system's answer.
        source: io::Error,
    },
}

/// A capture being read: an iterator over its packets, which ends after the
/// first error.
#[derive(Debug)]
pub struct Capture<R> {
    file: String,
    record: Record<R>,
    format: Format,
    packets: u64,
    ended: bool,
}

#[derive(Debug)]
enum Format {
    Pcap(PcapHeader),
    Pcapng(Section),
}

/// What one step through the file found.
enum Step {
    Packet(Packet),
    /// A block without a packet.
    Other,
    End,
}

/// A problem that the record itself shows, before the capture's name, offset
/// and count are put to it.
#[derive(Debug)]
enum Fault {
    CutOff,
    Damaged(String),
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Capture<BufReader<File>> {
    /// Opens the capture at `path` and reads its header.
    ///
    /// # Errors
    /// The file cannot be read, or is no capture.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CaptureError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Self::new(name, BufReader::with_capacity(1 << 16, file)),
            Err(source) => Err(CaptureError {
                file: name,
                problem: CaptureProblem::Io { packets: 0, source },
            }),
        }
    }
}

impl<R: Read> Capture<R> {
    /// Reads the header of the capture that `reader` gives; `file` names it in
    /// errors.
    ///
    /// # Errors
    /// The reader fails, or what it gives is no capture.
    pub fn new(file: impl Into<String>, reader: R) -> Result<Self, CaptureError> {
        let mut record = Record::new(reader);
        match read_header(&mut record) {
            Ok(format) => Ok(Self {
                file: file.into(),
                record,
                format,
                packets: 0,
                ended: false,
            }),
            Err(problem) => Err(CaptureError {
                file: file.into(),
                problem,
            }),
        }
    }

    fn step(&mut self) -> Result<Step, Fault> {
        let number = self.packets + 1;
        let step = match &mut self.format {
            Format::Pcap(header) => next_pcap(&mut self.record, header, number),
            Format::Pcapng(section) => section.next_block(&mut self.record, number),
        }?;
        self.record.start_next();
        Ok(step)
    }

    fn error(&self, fault: Fault) -> CaptureError {
        let (offset, packets) = (self.record.offset(), self.packets);
        CaptureError {
            file: self.file.clone(),
            problem: match fault {
                Fault::CutOff => CaptureProblem::CutOff { offset, packets },
                Fault::Damaged(what) => CaptureProblem::Damaged {
                    offset,
                    packets,
                    what,
                },
                Fault::Io(source) => CaptureProblem::Io { packets, source },
            },
        }
    }
}

impl<R: Read> Iterator for Capture<R> {
    type Item = Result<Packet, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.step() {
                Ok(Step::Packet(packet)) => {
                    self.packets = packet.number;
                    return Some(Ok(packet));
                }
                Ok(Step::Other) => {}
                Ok(Step::End) => self.ended = true,
                Err(fault) => {
                    self.ended = true;
                    return Some(Err(self.error(fault)));
                }
            }
        }
        None
    }
}

/// Reads the header of pcap; of pcapng only the first bytes, which stay in the
/// record, since its header is a block.
fn read_header<R: Read>(record: &mut Record<R>) -> Result<Format, CaptureProblem> {
    let io_problem = |source| CaptureProblem::Io { packets: 0, source };
    let magic_is_whole = record.fill_to(4).map_err(io_problem)?;
    let magic = record.bytes();
    if magic == pcapng::SECTION_HEADER.to_le_bytes() {
        return Ok(Format::Pcapng(Section::default()));
    }
    let is_pcap = [
        [0xa1, 0xb2, 0xc3, 0xd4],
        [0xd4, 0xc3, 0xb2, 0xa1],
        [0xa1, 0xb2, 0x3c, 0x4d],
        [0x4d, 0x3c, 0xb2, 0xa1],
        // The "modified" format of Linux's libpcap 0.7, little-endian.
        [0x34, 0xcd, 0xb2, 0xa1],
    ]
    .iter()
    .any(|known| magic == known);
    if magic_is_whole == Fill::Short || !is_pcap {
        return Err(CaptureProblem::NotACapture(describe_magic(magic)));
    }
    let header_is_whole = record.fill_to(PCAP_HEADER).map_err(io_problem)?;
    match parse_pcap_header(record.bytes()) {
        Ok((_, header)) if header_is_whole == Fill::Whole => {
            record.start_next();
            Ok(Format::Pcap(header))
        }
        _ => Err(CaptureProblem::NotACapture(format!(
            "it ends within the file header ({} of {PCAP_HEADER} bytes)",
            record.bytes().len()
        ))),
    }
}

const PCAP_HEADER: usize = 24;

/// What a file that is no capture seems to be, and what to do about it.
fn describe_magic(magic: &[u8]) -> String {
    let hint = match magic {
        [] => return "the file is empty".to_owned(),
        [0x1f, 0x8b, ..] => " (gzip: decompress it first)",
        [0x28, 0xb5, 0x2f, 0xfd] => " (zstd: decompress it first)",
        [0xfd, b'7', b'z', b'X'] => " (xz: decompress it first)",
        [0x04, 0x22, 0x4d, 0x18] => " (lz4: decompress it first)",
        b"snoo" => " (Solaris snoop: convert it with `editcap -F pcapng`)",
        _ => "",
    };
    let hex: Vec<String> = magic.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("it starts with the bytes {}{hint}", hex.join(" "))
}

/// Reads one record of a pcap file.
fn next_pcap<R: Read>(
    record: &mut Record<R>,
    header: &PcapHeader,
    number: u64,
) -> Result<Step, Fault> {
    let parse = if header.is_modified_format() {
        pcap_parser::parse_pcap_frame_modified
    } else if header.is_bigendian() {
        pcap_parser::parse_pcap_frame_be
    } else {
        pcap_parser::parse_pcap_frame
    };
    loop {
        // The parser asks for the record's header first, then for the packet.
        let missing = match parse(record.bytes()) {
            Ok((_, block)) => return Ok(Step::Packet(pcap_packet(header, &block, number))),
            Err(nom::Err::Incomplete(nom::Needed::Size(missing))) => missing.get(),
            Err(_) => return Err(Fault::Damaged("the record cannot be read".to_owned())),
        };
        let have = record.bytes().len();
        if missing > LONGEST_RECORD {
            return Err(Fault::Damaged(format!(
                "a packet of {missing} bytes cannot be: the longest that is read has {LONGEST_RECORD}"
            )));
        }
        match record.fill_to(have + missing)? {
            Fill::Whole => {}
            Fill::Short if record.bytes().is_empty() => return Ok(Step::End),
            Fill::Short => return Err(Fault::CutOff),
        }
    }
}

fn pcap_packet(header: &PcapHeader, block: &LegacyPcapBlock<'_>, number: u64) -> Packet {
    let nanos_per_tick = if header.is_nanosecond_precision() {
        1
    } else {
        1_000
    };
    Packet {
        number,
        // A fraction of more than a second carries over.
        time: time::from_nanos(
            i128::from(block.ts_sec) * time::NANOS
                + i128::from(block.ts_usec) * i128::from(nanos_per_tick),
        ),
        link: LinkType::from_pcap_header(header.network.0.cast_unsigned()),
        data: block.data.to_vec(),
        original_length: block.origlen,
    }
}

#[cfg(test)]
mod tests;
