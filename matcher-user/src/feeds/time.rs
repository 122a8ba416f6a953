//! Times as feeds write them. All of them mean UTC unless they say otherwise.

use jiff::{Timestamp, civil, tz::TimeZone};

/// `YYYY-MM-DD HH:MM:SS`, with ` UTC` behind it or not, `YYYY-MM-DD` (its
/// first moment), or RFC 3339.
pub(super) fn utc(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let text = text.strip_suffix(" UTC").unwrap_or(text);
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let time: civil::DateTime = text.parse().ok()?;
    TimeZone::UTC.to_timestamp(time).ok()
}

/// Seconds since 1970, as MISP writes them; 0 means "never".
pub(super) fn unix(text: &str) -> Option<Timestamp> {
    let seconds: i64 = text.trim().parse().ok()?;
    if seconds == 0 {
        return None;
    }
    Timestamp::from_second(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_time_is_read_as_utc() {
        let want = "2024-04-04T07:03:03Z".parse().ok();
        for text in [
            "2024-04-04 07:03:03",
            "2024-04-04 07:03:03 UTC",
            "2024-04-04T07:03:03Z",
            "2024-04-04T09:03:03+02:00",
            " 2024-04-04T07:03:03.000000+00:00 ",
        ] {
            assert_eq!(utc(text), want, "{text}");
        }
        assert_eq!(utc("2024-04-04"), "2024-04-04T00:00:00Z".parse().ok());
        assert_eq!(utc("soon"), None);
        assert_eq!(unix("1712214183"), want);
        assert_eq!(unix("0"), None);
    }
}
