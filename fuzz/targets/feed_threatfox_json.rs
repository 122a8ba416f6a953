#![no_main]

matcher_fuzz::feed!(ThreatfoxJson);
