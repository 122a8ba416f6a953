//! Frames, from the Ethernet header on.

#![no_main]

libfuzzer_sys::fuzz_target!(|frame: &[u8]| matcher_fuzz::packet::check(frame));
