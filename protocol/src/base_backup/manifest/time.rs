//! Times as the files of a backup spell them. The clock is the caller's.

use jiff::Timestamp;

/// `Last-Modified` of a manifest: `2026-11-21 01:38:44 GMT`, from seconds since 1970.
pub fn format_last_modified(unix_seconds: i64) -> String {
    format!("{} GMT", date_and_time(unix_seconds))
}

/// `START TIME` of a label on a server whose `log_timezone` is UTC: `2026-11-21 01:38:44 UTC`, from seconds since 1970.
pub fn format_start_time(unix_seconds: i64) -> String {
    format!("{} UTC", date_and_time(unix_seconds))
}

/// A second outside of the years -9999 to 9999 is printed as the nearest one inside.
fn date_and_time(unix_seconds: i64) -> impl std::fmt::Display {
    let nearest = if unix_seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(unix_seconds).unwrap_or(nearest).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spells_times_as_servers_do() {
        // The mtime in a recorded header, and the time in the label of the same backup.
        assert_eq!(format_start_time(0o15_300_174_256), "2026-11-21 01:49:34 UTC");
        assert_eq!(format_last_modified(0o15_300_174_256), "2026-11-21 01:49:34 GMT");
        assert_eq!(format_last_modified(0), "1970-01-01 00:00:00 GMT");
        assert_eq!(format_last_modified(951_782_400), "2000-02-29 00:00:00 GMT");
        assert_eq!(format_last_modified(i64::MAX), "9999-12-30 22:00:00 GMT");
        assert!(format_last_modified(i64::MIN).ends_with(" GMT"));
    }
}
