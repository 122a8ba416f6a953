use std::{fs, process::Command};

use super::{header::checksum, *};
use crate::pcap::PcapWriter;

const A: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 23);
const C: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7);
const D: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 9);

#[test]
fn a_known_ipv4_header_has_its_known_checksum() {
    // The example of RFC 1071's errata and every textbook.
    let header = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0x00, 0x01,
        0xc0, 0xa8, 0x00, 0xc7,
    ];
    assert_eq!(checksum(&header), 0xb861);
}

#[test]
fn each_header_announces_the_next() {
    let frame = Frame::ethernet()
        .service_vlan(7)
        .vlan(100)
        .ipv6(C, D)
        .hop_by_hop(1)
        .fragment(0, true, 5)
        .ipv4(A, B)
        .udp(1, 2)
        .build();
    assert_eq!(frame[12..14], [0x88, 0xa8]);
    assert_eq!(frame[14..18], [0, 7, 0x81, 0x00]);
    assert_eq!(frame[18..22], [0, 100, 0x86, 0xdd]);
    let ipv6 = &frame[22..];
    assert_eq!(ipv6[4..7], [0, 8 + 8 + 20 + 8, 0]);
    assert_eq!(ipv6[40..42], [44, 0]);
    assert_eq!(ipv6[48..52], [4, 0, 0, 1]);
    assert_eq!(ipv6[56 + 9], 17);
}

/// An outsider's judgement: Wireshark finds no fault with any of them, and
/// sees the addresses and ports that were asked for.
#[test]
fn wireshark_accepts_every_kind_of_frame() {
    if Command::new("tshark").arg("-v").output().is_err() {
        println!("skipped: tshark is not installed");
        return;
    }
    let v4 = || Frame::ethernet().ipv4(A, B);
    let v6 = || Frame::ethernet().ipv6(C, D);
    let cases = [
        (v4().tcp(1000, 9), "203.0.113.7 198.51.100.23   1000 9  "),
        (
            Frame::ethernet().vlan(5).ipv4(A, B).udp(1000, 9),
            "203.0.113.7 198.51.100.23     1000 9",
        ),
        (
            v4().ipv4_options(&[1, 1, 1]).tcp(1000, 9),
            "203.0.113.7 198.51.100.23   1000 9  ",
        ),
        (v4().icmp(8, 0), "203.0.113.7 198.51.100.23      "),
        (v4().sctp(3, 4), "203.0.113.7 198.51.100.23       3 4"),
        (v6().tcp(1000, 9), "  2001:db8:1::7 2001:db8:2::9 1000 9  "),
        (
            v6().hop_by_hop(1)
                .routing()
                .destination_options(33)
                .udp(1000, 9),
            "  2001:db8:1::7 2001:db8:2::9   1000 9",
        ),
        (v6().icmpv6(128, 0), "  2001:db8:1::7 2001:db8:2::9    "),
        (
            v4().fragment(8, false, 77).protocol(17),
            "203.0.113.7 198.51.100.23      ",
        ),
        (
            v6().fragment(8, false, 77).protocol(17),
            "  2001:db8:1::7 2001:db8:2::9    ",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frames.pcap");
    let mut writer = PcapWriter::new(fs::File::create(&path).unwrap()).unwrap();
    for (frame, _) in &cases {
        // An odd length, which checksums must survive.
        let frame = frame.clone().payload(b"odd").build();
        writer.write(jiff::Timestamp::UNIX_EPOCH, &frame).unwrap();
    }
    drop(writer);
    let tshark = |options: &[&str]| {
        let output = Command::new("tshark")
            // Not the preferences of whoever runs the test.
            .env("HOME", folder.path())
            .env_remove("XDG_CONFIG_HOME")
            .args(["-n", "-r", path.to_str().unwrap()])
            .args([
                "-o",
                "ip.check_checksum:TRUE",
                "-o",
                "tcp.check_checksum:TRUE",
                "-o",
                "udp.check_checksum:TRUE",
                "-o",
                "ip.defragment:FALSE",
                "-o",
                "ipv6.defragment:FALSE",
            ])
            .args(options)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let fields = tshark(&[
        "-T",
        "fields",
        "-E",
        "separator= ",
        "-e",
        "ip.src",
        "-e",
        "ip.dst",
        "-e",
        "ipv6.src",
        "-e",
        "ipv6.dst",
        "-e",
        "tcp.srcport",
        "-e",
        "tcp.dstport",
        "-e",
        "udp.srcport",
        "-e",
        "udp.dstport",
        "-e",
        "sctp.srcport",
        "-e",
        "sctp.dstport",
    ]);
    let seen: Vec<&str> = fields.lines().map(str::trim_end).collect();
    let expected: Vec<&str> = cases.iter().map(|(_, text)| text.trim_end()).collect();
    assert_eq!(seen, expected);
    let faults = tshark(&[
        "-Y",
        "ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0 \
         || icmp.checksum.status == 0 || icmpv6.checksum.status == 0 || (_ws.malformed && !sctp)",
    ]);
    assert_eq!(faults, "");
}
