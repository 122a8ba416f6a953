//! When a feed is asked for: pure, with the clock and the chance passed in.

use std::time::Duration;

use jiff::Timestamp;

use super::{FetchError, FetchState};
use crate::feeds::{FeedSource, Remote};

/// The first fetch after a failure comes so soon, if the publisher allows it;
/// each further failure doubles the wait.
const FIRST_RETRY: Duration = Duration::from_secs(60);
/// The wait stops growing here, or at the feed's own interval if that is
/// longer.
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 3600);
/// A server that asks for a longer pause is asked again all the same.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// Fetches of one feed are spread over this share of its interval, so that
/// many edges do not ask at once.
const SPREAD: f64 = 0.1;
/// A recorded time that is further ahead than this tells of a clock that was
/// set back.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// Who asks for a fetch.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The schedule.
    Schedule,
    /// A person: earlier than the schedule, never earlier than the publisher
    /// allows.
    Person,
}

/// How often a feed may and shall be fetched.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Interval {
    /// The operator's word.
    pub every: Duration,
    /// The publisher's word.
    pub least: Duration,
}

impl Interval {
    /// Of a feed that is fetched. A server on this machine is nobody else's:
    /// it may be asked at any time.
    pub fn of(source: &FeedSource, remote: &Remote) -> Self {
        let least = match remote.url.is_loopback() {
            true => Duration::ZERO,
            false => source.format.least_interval(),
        };
        Self {
            every: remote.every.max(least),
            least,
        }
    }

    /// Is it time to ask? Another address or format than the recorded one
    /// has no past.
    pub fn is_due(&self, state: &FetchState, asker: Asker, now: Timestamp) -> bool {
        let Some(attempted) = state.attempted else {
            return true;
        };
        if attempted > later(now, CLOCK_SLACK) {
            return true;
        }
        let paused = state
            .paused_until
            .filter(|until| *until <= later(attempted, LONGEST_PAUSE))
            .is_some_and(|until| now < until);
        if paused || now < later(attempted, self.least) {
            return false;
        }
        if asker == Asker::Person {
            return true;
        }
        // The operator may have shortened the interval since.
        let latest = self.every.mul_f64(1.0 + SPREAD);
        let recorded = state.next.unwrap_or(attempted);
        let next = match state.failures {
            0 => recorded.min(later(attempted, latest)),
            _ => recorded.min(later(attempted, LONGEST_PAUSE.max(latest))),
        };
        now >= next
    }

    /// When to ask again after an answer. `chance`: 0.0 to 1.0.
    pub fn after_success(&self, now: Timestamp, chance: f64) -> Timestamp {
        later(
            now,
            self.every.mul_f64(1.0 + SPREAD * chance.clamp(0.0, 1.0)),
        )
    }

    /// When to ask again after the `failures`th failure in a row.
    pub fn after_failure(
        &self,
        error: &FetchError,
        failures: u32,
        now: Timestamp,
        chance: f64,
    ) -> Timestamp {
        let first = FIRST_RETRY.min(self.every).max(self.least);
        let longest = LONGEST_WAIT.max(self.every);
        let wait = if error.needs_a_person() {
            // Asking more often changes nothing but the publisher's mood.
            self.every.max(first)
        } else {
            first.saturating_mul(1_u32 << failures.saturating_sub(1).min(20))
        };
        let wait = wait.min(longest);
        let wait = wait.mul_f64(1.0 + SPREAD * chance.clamp(0.0, 1.0));
        let pause = error.retry_after().unwrap_or_default().min(LONGEST_PAUSE);
        later(now, wait.max(pause))
    }

    /// Until when the server wants to be left alone, as far as it said so.
    pub fn paused_until(&self, error: &FetchError, now: Timestamp) -> Option<Timestamp> {
        error
            .retry_after()
            .map(|pause| later(now, pause.min(LONGEST_PAUSE)))
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);
    const HOURLY: Interval = Interval {
        every: HOUR,
        least: MINUTE,
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn asked(next: i64) -> FetchState {
        FetchState {
            attempted: Some(at(0)),
            next: Some(at(next)),
            ..FetchState::default()
        }
    }

    fn busy(seconds: u64) -> FetchError {
        FetchError::Busy {
            url: "https://example.org/".into(),
            status: 503,
            retry_after: Some(Duration::from_secs(seconds)),
        }
    }

    fn broken() -> FetchError {
        FetchError::Transport {
            url: "https://example.org/".into(),
            reason: "connection refused".into(),
        }
    }

    #[test]
    fn a_feed_that_was_never_fetched_is_due() {
        assert!(HOURLY.is_due(&FetchState::default(), Asker::Schedule, at(0)));
    }

    #[test]
    fn a_feed_is_due_when_its_time_has_come_and_not_before() {
        let state = asked(3700);
        assert!(!HOURLY.is_due(&state, Asker::Schedule, at(3699)));
        assert!(HOURLY.is_due(&state, Asker::Schedule, at(3700)));
    }

    #[test]
    fn a_person_goes_before_the_schedule_and_not_before_the_publisher() {
        let state = asked(3700);
        assert!(!HOURLY.is_due(&state, Asker::Person, at(59)));
        assert!(HOURLY.is_due(&state, Asker::Person, at(60)));
    }

    #[test]
    fn a_server_that_asks_for_a_pause_gets_it_from_everybody() {
        let state = FetchState {
            paused_until: HOURLY.paused_until(&busy(7200), at(0)),
            next: Some(HOURLY.after_failure(&busy(7200), 1, at(0), 0.0)),
            failures: 1,
            ..asked(0)
        };
        for asker in [Asker::Person, Asker::Schedule] {
            assert!(!HOURLY.is_due(&state, asker, at(7199)));
            assert!(HOURLY.is_due(&state, asker, at(7200)));
        }
        // A week is no pause, it is an end.
        let next = HOURLY.after_failure(&busy(604_800), 1, at(0), 0.0);
        assert_eq!(next, at(86_400));
    }

    #[test]
    fn failures_in_a_row_double_the_wait_up_to_a_limit() {
        let waits: Vec<i64> = (1..=11)
            .map(|failures| {
                let next = HOURLY.after_failure(&broken(), failures, at(0), 0.0);
                next.as_second() - at(0).as_second()
            })
            .collect();
        assert_eq!(
            waits,
            [
                60, 120, 240, 480, 960, 1920, 3840, 7680, 15_360, 21_600, 21_600
            ]
        );
    }

    #[test]
    fn what_only_a_person_can_put_right_is_not_tried_in_a_hurry() {
        let refused = FetchError::Refused {
            url: "https://example.org/".into(),
            status: 401,
        };
        assert_eq!(HOURLY.after_failure(&refused, 1, at(0), 0.0), at(3600));
    }

    #[test]
    fn a_shorter_interval_takes_effect_at_once() {
        let state = asked(86_400);
        assert!(HOURLY.is_due(&state, Asker::Schedule, at(3960)));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_stop_fetches() {
        let state = asked(3600);
        assert!(HOURLY.is_due(&state, Asker::Schedule, at(-86_400)));
    }

    proptest! {
        #[test]
        fn no_wait_is_shorter_than_the_publisher_asks(
            every in 10_u64..1_000_000, least in 10_u64..10_000, failures in 1_u32..100,
            chance in 0.0_f64..1.0, pause in proptest::option::of(0_u64..1_000_000),
        ) {
            let least = Duration::from_secs(least);
            let interval = Interval { every: Duration::from_secs(every).max(least), least };
            let error = pause.map_or_else(broken, busy);
            let next = interval.after_failure(&error, failures, at(0), chance);
            prop_assert!(next >= later(at(0), least));
            let state = FetchState {
                failures,
                next: Some(next),
                paused_until: interval.paused_until(&error, at(0)),
                ..asked(0)
            };
            prop_assert!(interval.is_due(&state, Asker::Schedule, next));
            prop_assert!(interval.after_success(at(0), chance) >= later(at(0), interval.every));
        }
    }
}
