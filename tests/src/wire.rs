//! Puts frames on an interface of a laboratory, as they are, and sees to it that
//! the other end took them.
//!
//! A veth has no flow control that a raw socket would notice: its ring holds 256
//! frames, and what finds it full is thrown away while `send` reports success.
//! So a [`Sender`] has at most half a ring under way and reads from the
//! interface's counters what arrived.

use std::{
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, SendFlags, SocketFlags, SocketType,
        addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque},
        bind, netdevice, send, socket_with,
    },
};

use crate::lab::{CounterFile, Namespace};

/// Half of a veth's ring (VETH_RING_SIZE in drivers/net/veth.c).
const MOST_UNDER_WAY: u64 = 128;
/// Frames go out in bursts of a hundredth of a second.
const BURSTS_A_SECOND: u32 = 100;
/// A receiver that takes nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends frames on one interface. Only one at a time may be in use on it, since
/// the interface's counters tell how far it got.
#[derive(Debug)]
pub struct Sender {
    interface: String,
    socket: OwnedFd,
    counters: CounterFile,
}

impl Sender {
    /// Opens the interface, once it has carrier.
    ///
    /// # Errors
    /// There is no such interface in the namespace, it gets no carrier, or the
    /// process lacks CAP_NET_RAW.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        namespace.wait_for_carrier(interface)?;
        let socket = namespace
            .run(|| open_socket(interface))?
            .with_context(|| format!("cannot open {interface} in {}", namespace.name()))?;
        Ok(Self {
            interface: interface.to_owned(),
            socket,
            counters: namespace.open_counters()?,
        })
    }

    /// Sends the frames in order, at most so many a second (at least 1), and
    /// returns how many the other end took: all of them, unless it dropped some.
    ///
    /// # Errors
    /// A frame that no interface can send (shorter than an Ethernet header,
    /// longer than the MTU allows), or a receiver that takes nothing for five
    /// seconds.
    pub fn send_all<F: AsRef<[u8]>>(
        &self,
        frames: impl IntoIterator<Item = F>,
        packets_per_second: u32,
    ) -> Result<u64> {
        let rate = packets_per_second.max(1);
        let burst = u64::from(rate / BURSTS_A_SECOND).clamp(1, MOST_UNDER_WAY);
        let before = self.counters.read(&self.interface)?;
        let gone = before.tx_packets + before.tx_dropped;
        let start = Instant::now();
        let mut sent = 0;
        for frame in frames {
            if sent % burst == 0 {
                self.wait_until_taken(gone + sent)?;
                let due = Duration::from_secs_f64(sent as f64 / f64::from(rate));
                thread::sleep(due.saturating_sub(start.elapsed()));
            }
            self.send(frame.as_ref()).with_context(|| {
                format!(
                    "cannot send frame {} ({} bytes) on {}",
                    sent + 1,
                    frame.as_ref().len(),
                    self.interface
                )
            })?;
            sent += 1;
        }
        self.wait_until_taken(gone + sent)?;
        let after = self.counters.read(&self.interface)?;
        Ok(sent - (after.tx_dropped - before.tx_dropped))
    }

    /// A full queue below is waited for.
    fn send(&self, frame: &[u8]) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(50);
        loop {
            match send(&self.socket, frame, SendFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::NOBUFS | Errno::AGAIN | Errno::INTR) if Instant::now() < deadline => {
                    thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(10));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until so many frames in all were taken over by the other end, or
    /// dropped.
    fn wait_until_taken(&self, frames: u64) -> Result<()> {
        let mut last = 0;
        let mut deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.counters.read(&self.interface)?;
            let taken = now.tx_packets + now.tx_dropped;
            if taken >= frames {
                return Ok(());
            }
            if taken > last {
                last = taken;
                deadline = Instant::now() + PATIENCE;
            }
            ensure!(
                Instant::now() < deadline,
                "the other end of {} takes no more: {} frames are under way",
                self.interface,
                frames - taken
            );
            thread::sleep(Duration::from_micros(50));
        }
    }
}

fn open_socket(interface: &str) -> rustix::io::Result<OwnedFd> {
    // Protocol 0: it receives nothing, so that nothing fills it up.
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let index = netdevice::name_to_index(&socket, interface)?;
    bind(&socket, &LinkAddress::of(index))?;
    Ok(socket)
}

/// `struct sockaddr_ll` (packet(7)), which rustix lacks.
#[repr(C)]
struct LinkAddress {
    family: u16,
    protocol: u16,
    index: i32,
    hardware: u16,
    packet: u8,
    length: u8,
    address: [u8; 8],
}

impl LinkAddress {
    fn of(index: u32) -> Self {
        Self {
            family: AddressFamily::PACKET.as_raw(),
            protocol: 0,
            index: index.cast_signed(),
            hardware: 0,
            packet: 0,
            length: 0,
            address: [0; 8],
        }
    }
}

// SAFETY: `with_sockaddr` passes a pointer to `self`, which outlives the call,
// and the size of it; the layout is that of `struct sockaddr_ll`, without
// padding.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        f(
            (&raw const *self).cast(),
            size_of::<Self>() as SocketAddrLen,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frames::Frame,
        lab::{Counters, Lab},
    };

    fn frames(count: u16) -> Vec<Vec<u8>> {
        (0..count)
            .map(|number| {
                Frame::ethernet()
                    .vlan(number % 4095)
                    .ipv4([198, 18, 0, 1], [203, 0, 113, 1])
                    .udp(1024, number)
                    .payload(&vec![0; usize::from(number % 1400)])
                    .build()
            })
            .collect()
    }

    #[test]
    fn twenty_thousand_frames_arrive_without_a_loss() {
        if let Some(reason) = Lab::obstacle() {
            println!("skipped: {reason}");
            return;
        }
        let lab = Lab::new("matcher-wire").unwrap();
        lab.veth("access0", "acc-peer").unwrap();
        let sender = Sender::open(lab.world(), "acc-peer").unwrap();
        assert_eq!(sender.send_all(frames(20_000), 1_000_000).unwrap(), 20_000);
        let received = lab.edge().counters("access0").unwrap();
        assert_eq!((received.rx_packets, received.tx_packets), (20_000, 0));
        // Again: counts go on from where they were.
        assert_eq!(sender.send_all(frames(10), 1_000_000).unwrap(), 10);
    }

    #[test]
    fn the_rate_is_kept() {
        if let Some(reason) = Lab::obstacle() {
            println!("skipped: {reason}");
            return;
        }
        let lab = Lab::new("matcher-wire").unwrap();
        lab.veth("access0", "acc-peer").unwrap();
        let sender = Sender::open(lab.world(), "acc-peer").unwrap();
        let start = Instant::now();
        assert_eq!(sender.send_all(frames(500), 1000).unwrap(), 500);
        // The last of the bursts of ten starts at 490 ms.
        assert!(start.elapsed() >= Duration::from_millis(490));
    }

    #[test]
    fn frames_that_no_wire_takes_are_refused_by_number() {
        if let Some(reason) = Lab::obstacle() {
            println!("skipped: {reason}");
            return;
        }
        let lab = Lab::new("matcher-wire").unwrap();
        lab.veth("access0", "acc-peer").unwrap();
        let sender = Sender::open(lab.world(), "acc-peer").unwrap();
        for (length, cause) in [(9, "Invalid argument"), (2000, "Message too long")] {
            let error = sender.send_all([vec![0; 60], vec![0; length]], 1000);
            let text = format!("{:#}", error.unwrap_err());
            assert!(
                text.starts_with(&format!(
                    "cannot send frame 2 ({length} bytes) on acc-peer: "
                )) && text.contains(cause),
                "{text}"
            );
        }
        assert_eq!(
            lab.edge().counters("access0").unwrap(),
            Counters {
                rx_packets: 2,
                ..Counters::default()
            }
        );
        let error = Sender::open(lab.world(), "nosuch").unwrap_err();
        assert!(error.to_string().contains("nosuch"), "{error}");
    }
}
