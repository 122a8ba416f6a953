use matcher_common::abi::{InterfaceSettings, role};

use super::*;

fn config(subscriber: &str, remote: &str) -> CanaryConfig {
    CanaryConfig {
        subscriber: subscriber.parse().unwrap(),
        remote: remote.parse().unwrap(),
        ..CanaryConfig::default()
    }
}

/// Sums to 0xffff with its checksum in place (RFC 1071).
fn sums_up(bytes: &[u8]) -> bool {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}

#[test]
fn the_packet_is_whole_and_its_checksums_are_right() {
    let v4 = frame(
        &config("198.18.255.1", "198.19.255.1"),
        Direction::Outbound,
        0xabcd,
    );
    assert_eq!(&v4[12..14], [8, 0]);
    assert!(sums_up(&v4[14..34]));
    assert_eq!(
        usize::from(u16::from_be_bytes([v4[16], v4[17]])),
        v4.len() - 14
    );
    assert_eq!(&v4[26..30], [198, 18, 255, 1]);
    assert_eq!(&v4[34..36], [0xab, 0xcd]);
    let udp = &v4[34..];
    let mut pseudo = v4[26..34].to_vec();
    pseudo.extend([0, 17]);
    pseudo.extend(&udp[4..6]);
    pseudo.extend(udp);
    assert!(sums_up(&pseudo));

    let v6 = frame(
        &config("2001:2::1", "2001:2::2"),
        Direction::Inbound,
        0xabcd,
    );
    assert_eq!(&v6[12..14], [0x86, 0xdd]);
    assert_eq!(v6.len(), 14 + 40 + v6[18..20][1] as usize);
    // From the C&C to the subscriber.
    assert_eq!(v6[37], 2);
    assert_eq!(&v6[56..58], [0xab, 0xcd]);
}

fn state() -> State {
    let edge = |name: &str, ifindex, role| Edge {
        name: name.into(),
        ifindex,
        settings: Some(InterfaceSettings {
            role,
            source_validated: 1,
        }),
        visible: true,
        holds: true,
    };
    State {
        stopped: false,
        consent: true,
        generation: 3,
        edges: vec![edge("eth0", 2, role::ACCESS), edge("eth1", 3, role::CORE)],
        subscriber: "198.18.255.1".parse().unwrap(),
        in_space: true,
        allows: true,
        ring: [0, 65_536],
    }
}

#[test]
fn a_live_edge_has_no_trouble() {
    assert_eq!(state().troubles(), []);
}

#[test]
fn each_trouble_is_told_with_its_stage_and_the_way_out() {
    let mut none = state();
    none.edges[0].settings = None;
    none.edges[1].visible = false;
    none.edges[1].holds = false;
    let mut taken_off = state();
    taken_off.edges[0].holds = false;
    let states = [
        taken_off,
        State {
            stopped: true,
            ..state()
        },
        State {
            consent: false,
            allows: false,
            ..state()
        },
        State {
            generation: 0,
            ..state()
        },
        State {
            edges: vec![],
            ..state()
        },
        none,
        State {
            in_space: false,
            allows: false,
            ..state()
        },
        State {
            allows: false,
            ..state()
        },
        State {
            ring: [65_500, 65_536],
            ..state()
        },
    ];
    let told: Vec<String> = states
        .iter()
        .flat_map(State::troubles)
        .map(|trouble| trouble.to_string())
        .collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn a_report_reads_well() {
    let time = jiff::Timestamp::UNIX_EPOCH;
    let report = Report {
        ok: true,
        time,
        interfaces: vec![Passed {
            name: "eth0".into(),
            latency_us: 85,
        }],
        troubles: vec![],
    };
    insta::assert_snapshot!(report.text(), @"ok: eth0 85 µs");
    let failed = Report::failed(
        time,
        State {
            stopped: true,
            ..state()
        }
        .troubles(),
    );
    insta::assert_snapshot!(failed.text(), @"
    FAILED
      stop: the emergency stop is on; `matcher stop-matching --resume` ends it
    ");
}
