//! From the kernel's clock to wall-clock time.
//!
//! Events carry `CLOCK_BOOTTIME`, which never steps. What is added to it to
//! get wall-clock time is measured again and again, so that times stay right
//! across a step of the wall clock.

use jiff::Timestamp;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Wall clock minus boot clock, in nanoseconds.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct WallOffset(i128);

impl WallOffset {
    /// Measures it now: a few times, of which the one counts that took least, so
    /// that a pause between its readings does not shift it.
    pub fn measure() -> Self {
        Reading::tightest((1..READINGS).map(|_| Reading::now()), Reading::now()).offset()
    }

    /// The form of the kernel's settings: added to a boot time, wrapping.
    pub fn setting(self) -> u64 {
        // Two's complement: a wall clock set before the boot wraps back.
        self.0 as u64
    }

    /// From the kernel's settings.
    pub fn from_setting(setting: u64) -> Self {
        Self(i128::from(setting.cast_signed()))
    }

    /// Wall-clock time of a boot time in nanoseconds. Times that jiff cannot
    /// hold become the nearest it can.
    pub fn wall(self, boot_ns: u64) -> Timestamp {
        let wall = i128::from(boot_ns) + self.0;
        Timestamp::from_nanosecond(wall).unwrap_or(if wall < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        })
    }

    /// Boot time of a wall-clock time, in nanoseconds; 0 for times before the
    /// boot.
    pub fn boot_ns(self, wall: Timestamp) -> u64 {
        u64::try_from((wall.as_nanosecond() - self.0).max(0)).unwrap_or(u64::MAX)
    }

    /// How far two measurements are apart, in nanoseconds. More than the
    /// measurement's own error means that the wall clock was set or slewed.
    pub fn distance(self, other: Self) -> u128 {
        self.0.abs_diff(other.0)
    }
}

/// Readings for one measurement. Of single ones on a CPU that five others fought
/// for, 1 in 50,000 was wrong by more than 5 ms, and one by 126 ms.
const READINGS: u32 = 8;

/// The wall clock, and the boot clock before and after it, in nanoseconds.
#[derive(Copy, Clone, Debug)]
struct Reading {
    before: i128,
    wall: i128,
    after: i128,
}

impl Reading {
    fn now() -> Self {
        Self {
            before: nanoseconds(clock_gettime(ClockId::Boottime)),
            wall: nanoseconds(clock_gettime(ClockId::Realtime)),
            after: nanoseconds(clock_gettime(ClockId::Boottime)),
        }
    }

    fn tightest(others: impl Iterator<Item = Self>, first: Self) -> Self {
        others.fold(first, |best, next| {
            if next.took() < best.took() {
                next
            } else {
                best
            }
        })
    }

    fn took(self) -> i128 {
        self.after - self.before
    }

    /// Wrong by half of what it took, at most.
    fn offset(self) -> WallOffset {
        WallOffset(self.wall - (self.before + self.after) / 2)
    }
}

/// Nanoseconds since boot, as the kernel program sees them.
pub fn boot_now_ns() -> u64 {
    u64::try_from(nanoseconds(clock_gettime(ClockId::Boottime))).unwrap_or(0)
}

fn nanoseconds(time: Timespec) -> i128 {
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_between_the_readings_of_a_clock_does_not_shift_it() {
        const MS: i128 = 1_000_000;
        let reading = |before, wall, after| Reading {
            before,
            wall,
            after,
        };
        // Read right before a pause of 200 ms, and after one: 100 ms wrong.
        let early = reading(1_000 * MS, 5_000 * MS, 1_200 * MS);
        let late = reading(2_000 * MS, 6_200 * MS, 2_200 * MS);
        let calm = reading(3_000 * MS, 7_000 * MS, 3_000 * MS + 100);
        for readings in [
            [early, late, calm],
            [calm, early, late],
            [late, calm, early],
        ] {
            let [first, others @ ..] = readings;
            let offset = Reading::tightest(others.into_iter(), first).offset();
            assert_eq!(offset, WallOffset(4_000 * MS - 50));
        }
    }

    #[test]
    fn an_event_keeps_its_true_time_across_a_step_of_the_wall_clock() {
        // Booted at 1000 s; then the clock, an hour late, is put right.
        let late = WallOffset(1_000 * 1_000_000_000);
        let right = WallOffset((1_000 + 3_600) * 1_000_000_000);
        let event = 50 * 1_000_000_000;
        assert_eq!(late.wall(event), Timestamp::from_second(1_050).unwrap());
        assert_eq!(right.wall(event), Timestamp::from_second(4_650).unwrap());
        assert_eq!(right.distance(late), 3_600 * 1_000_000_000);
        // Order and distance of events never change.
        let later = right.wall(event + 5);
        assert_eq!(later.as_nanosecond() - right.wall(event).as_nanosecond(), 5);
    }

    #[test]
    fn there_and_back_is_the_same_time() {
        let offset = WallOffset::measure();
        let now = boot_now_ns();
        assert_eq!(offset.boot_ns(offset.wall(now)), now);
        let real = Timestamp::now();
        assert!((offset.wall(boot_now_ns()) - real).get_seconds().abs() < 2);
    }

    #[test]
    fn a_wall_clock_before_the_boot_wraps_back_in_the_kernel() {
        let offset = WallOffset(-7);
        assert_eq!(10u64.wrapping_add(offset.setting()), 3);
        assert_eq!(offset.boot_ns(Timestamp::UNIX_EPOCH), 7);
    }
}
