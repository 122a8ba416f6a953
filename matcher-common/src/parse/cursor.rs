//! Where in the packet the parser stands.

use super::Frame;

/// Headers that lie further back than this are not read, in the kernel
/// because the verifier wants a bound, and on the host so that both see the
/// same.
pub const MAX_OFFSET: u32 = 0x7fff;

/// The header that comes next.
///
/// Numbers, not an enum: the kernel keeps the cursor in memory whose contents
/// the verifier does not believe.
pub(super) mod header {
    pub(in crate::parse) const DONE: u32 = 0;
    pub(in crate::parse) const ETHERNET: u32 = 1;
    pub(in crate::parse) const VLAN: u32 = 2;
    pub(in crate::parse) const PPPOE: u32 = 3;
    pub(in crate::parse) const PPP: u32 = 4;
    pub(in crate::parse) const MPLS: u32 = 5;
    pub(in crate::parse) const IPV4: u32 = 6;
    pub(in crate::parse) const IPV6: u32 = 7;
    /// What stands above IP, by protocol number.
    pub(in crate::parse) const UPPER: u32 = 8;
    pub(in crate::parse) const GRE: u32 = 9;
    pub(in crate::parse) const ETHERIP: u32 = 10;
    pub(in crate::parse) const L2TP: u32 = 11;
    pub(in crate::parse) const VXLAN: u32 = 12;
    pub(in crate::parse) const GENEVE: u32 = 13;
    pub(in crate::parse) const GTP_U: u32 = 14;
    pub(in crate::parse) const GTP_U_EXTENSION: u32 = 15;
    pub(in crate::parse) const PIM: u32 = 16;
}

/// The place in the packet, and what the headers so far say of what follows.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Cursor {
    /// One of [`header`].
    pub(super) next: u32,
    /// Where it starts.
    pub(super) offset: u32,
    /// Where the headers so far say that the packet ends.
    pub(super) end: u32,
    /// The [`Tunnel`](crate::abi::Tunnel) entered since the last IP layer.
    pub(super) tunnel: u32,
    /// VLAN tags since the last Ethernet header.
    pub(super) tags: u32,
    /// MPLS labels since the last other header.
    pub(super) labels: u32,
    /// IP version of the last layer.
    pub(super) ip_version: u32,
    /// Protocol above the last layer.
    pub(super) protocol: u32,
    /// Its fragment offset in bytes.
    pub(super) fragment_offset: u32,
    /// Its extension headers.
    pub(super) extensions: u32,
    /// Not 0: the last layer gives no length, or a jumbogram's (RFC 2675).
    pub(super) jumbo: u32,
}

impl Cursor {
    /// In front of an Ethernet header.
    #[inline(always)]
    pub fn start() -> Self {
        Self {
            next: header::ETHERNET,
            offset: 0,
            end: u32::MAX,
            tunnel: 0,
            tags: 0,
            labels: 0,
            ip_version: 0,
            protocol: 0,
            fragment_offset: 0,
            extensions: 0,
            jumbo: 0,
        }
    }

    /// Nothing is left to read.
    #[inline(always)]
    pub fn is_done(&self) -> bool {
        self.next == header::DONE
    }

    /// The `N` bytes that lie `ahead` bytes further on, or `None` when the
    /// packet ends before them.
    #[inline(always)]
    pub(super) fn peek<F: Frame + ?Sized, const N: usize>(
        &self,
        frame: &F,
        ahead: u32,
    ) -> Option<[u8; N]> {
        let start = self.offset + ahead;
        if start > MAX_OFFSET || start + N as u32 > self.end {
            return None;
        }
        frame.read(start as usize)
    }

    /// Moves on to the next header.
    #[inline(always)]
    pub(super) fn advance(&mut self, length: u32, next: u32) {
        self.offset += length;
        self.next = next;
    }

    /// The packet ends at `end`, unless it did before.
    #[inline(always)]
    pub(super) fn end_at(&mut self, end: u32) {
        if end < self.end {
            self.end = end;
        }
    }
}
