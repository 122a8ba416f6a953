//! Writes captures: pcap with nanoseconds, Ethernet.

use std::io::{self, Write};

use jiff::Timestamp;

/// Writes packets as a capture.
#[derive(Debug)]
pub struct PcapWriter<W: Write> {
    to: W,
}

impl<W: Write> PcapWriter<W> {
    /// Writes the file header.
    ///
    /// # Errors
    /// The writer's.
    pub fn new(mut to: W) -> io::Result<Self> {
        let mut header = Vec::with_capacity(24);
        header.extend(0xa1b2_3c4d_u32.to_le_bytes());
        header.extend([2, 0, 4, 0]);
        header.extend([0; 8]);
        header.extend(u32::from(u16::MAX).to_le_bytes());
        header.extend(1_u32.to_le_bytes());
        to.write_all(&header)?;
        Ok(Self { to })
    }

    /// Writes a packet.
    ///
    /// # Errors
    /// The writer's; or the time lies outside 1970 to 2106, or the frame is
    /// longer than 65,535 bytes.
    pub fn write(&mut self, time: Timestamp, frame: &[u8]) -> io::Result<()> {
        let seconds = u32::try_from(time.as_second()).map_err(io::Error::other)?;
        let nanoseconds = u32::try_from(time.subsec_nanosecond()).map_err(io::Error::other)?;
        let length = u16::try_from(frame.len()).map_err(io::Error::other)?;
        let mut header = Vec::with_capacity(16);
        for field in [seconds, nanoseconds, u32::from(length), u32::from(length)] {
            header.extend(field.to_le_bytes());
        }
        self.to.write_all(&header)?;
        self.to.write_all(frame)
    }

    /// Writes what is still buffered and gives the writer back.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.flush()?;
        Ok(self.to)
    }
}

#[cfg(test)]
mod tests {
    use matcher_user::capture::{Capture, LinkType};

    use super::*;

    #[test]
    fn the_products_reader_gives_the_packets_back() {
        let packets: [(&str, &[u8]); 2] = [
            ("2026-11-22T01:02:03.000000004Z", b"one"),
            ("2026-11-22T01:02:04.999999999Z", b""),
        ];
        let mut writer = PcapWriter::new(Vec::new()).unwrap();
        for (time, frame) in packets {
            writer.write(time.parse().unwrap(), frame).unwrap();
        }
        let bytes = writer.finish().unwrap();
        let back: Vec<_> = Capture::new("x", &bytes[..])
            .unwrap()
            .map(|packet| packet.unwrap())
            .collect();
        assert_eq!(back.len(), packets.len());
        for (packet, (time, frame)) in back.iter().zip(packets) {
            assert_eq!(packet.time, time.parse().unwrap());
            assert_eq!(packet.data, frame);
            assert_eq!(packet.link, LinkType::Ethernet);
        }
    }

    #[test]
    fn what_the_format_cannot_hold_is_refused() {
        let mut writer = PcapWriter::new(Vec::new()).unwrap();
        let before = Timestamp::from_second(-1).unwrap();
        assert!(writer.write(before, b"x").is_err());
        assert!(
            writer
                .write(Timestamp::UNIX_EPOCH, &vec![0; 65_536])
                .is_err()
        );
    }
}
