//! What is kept of the past of a feed that is fetched.

#![no_main]

use std::time::Duration;

use jiff::Timestamp;
use matcher_user::fetch::{
    FetchState,
    plan::{Asker, Interval},
};

const INTERVAL: Interval = Interval {
    every: Duration::from_secs(3600),
    least: Duration::from_secs(60),
};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let state = match FetchState::read(bytes) {
        Ok(state) => state,
        Err(error) => {
            assert!((1..=1 + bytes.len()).contains(&error.line()), "{error}");
            return;
        }
    };
    // What was read is written as what it is.
    let written = serde_json::to_vec(&state).expect("memory takes it");
    assert_eq!(FetchState::read(&written).expect("as written"), state);
    // Whatever times it holds, fetches go on.
    let days = |number: i64| Timestamp::from_second(number * 86_400).expect("a time");
    for asker in [Asker::Schedule, Asker::Person] {
        let due = |day| INTERVAL.is_due(&state, asker, days(day));
        assert!(due(20_000) || due(20_002), "{state:?}");
    }
});
