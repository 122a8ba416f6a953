//! Services that everybody uses: whatever a feed says, a packet to one of
//! these proves no infection. Lists of C&C addresses hold them again and
//! again, because malware uses them too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of public resolvers (as their operators publish them) and of the
/// root name servers (IANA, named.root), with what each is. Never matched,
/// unless `guards.never_match_defaults` says otherwise.
pub const NEVER_MATCH: [(IpAddr, &str); 58] = [
    (v4(8, 8, 8, 8), "Google Public DNS"),
    (v4(8, 8, 4, 4), "Google Public DNS"),
    (
        v6([0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888]),
        "Google Public DNS",
    ),
    (
        v6([0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8844]),
        "Google Public DNS",
    ),
    (v4(1, 1, 1, 1), "Cloudflare 1.1.1.1"),
    (v4(1, 0, 0, 1), "Cloudflare 1.1.1.1"),
    (v4(1, 1, 1, 2), "Cloudflare 1.1.1.1"),
    (v4(1, 0, 0, 2), "Cloudflare 1.1.1.1"),
    (v4(1, 1, 1, 3), "Cloudflare 1.1.1.1"),
    (v4(1, 0, 0, 3), "Cloudflare 1.1.1.1"),
    (
        v6([0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111]),
        "Cloudflare 1.1.1.1",
    ),
    (
        v6([0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1001]),
        "Cloudflare 1.1.1.1",
    ),
    (
        v6([0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1112]),
        "Cloudflare 1.1.1.1",
    ),
    (
        v6([0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1002]),
        "Cloudflare 1.1.1.1",
    ),
    (
        v6([0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1113]),
        "Cloudflare 1.1.1.1",
    ),
    (
        v6([0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1003]),
        "Cloudflare 1.1.1.1",
    ),
    (v4(9, 9, 9, 9), "Quad9"),
    (v4(9, 9, 9, 10), "Quad9"),
    (v4(9, 9, 9, 11), "Quad9"),
    (v4(149, 112, 112, 112), "Quad9"),
    (v4(149, 112, 112, 10), "Quad9"),
    (v4(149, 112, 112, 11), "Quad9"),
    (v6([0x2620, 0xfe, 0, 0, 0, 0, 0, 0xfe]), "Quad9"),
    (v6([0x2620, 0xfe, 0, 0, 0, 0, 0, 9]), "Quad9"),
    (v6([0x2620, 0xfe, 0, 0, 0, 0, 0, 0x10]), "Quad9"),
    (v6([0x2620, 0xfe, 0, 0, 0, 0, 0, 0x11]), "Quad9"),
    (v4(208, 67, 222, 222), "OpenDNS"),
    (v4(208, 67, 220, 220), "OpenDNS"),
    (v6([0x2620, 0x119, 0x35, 0, 0, 0, 0, 0x35]), "OpenDNS"),
    (v6([0x2620, 0x119, 0x53, 0, 0, 0, 0, 0x53]), "OpenDNS"),
    (v4(198, 41, 0, 4), "a.root-servers.net"),
    (
        v6([0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30]),
        "a.root-servers.net",
    ),
    (v4(170, 247, 170, 2), "b.root-servers.net"),
    (
        v6([0x2801, 0x1b8, 0x10, 0, 0, 0, 0, 0xb]),
        "b.root-servers.net",
    ),
    (v4(199, 9, 14, 201), "b.root-servers.net (until 2023)"),
    (
        v6([0x2001, 0x500, 0x200, 0, 0, 0, 0, 0xb]),
        "b.root-servers.net (until 2023)",
    ),
    (v4(192, 33, 4, 12), "c.root-servers.net"),
    (
        v6([0x2001, 0x500, 2, 0, 0, 0, 0, 0xc]),
        "c.root-servers.net",
    ),
    (v4(199, 7, 91, 13), "d.root-servers.net"),
    (
        v6([0x2001, 0x500, 0x2d, 0, 0, 0, 0, 0xd]),
        "d.root-servers.net",
    ),
    (v4(192, 203, 230, 10), "e.root-servers.net"),
    (
        v6([0x2001, 0x500, 0xa8, 0, 0, 0, 0, 0xe]),
        "e.root-servers.net",
    ),
    (v4(192, 5, 5, 241), "f.root-servers.net"),
    (
        v6([0x2001, 0x500, 0x2f, 0, 0, 0, 0, 0xf]),
        "f.root-servers.net",
    ),
    (v4(192, 112, 36, 4), "g.root-servers.net"),
    (
        v6([0x2001, 0x500, 0x12, 0, 0, 0, 0, 0xd0d]),
        "g.root-servers.net",
    ),
    (v4(198, 97, 190, 53), "h.root-servers.net"),
    (
        v6([0x2001, 0x500, 1, 0, 0, 0, 0, 0x53]),
        "h.root-servers.net",
    ),
    (v4(192, 36, 148, 17), "i.root-servers.net"),
    (
        v6([0x2001, 0x7fe, 0, 0, 0, 0, 0, 0x53]),
        "i.root-servers.net",
    ),
    (v4(192, 58, 128, 30), "j.root-servers.net"),
    (
        v6([0x2001, 0x503, 0xc27, 0, 0, 0, 2, 0x30]),
        "j.root-servers.net",
    ),
    (v4(193, 0, 14, 129), "k.root-servers.net"),
    (v6([0x2001, 0x7fd, 0, 0, 0, 0, 0, 1]), "k.root-servers.net"),
    (v4(199, 7, 83, 42), "l.root-servers.net"),
    (
        v6([0x2001, 0x500, 0x9f, 0, 0, 0, 0, 0x42]),
        "l.root-servers.net",
    ),
    (v4(202, 12, 27, 33), "m.root-servers.net"),
    (
        v6([0x2001, 0xdc3, 0, 0, 0, 0, 0, 0x35]),
        "m.root-servers.net",
    ),
];

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h))
}
