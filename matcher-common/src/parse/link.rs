//! Ethernet and VLAN tags.

use super::{Family, Frame, Unparsed};

/// VLAN tags (802.1Q, 802.1ad) that are read; with more the packet passes
/// unmatched.
pub const MAX_VLAN_TAGS: u8 = 2;

/// Ethernet header: two addresses and the type.
const ETHERNET_LEN: usize = 14;
/// VLAN tag: control information and the next type.
const VLAN_LEN: usize = 4;

/// EtherTypes (IEEE 802 numbers, IANA).
mod ether_type {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const IPV6: u16 = 0x86dd;
    pub(super) const VLAN: u16 = 0x8100;
    pub(super) const PROVIDER_BRIDGING: u16 = 0x88a8;
    /// 802.1ad tags as sent before its type was assigned.
    pub(super) const VLAN_DOUBLE: u16 = 0x9100;
    pub(super) const PPPOE_SESSION: u16 = 0x8864;
    pub(super) const MPLS_UNICAST: u16 = 0x8847;
    pub(super) const MPLS_MULTICAST: u16 = 0x8848;
}

/// Where the network layer starts.
#[derive(Clone, Copy)]
pub(super) struct Network {
    pub(super) family: Family,
    pub(super) offset: usize,
}

#[inline(always)]
pub(super) fn parse<F: Frame + ?Sized>(
    frame: &F,
    vlan_tags: &mut u8,
    network: &mut Network,
) -> Result<(), Unparsed> {
    let mut ether_type = u16::from_be_bytes(
        frame
            .read(ETHERNET_LEN - 2)
            .ok_or(Unparsed::TruncatedLink)?,
    );
    network.offset = ETHERNET_LEN;
    while is_vlan(ether_type) {
        if *vlan_tags == MAX_VLAN_TAGS {
            return Err(Unparsed::VlanDepth);
        }
        ether_type = u16::from_be_bytes(
            frame
                .read(network.offset + 2)
                .ok_or(Unparsed::TruncatedLink)?,
        );
        network.offset += VLAN_LEN;
        *vlan_tags += 1;
    }
    network.family = match ether_type {
        ether_type::IPV4 => Family::V4,
        ether_type::IPV6 => Family::V6,
        ether_type::PPPOE_SESSION => return Err(Unparsed::Pppoe),
        ether_type::MPLS_UNICAST | ether_type::MPLS_MULTICAST => return Err(Unparsed::Mpls),
        _ => return Err(Unparsed::NotIp),
    };
    Ok(())
}

#[inline(always)]
fn is_vlan(ether_type: u16) -> bool {
    matches!(
        ether_type,
        ether_type::VLAN | ether_type::PROVIDER_BRIDGING | ether_type::VLAN_DOUBLE
    )
}
