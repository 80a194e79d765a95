//! Which actions make sense at which points.

use super::{Fault, Point};
use crate::units::Position;

impl Fault {
    /// Refuses what cannot happen, with a text that says why.
    pub fn validate(&self) -> Result<(), String> {
        let (point, action) = (&self.when, &self.r#do);
        self.validate_point()?;
        action.check(point)?;
        match action.needs(point) {
            None => Ok(()),
            Some(what) => Err(format!("{} cannot strike at {}: it needs {what}", action.name(), point.name())),
        }
    }

    fn validate_point(&self) -> Result<(), String> {
        let point = &self.when;
        if point.nth() == 0 {
            return Err(format!("nth of {} counts from 1", point.name()));
        }
        match point {
            Point::Message { n: 0, .. } => return Err("n of message counts from 1".to_owned()),
            Point::Member { path, .. } if path.is_empty() => return Err("path of member is empty".to_owned()),
            Point::ArchiveData { at: Position::Percent(percent), .. }
            | Point::ManifestData { at: Position::Percent(percent), .. }
            | Point::Member { at: Some(Position::Percent(percent)), .. }
                if *percent > 100 =>
            {
                return Err(format!("{percent}% of {} is beyond its end", point.name()));
            }
            _ => {}
        }
        match (point, point.client()) {
            (Point::ClientEnd { .. }, None) => Err("client-end needs \"client\": whose end".to_owned()),
            (Point::ClientEnd { .. }, Some(client)) if client.starts_with('#') => {
                Err(format!("client {client:?} of client-end is a connection: it needs a client's name"))
            }
            (Point::Connect { .. }, Some(client)) if !client.starts_with('#') => {
                Err(format!("client {client:?} cannot be known at connect: use a connection's number, such as \"#2\""))
            }
            (_, Some(client)) => valid_client(client),
            (_, None) => Ok(()),
        }
    }
}

/// A client is a name, or `#` and a number from 1.
pub(super) fn valid_client(client: &str) -> Result<(), String> {
    match client.strip_prefix('#') {
        Some(number) if !number.parse::<u32>().is_ok_and(|number| number > 0) => {
            Err(format!("client {client:?} is no connection's number: expected \"#1\" or higher"))
        }
        None if client.is_empty() => Err("client is empty".to_owned()),
        _ => Ok(()),
    }
}

/// A name or a target fits the 100 bytes that a tar header has for it. `what` says which it is.
pub(super) fn fits_header(what: &str, text: &str) -> Result<(), String> {
    if text.len() > 100 {
        return Err(format!("{what} has more than 100 bytes: it does not fit the tar header"));
    }
    if text.contains('\0') { Err(format!("{what} holds a zero byte")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::refusal;

    const CLOSE: &str = r#"{"close": {}}"#;

    #[test]
    fn points_that_never_come_are_refused() {
        let refusals = [
            refusal(r#"{"connect": {"client": "backup"}}"#, CLOSE),
            refusal(r##"{"ready": {"client": "#x"}}"##, CLOSE),
            refusal(r#"{"ready": {"client": ""}}"#, CLOSE),
            refusal(r#"{"ready": {"nth": 0}}"#, CLOSE),
            refusal(r#"{"message": {"n": 0}}"#, CLOSE),
            refusal(r#"{"member": {"path": ""}}"#, CLOSE),
            refusal(r#"{"manifest-data": {"at": "101%"}}"#, CLOSE),
            refusal(r#"{"ready": {"at": "1s"}}"#, CLOSE),
            refusal(r#"{"client-end": {}}"#, CLOSE),
            refusal(r##"{"client-end": {"client": "#1"}}"##, CLOSE),
        ];
        insta::assert_snapshot!(refusals.join("\n"), @r##"
        client "backup" cannot be known at connect: use a connection's number, such as "#2"
        client "#x" is no connection's number: expected "#1" or higher
        client is empty
        nth of ready counts from 1
        n of message counts from 1
        path of member is empty
        invalid position "101%": expected a share from "0%" to "100%", or a size such as "8KiB" at line 1 column 41
        unknown field `at`, expected `client` or `nth` at line 1 column 24
        client-end needs "client": whose end
        client "#1" of client-end is a connection: it needs a client's name
        "##);
    }
}
