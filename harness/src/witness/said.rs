//! What was said, word for word: every field of every message, but for the contents of what is copied.

use backstop_mock::transcript::Direction;
use backstop_protocol::backend::{Authentication, BackendMessage};
use bytes::Bytes;

/// A message, or all data of one archive, manifest or stream of WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Who said it.
    pub direction: Direction,
    /// The message's name in PostgreSQL's protocol documentation.
    pub message: &'static str,
    /// Its fields and their values, in the order of the wire; the names of members for an archive.
    pub fields: Vec<(String, String)>,
}

impl Said {
    pub(super) fn new(direction: Direction, message: &'static str, fields: Vec<(String, String)>) -> Self {
        Self { direction, message, fields }
    }

    /// Something that the server said, whose columns are called `columns` if it is a row.
    pub(super) fn of_server(message: &BackendMessage, body: &Bytes, columns: &[String]) -> Self {
        let one = |name: &str, value: String| vec![(name.to_owned(), value)];
        let fields = match message {
            BackendMessage::Authentication(authentication) => authentication_fields(authentication),
            BackendMessage::ParameterStatus { name, value } => one(name, value.clone()),
            BackendMessage::BackendKeyData { key, .. } => one("key", format!("{} bytes", key.len())),
            BackendMessage::RowDescription(columns) => columns
                .iter()
                .map(|column| {
                    let kind = format!(
                        "type {} length {} modifier {} format {}",
                        column.type_oid, column.type_len, column.type_modifier, column.format
                    );
                    (column.name.clone(), kind)
                })
                .collect(),
            BackendMessage::DataRow(values) => values
                .iter()
                .enumerate()
                .map(|(index, value)| {
                    let name = columns.get(index).cloned().unwrap_or_default();
                    let value = value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
                    (name, value.unwrap_or_else(|| "NULL".to_owned()))
                })
                .collect(),
            BackendMessage::CommandComplete(tag) => one("tag", tag.clone()),
            BackendMessage::ErrorResponse(_) | BackendMessage::NoticeResponse(_) => diagnostic_fields(body),
            BackendMessage::CopyInResponse | BackendMessage::CopyOutResponse | BackendMessage::CopyBothResponse => {
                one("format", format!("{:?}", &body[..]))
            }
            other => {
                let said = other.summary();
                if said.is_empty() { Vec::new() } else { one("", said) }
            }
        };
        Self::new(Direction::Sent, message.name(), fields)
    }
}

/// What of an exchange is no secret and no chance.
fn authentication_fields(authentication: &Authentication) -> Vec<(String, String)> {
    let one = |name: &str, value: String| vec![(name.to_owned(), value)];
    match authentication {
        Authentication::Ok => one("kind", "Ok".to_owned()),
        Authentication::CleartextPassword => one("kind", "CleartextPassword".to_owned()),
        Authentication::Md5Password { .. } => one("kind", "MD5Password".to_owned()),
        Authentication::Sasl { mechanisms } => one("SASL", mechanisms.join(" ")),
        Authentication::SaslContinue(data) => one("SASLContinue", attributes(data)),
        Authentication::SaslFinal(data) => one("SASLFinal", attributes(data)),
        Authentication::Other(code) => one("kind", code.to_string()),
    }
}

/// `r=…,s=…,i=4096` with lengths in place of nonces, salts and signatures.
fn attributes(data: &Bytes) -> String {
    let text = String::from_utf8_lossy(data);
    let shown = text.split(',').map(|attribute| match attribute.split_once('=') {
        Some((name @ ("r" | "s" | "v"), value)) => format!("{name}={} characters", value.len()),
        _ => attribute.to_owned(),
    });
    shown.collect::<Vec<_>>().join(",")
}

/// The fields of an ErrorResponse or NoticeResponse under their one-letter names.
fn diagnostic_fields(body: &Bytes) -> Vec<(String, String)> {
    let fields = body.split(|byte| *byte == 0).filter_map(|field| field.split_first());
    fields.map(|(name, value)| (char::from(*name).to_string(), String::from_utf8_lossy(value).into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_is_told_without_its_secrets() {
        let first = Authentication::SaslContinue(Bytes::from_static(b"r=abcdef,s=c2FsdA==,i=4096"));
        let fields = authentication_fields(&first);
        assert_eq!(fields, [("SASLContinue".to_owned(), "r=6 characters,s=8 characters,i=4096".to_owned())]);
    }

    #[test]
    fn every_field_of_an_error_is_told() {
        let body = Bytes::from_static(b"SERROR\0C42601\0Msyntax error\0\0");
        let fields = diagnostic_fields(&body);
        let names: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(names, ["S=ERROR", "C=42601", "M=syntax error"]);
    }
}
