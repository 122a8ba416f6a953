//! Captures: pcap and pcapng.

#![no_main]

use matcher_user::capture::{Capture, ethernet_frame};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(capture) = Capture::new("fuzz", bytes) else {
        return;
    };
    let (mut packets, mut ended) = (0, false);
    let mut taken = 0;
    for next in capture {
        assert!(!ended, "something follows an error");
        match next {
            Ok(packet) => {
                packets += 1;
                assert_eq!(packet.number, packets);
                taken += packet.data.len();
                if let Some(frame) = ethernet_frame(&packet) {
                    assert!(frame.ends_with(&packet.data));
                }
            }
            Err(error) => {
                assert!(error.to_string().starts_with("fuzz: "));
                ended = true;
            }
        }
    }
    assert!(taken <= bytes.len(), "packets hold more than the file");
});
