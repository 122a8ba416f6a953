//! Every kind of packet that an edge carries, a test each: what the parser on
//! the host and in the kernel sees of it, and how the program decides it. The
//! packets stand in the described table ([`matcher_tests::packets`]).

use matcher_common::{
    abi::{AddressBytes, Packet},
    parse,
};
use matcher_tests::{
    kernel::{Tally, drain, install, is_skipped, load, send},
    packets::{self, standard_world},
};
use matcher_user::kernel::{program::Clock, ring::Ring};

/// Holds the packets with these descriptions against what is written of them.
fn check(test: &str, descriptions: &[&str]) {
    let table = packets::table();
    let cases: Vec<_> = descriptions
        .iter()
        .map(|description| {
            table
                .iter()
                .find(|case| case.description == *description)
                .unwrap_or_else(|| panic!("the table has no packet {description:?}"))
        })
        .collect();
    for case in &cases {
        assert_eq!(
            parse::parse(&case.frame[..]),
            case.seen.parsed(),
            "{}",
            case.description
        );
    }
    if is_skipped(test) {
        return;
    }
    let mut loaded = load(Clock::Replay);
    let mut ring = Ring::open(&loaded.tables).unwrap();
    for case in cases {
        let seen = loaded.parse(&case.frame).unwrap();
        assert_eq!(seen, case.seen.parsed(), "{}", case.description);
        install(&mut loaded.tables, &standard_world(&case.conditions));
        let mut tally = Tally::start(&loaded.tables);
        send(&mut loaded, &case.frame);
        assert_eq!(
            tally.take(&loaded.tables),
            case.answer.counts(),
            "{}",
            case.description
        );
        let indicators: Vec<u32> = drain(&mut ring)
            .iter()
            .map(|event| event.flow.indicator)
            .collect();
        let expected: Vec<u32> = case.answer.hit.iter().map(|hit| hit.indicator).collect();
        assert_eq!(indicators, expected, "{}", case.description);
    }
}

macro_rules! edge {
    ($($name:ident: $($description:literal),+;)+) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name), &[$($description),+]);
            }
        )+
    };
}

edge! {
    // Layer 2.
    vlan_802_1q: "one VLAN tag", "a tag with a priority alone";
    vlan_802_1ad: "QinQ: a service tag and a customer tag", "a tag of the type used before 802.1ad";
    vlan_stacks_up_to_four_tags: "a stack of four VLAN tags", "a fifth VLAN tag";
    pppoe_session:
        "a PPPoE session", "a PPPoE session behind two VLAN tags", "a PPPoE session with a code",
        "PPPoE of another version", "IP that is longer than the PPPoE session says",
        "ports behind the length of the PPPoE session are padding", "PPPoE discovery";
    pppoe_with_protocol_field_compression: "a PPPoE session with a compressed protocol field";
    ppp_without_ip:
        "PPP's control protocols in a PPPoE session", "compressed PPP datagrams",
        "PPP's control protocols in L2TP";
    mpls_label_stacks:
        "an MPLS label", "a stack of eight MPLS labels", "a ninth MPLS label",
        "an MPLS label behind a VLAN tag", "a pseudowire behind an MPLS label",
        "MPLS that ends with its label";
    llc_and_snap_are_named_and_counted:
        "LLC is named", "SNAP is named, even with IP above it",
        "an EtherType that is none of ours";

    // Layer 3.
    ipv4_options: "IPv4 with the most options there can be";
    ipv4_first_fragment_has_ports: "the first fragment carries the ports";
    ipv4_later_fragment_matches_by_address: "a later fragment to a listed host";
    an_entry_with_a_port_does_not_match_a_later_fragment_and_it_is_counted:
        "a later fragment to a host listed with two ports: no port, no hit",
        "a later fragment to a host listed with a port, in a listed network",
        "a later fragment over IPv6 to a host listed with a port";
    ipv6_extension_headers:
        "every extension header of RFC 8200", "eight extension headers",
        "a ninth extension header", "an authentication header in IPv4";
    total_length_0_of_big_tcp:
        "total length 0, as segmentation offload leaves it",
        "payload length 0, as segmentation offload leaves it";
    jumbograms:
        "a jumbogram", "a jumbogram that needs not be one",
        "payload length 0 and hop-by-hop options without a jumbo payload";
    an_extension_header_has_eight_bytes_at_least: "six bytes of a fragment header";

    // Tunnels.
    tunnel_4in6_ds_lite:
        "DS-Lite: the subscriber is known by the address of the B4", "DS-Lite, the answer";
    tunnel_4in6_map_e: "MAP-E: the subscriber's own IPv4 address is the nearer one";
    tunnel_6in4: "6in4";
    tunnel_4in4: "4in4", "IP in IP as KA9Q numbered it";
    tunnel_6in6: "6in6";
    tunnel_gre:
        "GRE", "GRE with source routes", "GRE with what is no packet", "GRE of another version",
        "GRE cut off", "MPLS over GRE", "PPTP", "an acknowledgment of PPTP alone";
    tunnel_gre_with_key_checksum_and_sequence_number:
        "GRE with a checksum", "GRE with a key", "GRE with a sequence number",
        "GRE with checksum, key and sequence number";
    tunnel_gre_with_ethernet: "Ethernet over GRE", "Ethernet with VLAN tags over GRE";
    tunnel_etherip:
        "EtherIP", "EtherIP of another version", "a bridged frame without IP",
        "Ethernet in IPv6 without a header of its own", "MPLS in IP";
    tunnel_l2tpv2_with_ppp:
        "L2TP with PPP: wholesale access", "L2TP with a length", "L2TP with sequence numbers",
        "L2TP with an offset", "L2TP's control messages are plain UDP",
        "L2TPv3 hides where its packet starts", "L2TPv3 above IP";
    tunnel_mpls_over_udp: "MPLS over UDP";
    tunnel_pim_register: "a PIM Register carries a sender's packet", "PIM between routers";
    tunnel_vxlan:
        "VXLAN", "VXLAN-GPE with Ethernet in it", "VXLAN-GPE with something else in it",
        "what goes to VXLAN's port and is none is plain UDP";
    tunnel_geneve: "Geneve with options, and Ethernet in it", "Geneve with IP in it";
    tunnel_gtp_u:
        "GTP-U", "GTP-U with a sequence number and extension headers",
        "GTP-U's signalling is plain UDP";
    tunnels_nested_up_to_four_layers:
        "four layers: the nearest subscriber around it", "a fifth layer";
    a_tunnels_outermost_layer_is_looked_up_first:
        "the tunnel itself goes to a listed host: the outermost layer first";
    consent_of_every_subscriber_in_any_layer:
        "an opted-out subscriber in the innermost of four layers",
        "an opted-out subscriber around a consenting one",
        "an opted-out subscriber inside a consenting one",
        "a consenting subscriber sends through the tunnel of an opted-out receiver";
    a_layer_that_cannot_be_parsed_inside_one_that_can:
        "a broken layer inside a good one",
        "an inner header behind the end of the outer packet is padding",
        "minimal encapsulation", "a later fragment of a tunnel";
    fragments_and_tunnels:
        "a later fragment inside a tunnel has no port",
        "the first fragment of a tunnel holds the inner headers";

    // Layer 4.
    udp_lite: "UDP-Lite";
    sctp: "SCTP from a listed host";
    dccp: "DCCP";
    icmp_errors_quote_is_not_matched: "an ICMP error that quotes a packet to a listed host";
    icmpv6_errors_quote_is_not_matched: "an ICMPv6 error that quotes a packet to a listed host";

    // Shared addresses.
    the_boundary_ports_of_an_opted_out_sharer:
        "the last port before an opted-out sharer's", "the first port of an opted-out sharer",
        "the last port of an opted-out sharer", "the first port after an opted-out sharer's";
    without_a_port_one_opted_out_sharer_is_enough:
        "ICMP of an address with an opted-out sharer",
        "ESP of an address with an opted-out sharer",
        "a later fragment of an address with an opted-out sharer",
        "GRE of an address with an opted-out sharer";

    // Two-sided cases.
    both_ends_are_subscribers:
        "two subscribers, neither listed", "a subscriber reaches one who is listed",
        "a listed subscriber answers another", "two opted-out subscribers";
    hairpin: "hairpin: two subscribers in one tunnel, neither listed";
    own_prefixes_on_the_core_interface_are_spoofed:
        "a subscriber's address as source on a core interface",
        "two subscribers on a core interface: spoofed",
        "a subscriber's address inside a tunnel on a core interface: spoofed";
    a_subscriber_inside_a_carriers_tunnel_on_an_access_interface:
        "a subscriber inside a carrier's tunnel on an access interface";
}

/// The quick ways for plain packets see what the way from header to header
/// sees, at every length of every packet.
#[test]
fn plain_packets_are_parsed_the_same_both_ways() {
    let (mut plain, mut told) = (0, 0);
    for case in packets::table() {
        for length in 0..=case.frame.len().min(200) {
            let frame = &case.frame[..length];
            let parsed = parse::parse(frame);
            let mut packet = Packet::default();
            if parse::parse_plain(frame, &mut packet) {
                plain += 1;
                assert_eq!(packet, parsed, "{}", case.description);
            }
            let v4 = parse::ends_v4(frame).map(|ends| ends.map(AddressBytes::from_v4));
            let v6 = parse::ends_v6(frame).map(|ends| ends.map(AddressBytes::from_v6));
            if let Some(ends) = v4.or(v6) {
                told += 1;
                let layers: Vec<_> = parsed
                    .layers()
                    .iter()
                    .map(|layer| [layer.source, layer.destination])
                    .collect();
                assert_eq!(layers, [ends], "{}", case.description);
                assert_eq!((parsed.unparsed(), parsed.vlan_tags), (None, 0));
            }
        }
    }
    assert!(plain > 1000 && told > 1000, "{plain} {told}");
}
