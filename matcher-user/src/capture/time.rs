//! Times of captures. Any bits may stand where a time should, so everything
//! here is total.

use jiff::Timestamp;

/// Nanoseconds in a second.
pub(super) const NANOS: i128 = 1_000_000_000;

/// A time from nanoseconds since 1970, moved to jiff's nearest end (years
/// -9999 and 9999) where it lies outside.
pub(super) fn from_nanos(nanos: i128) -> Timestamp {
    Timestamp::from_nanosecond(nanos).unwrap_or(if nanos < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

/// How an interface of a pcapng capture counts time (draft-ietf-opsawg-pcapng
/// section 4.2, `if_tsresol` and `if_tsoffset`).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    /// Ticks a second: ten to this power, or two with the top bit set.
    pub(super) resolution: u8,
    /// Seconds to add to every time.
    pub(super) offset: i64,
}

impl Clock {
    /// The time that a count of ticks stands for; parts of a nanosecond are
    /// dropped.
    pub(super) fn time(self, ticks: u64) -> Timestamp {
        from_nanos(i128::from(self.offset) * NANOS + self.nanos(ticks))
    }

    fn nanos(self, ticks: u64) -> i128 {
        let ticks = i128::from(ticks);
        let exponent = u32::from(self.resolution & 0x7f);
        if self.resolution & 0x80 != 0 {
            // 64 bits of ticks and 30 of NANOS fit; an exponent is below 128.
            return (ticks * NANOS) >> exponent;
        }
        match exponent.checked_sub(9) {
            None => ticks * 10_i128.pow(9 - exponent),
            // Ten to the 20 is more than any count of ticks.
            Some(finer) if finer < 20 => ticks / 10_i128.pow(finer),
            Some(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(resolution: u8, offset: i64, ticks: u64) -> String {
        let clock = Clock { resolution, offset };
        format!("{:.9}", clock.time(ticks))
    }

    #[test]
    fn every_resolution_counts_from_1970() {
        assert_eq!(text(6, 0, 1_500_000), "1970-01-01T00:00:01.500000000Z");
        assert_eq!(text(9, 0, 1_500_000_001), "1970-01-01T00:00:01.500000001Z");
        assert_eq!(text(0, 0, 60), "1970-01-01T00:01:00.000000000Z");
        assert_eq!(
            text(12, 0, 1_500_000_000_999),
            "1970-01-01T00:00:01.500000000Z"
        );
        assert_eq!(text(0x80 | 10, 0, 1536), "1970-01-01T00:00:01.500000000Z");
        assert_eq!(
            text(0x80 | 32, 0, 1 << 31),
            "1970-01-01T00:00:00.500000000Z"
        );
    }

    #[test]
    fn an_offset_shifts_before_1970_and_past_jiffs_last_year() {
        assert_eq!(text(6, -10, 1_500_000), "1969-12-31T23:59:51.500000000Z");
        let clock = |offset| Clock {
            resolution: 6,
            offset,
        };
        assert_eq!(clock(i64::MIN).time(0), Timestamp::MIN);
        assert_eq!(clock(i64::MAX).time(u64::MAX), Timestamp::MAX);
    }

    proptest! {
        #[test]
        fn no_clock_and_no_count_panics(resolution: u8, offset: i64, ticks: u64) {
            Clock { resolution, offset }.time(ticks);
        }

        #[test]
        fn more_ticks_are_never_earlier(resolution: u8, a: u64, b: u64) {
            let clock = Clock { resolution, offset: 0 };
            prop_assert!(clock.time(a.min(b)) <= clock.time(a.max(b)));
        }
    }
}
