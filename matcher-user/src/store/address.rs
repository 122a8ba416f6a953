//! Addresses as blobs whose order is the order of addresses: one byte for the
//! family, then the address in network order. IPv4 never equals an
//! IPv4-mapped IPv6 address.

use std::net::IpAddr;

const V4: u8 = 4;
const V6: u8 = 6;

/// The blob of an address: 5 or 17 bytes.
pub(super) fn to_blob(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => [&[V4][..], &v4.octets()].concat(),
        IpAddr::V6(v6) => [&[V6][..], &v6.octets()].concat(),
    }
}

/// The address of a blob; `None` for anything that [`to_blob`] does not make.
pub(super) fn from_blob(blob: &[u8]) -> Option<IpAddr> {
    match blob.split_first()? {
        (&V4, octets) => Some(<[u8; 4]>::try_from(octets).ok()?.into()),
        (&V6, octets) => Some(<[u8; 16]>::try_from(octets).ok()?.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_address_survives_and_keeps_its_order(a in any::<IpAddr>(), b in any::<IpAddr>()) {
            prop_assert_eq!(from_blob(&to_blob(a)), Some(a));
            prop_assert_eq!(to_blob(a).cmp(&to_blob(b)), a.cmp(&b));
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_survive(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Some(address) = from_blob(&bytes) {
                prop_assert_eq!(to_blob(address), bytes);
            }
        }
    }

    #[test]
    fn a_mapped_address_is_another() {
        let v4: IpAddr = "203.0.113.7".parse().unwrap();
        let mapped: IpAddr = "::ffff:203.0.113.7".parse().unwrap();
        assert_ne!(to_blob(v4), to_blob(mapped));
    }
}
