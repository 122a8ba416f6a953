//! What an interface received and sent, by the kernel's count.

use std::fs::File;

use anyhow::{Context, Result, ensure};

/// Packets of one interface, since it was made.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Received.
    pub rx_packets: u64,
    /// Thrown away on receipt.
    pub rx_dropped: u64,
    /// Sent. For a veth whose peer runs XDP in native mode: taken over by the
    /// peer's XDP program.
    pub tx_packets: u64,
    /// Thrown away when they were to be sent.
    pub tx_dropped: u64,
}

/// A namespace's /proc/net/dev, held open.
#[derive(Debug)]
pub(crate) struct CounterFile {
    file: File,
}

impl CounterFile {
    /// That of the calling thread's namespace, for good.
    pub(super) fn open() -> Result<Self> {
        // Not /proc/net, which shows the namespace of the process's first thread.
        const PATH: &str = "/proc/thread-self/net/dev";
        let file = File::open(PATH).with_context(|| format!("cannot open {PATH}"))?;
        Ok(Self { file })
    }

    pub(crate) fn read(&self, interface: &str) -> Result<Counters> {
        let mut bytes = vec![0; 1 << 14];
        let mut length = 0;
        loop {
            let more = rustix::io::pread(&self.file, &mut bytes[length..], length as u64)?;
            length += more;
            if more == 0 {
                break;
            }
            ensure!(length < bytes.len(), "too many interfaces in /proc/net/dev");
        }
        let text = str::from_utf8(&bytes[..length])?;
        parse_counters(text, interface)
            .with_context(|| format!("there is no interface {interface} in the namespace"))
    }
}

/// The line of one interface of /proc/net/dev.
fn parse_counters(text: &str, interface: &str) -> Option<Counters> {
    let values = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
    let values: Vec<u64> = values
        .split_whitespace()
        .map(|value| value.parse().ok())
        .collect::<Option<_>>()?;
    Some(Counters {
        rx_packets: *values.get(1)?,
        rx_dropped: *values.get(3)?,
        tx_packets: *values.get(9)?,
        tx_dropped: *values.get(11)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_column() {
        let text = "Inter-|   Receive\n face |bytes\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
                    eth01: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
        let counters = Counters {
            rx_packets: 2,
            rx_dropped: 4,
            tx_packets: 10,
            tx_dropped: 12,
        };
        assert_eq!(parse_counters(text, "eth0"), Some(counters));
        assert_eq!(parse_counters(text, "eth"), None);
    }
}
