//! Blocks of pcapng (draft-ietf-opsawg-pcapng).

use std::io::Read;

use pcap_parser::{
    EnhancedPacketBlock, InterfaceDescriptionBlock, SimplePacketBlock,
    nom::{self, IResult},
    parse_enhancedpacketblock_be, parse_enhancedpacketblock_le, parse_interfacedescriptionblock_be,
    parse_interfacedescriptionblock_le, parse_sectionheaderblock, parse_simplepacketblock_be,
    parse_simplepacketblock_le,
};

use super::{
    Fault, LONGEST_RECORD, LinkType, Packet, Step,
    record::{Fill, Record},
    time::{self, Clock},
};

/// The type of the block that starts a section, the same in both byte orders.
pub(super) const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
/// The old packet block, "obsolete" but still found.
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Type and length, which start every block.
const BLOCK_START: usize = 8;
/// The same and the byte-order magic of a section header.
const SECTION_START: usize = 12;

/// What is known of the section that is being read.
#[derive(Debug, Default)]
pub(super) struct Section {
    order: Order,
    interfaces: Vec<Interface>,
}

#[derive(Copy, Clone, Debug, Default)]
enum Order {
    #[default]
    Little,
    Big,
}

#[derive(Debug)]
struct Interface {
    link: LinkType,
    /// The longest packet that was kept whole; 0: any.
    snap_length: u32,
    clock: Clock,
}

impl Order {
    /// The number at `at`, which every caller has made sure is there; 0 if not.
    fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let field = bytes.get(at..).and_then(<[u8]>::first_chunk).copied();
        match self {
            Self::Little => u32::from_le_bytes(field.unwrap_or_default()),
            Self::Big => u32::from_be_bytes(field.unwrap_or_default()),
        }
    }

    fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let field = bytes.get(at..).and_then(<[u8]>::first_chunk).copied();
        match self {
            Self::Little => u16::from_le_bytes(field.unwrap_or_default()),
            Self::Big => u16::from_be_bytes(field.unwrap_or_default()),
        }
    }
}

impl Section {
    /// Reads the next block; `number` is the packet's, if it holds one.
    pub(super) fn next_block<R: Read>(
        &mut self,
        record: &mut Record<R>,
        number: u64,
    ) -> Result<Step, Fault> {
        if record.fill_to(BLOCK_START)? == Fill::Short {
            return match record.bytes() {
                [] => Ok(Step::End),
                _ => Err(Fault::CutOff),
            };
        }
        let kind = self.order.u32(record.bytes(), 0);
        if kind == SECTION_HEADER {
            whole(record.fill_to(SECTION_START)?)?;
            self.order = section_order(record.bytes())?;
            self.interfaces.clear();
        }
        let length = self.order.u32(record.bytes(), 4);
        // Lengths must be multiples of four; writers that forget it still pad.
        let padded = u64::from(length).next_multiple_of(4);
        if (length as usize) < BLOCK_START + 4 {
            return Err(Fault::Damaged(format!(
                "a block of {length} bytes cannot be: the shortest has 12"
            )));
        }
        match kind {
            SECTION_HEADER | INTERFACE_DESCRIPTION | PACKET | SIMPLE_PACKET | ENHANCED_PACKET => {}
            _ => {
                whole(record.skip(padded - BLOCK_START as u64)?)?;
                return Ok(Step::Other);
            }
        }
        if length as usize > LONGEST_RECORD {
            return Err(Fault::Damaged(format!(
                "a block of {length} bytes cannot be: the longest that is read has {LONGEST_RECORD}"
            )));
        }
        whole(record.fill_to(padded as usize)?)?;
        let block = record.bytes();
        match kind {
            SECTION_HEADER => check_section(block),
            INTERFACE_DESCRIPTION => {
                let interface = self.interface_description(block)?;
                self.interfaces.push(interface);
                Ok(Step::Other)
            }
            ENHANCED_PACKET => self.enhanced_packet(block, number).map(Step::Packet),
            SIMPLE_PACKET => self.simple_packet(block, number).map(Step::Packet),
            _ => self.old_packet(block, number).map(Step::Packet),
        }
    }

    fn interface_description(&self, block: &[u8]) -> Result<Interface, Fault> {
        let described: InterfaceDescriptionBlock<'_> = match self.order {
            Order::Little => parsed(parse_interfacedescriptionblock_le(block)),
            Order::Big => parsed(parse_interfacedescriptionblock_be(block)),
        }?;
        let offset = match self.order {
            Order::Little => described.if_tsoffset,
            // pcap-parser 0.17 reads it as little-endian always.
            Order::Big => described.if_tsoffset.swap_bytes(),
        };
        Ok(Interface {
            link: LinkType::from_number(described.linktype.0.cast_unsigned()),
            snap_length: described.snaplen,
            clock: Clock {
                resolution: described.if_tsresol,
                offset,
            },
        })
    }

    fn enhanced_packet(&self, block: &[u8], number: u64) -> Result<Packet, Fault> {
        let packet: EnhancedPacketBlock<'_> = match self.order {
            Order::Little => parsed(parse_enhancedpacketblock_le(block)),
            Order::Big => parsed(parse_enhancedpacketblock_be(block)),
        }?;
        let interface = self.interface(packet.if_id)?;
        Ok(Packet {
            number,
            time: interface.clock.time(ticks(packet.ts_high, packet.ts_low)),
            link: interface.link,
            // The parser leaves the padding in.
            data: captured(packet.data, packet.caplen)?,
            original_length: packet.origlen,
        })
    }

    /// A packet without time, interface or captured length (section 4.4): the
    /// first interface's snapshot length says how much of it there is.
    fn simple_packet(&self, block: &[u8], number: u64) -> Result<Packet, Fault> {
        let packet: SimplePacketBlock<'_> = match self.order {
            Order::Little => parsed(parse_simplepacketblock_le(block)),
            Order::Big => parsed(parse_simplepacketblock_be(block)),
        }?;
        let interface = self.interface(0)?;
        let length = match interface.snap_length {
            0 => packet.origlen,
            snap_length => packet.origlen.min(snap_length),
        };
        Ok(Packet {
            number,
            time: time::from_nanos(0),
            link: interface.link,
            data: captured(packet.data, length)?,
            original_length: packet.origlen,
        })
    }

    /// Appendix A: as the enhanced packet, but with an interface of 16 bits and
    /// a count of drops beside it.
    fn old_packet(&self, block: &[u8], number: u64) -> Result<Packet, Fault> {
        const DATA: usize = 28;
        let contents = block
            .get(DATA..block.len().saturating_sub(4))
            .ok_or_else(|| Fault::Damaged("a packet block without room for its header".into()))?;
        let interface = self.interface(u32::from(self.order.u16(block, 8)))?;
        let ticks = ticks(self.order.u32(block, 12), self.order.u32(block, 16));
        Ok(Packet {
            number,
            time: interface.clock.time(ticks),
            link: interface.link,
            data: captured(contents, self.order.u32(block, 20))?,
            original_length: self.order.u32(block, 24),
        })
    }

    fn interface(&self, index: u32) -> Result<&Interface, Fault> {
        self.interfaces.get(index as usize).ok_or_else(|| {
            Fault::Damaged(format!(
                "a packet of interface {index}, but the section describes only {}",
                self.interfaces.len()
            ))
        })
    }
}

/// The byte order that the magic of a section header tells.
fn section_order(block: &[u8]) -> Result<Order, Fault> {
    match block.get(8..SECTION_START) {
        Some([0x4d, 0x3c, 0x2b, 0x1a]) => Ok(Order::Little),
        Some([0x1a, 0x2b, 0x3c, 0x4d]) => Ok(Order::Big),
        _ => Err(Fault::Damaged(
            "a section header without byte-order magic".to_owned(),
        )),
    }
}

fn check_section(block: &[u8]) -> Result<Step, Fault> {
    let header = parsed(parse_sectionheaderblock(block))?;
    if header.major_version == 1 {
        return Ok(Step::Other);
    }
    Err(Fault::Damaged(format!(
        "pcapng version {}.{} is unknown (1.0 is read)",
        header.major_version, header.minor_version
    )))
}

fn whole(fill: Fill) -> Result<(), Fault> {
    match fill {
        Fill::Whole => Ok(()),
        Fill::Short => Err(Fault::CutOff),
    }
}

/// The block was given whole, so a parser that wants more found an inner length
/// that points outside.
fn parsed<B, E>(result: IResult<&[u8], B, E>) -> Result<B, Fault> {
    match result {
        Ok((_, block)) => Ok(block),
        Err(nom::Err::Incomplete(_)) => Err(Fault::Damaged(
            "the block is too short for what it says it holds".to_owned(),
        )),
        Err(_) => Err(Fault::Damaged(
            "the block's lengths contradict each other".to_owned(),
        )),
    }
}

fn ticks(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn captured(data: &[u8], length: u32) -> Result<Vec<u8>, Fault> {
    data.get(..length as usize)
        .map(<[u8]>::to_vec)
        .ok_or_else(|| {
            Fault::Damaged(format!(
                "a packet of {length} bytes in a block with {}",
                data.len()
            ))
        })
}
