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
    /// Measures it now. The boot clock is read before and after the wall
    /// clock, so that a pause in between does not count.
    pub fn measure() -> Self {
        let before = nanoseconds(clock_gettime(ClockId::Boottime));
        let wall = nanoseconds(clock_gettime(ClockId::Realtime));
        let after = nanoseconds(clock_gettime(ClockId::Boottime));
        Self(wall - (before + after) / 2)
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
