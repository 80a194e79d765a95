//! Numbers on command lines, with the words of PostgreSQL's `option_parse_int`.

use std::time::Duration;

/// `-s`: seconds, 0 for never.
pub(super) fn status_interval(text: &str) -> Result<Duration, String> {
    let seconds: i32 =
        text.trim().parse().map_err(|_| format!("invalid value \"{text}\" for option -s/--status-interval"))?;
    match u64::try_from(seconds) {
        Ok(seconds) if seconds <= 2_147_483 => Ok(Duration::from_secs(seconds)),
        _ => Err("-s/--status-interval must be in range 0..2147483".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_whole_seconds() {
        assert_eq!(status_interval("0"), Ok(Duration::ZERO));
        assert_eq!(status_interval(" 10"), Ok(Duration::from_secs(10)));
        for text in ["", "1s", "1.5", "10 min"] {
            let problem = format!("invalid value \"{text}\" for option -s/--status-interval");
            assert_eq!(status_interval(text), Err(problem));
        }
        for text in ["-1", "2147484"] {
            assert_eq!(status_interval(text), Err("-s/--status-interval must be in range 0..2147483".to_owned()));
        }
    }
}
