//! What a message says, in one line for people.

use bytes::Bytes;

use crate::backend::{Authentication, BackendMessage, Diagnostic, TransactionStatus};
use crate::extended::{Bind, Execute, Named, Parse};
use crate::frontend::FrontendMessage;
use crate::wal::stream::{StandbyMessage, WalMessage};

/// The longest value that is shown as it is, in bytes: files that are read with SQL are values, too.
const LONGEST_VALUE: usize = 1024;

impl BackendMessage {
    /// What the message says besides its name, in one line: `server_version=18.4`. Empty where the name says everything. Secrets are left
    /// out.
    pub fn summary(&self) -> String {
        match self {
            Self::Authentication(authentication) => authentication.summary(),
            Self::ParameterStatus { name, value } => format!("{name}={value}"),
            Self::BackendKeyData { pid, key } => format!("pid {pid}, key of {} bytes", key.len()),
            Self::ReadyForQuery(TransactionStatus::Idle) => "I".to_owned(),
            Self::ReadyForQuery(TransactionStatus::InTransaction) => "T".to_owned(),
            Self::ReadyForQuery(TransactionStatus::Failed) => "E".to_owned(),
            Self::RowDescription(columns) => {
                let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
                names.join(", ")
            }
            Self::DataRow(values) => values.iter().map(|value| shown(value.as_ref())).collect::<Vec<_>>().join(", "),
            Self::CommandComplete(tag) => tag.clone(),
            Self::ErrorResponse(diagnostic) | Self::NoticeResponse(diagnostic) => diagnostic.summary(),
            Self::NegotiateProtocolVersion { newest, unrecognized } => {
                format!("{}.{} {}", newest >> 16, newest & 0xFFFF, unrecognized.join(" ")).trim_end().to_owned()
            }
            _ => String::new(),
        }
    }
}

impl FrontendMessage {
    /// The message's name in PostgreSQL's protocol documentation, what it says besides in one line, and how many bytes it has that are not
    /// shown. Passwords are only counted.
    pub fn told(&self) -> (&'static str, String, usize) {
        match self {
            Self::Query(text) => ("Query", String::from_utf8_lossy(text).into_owned(), 0),
            Self::Password(data) => ("Password", String::new(), data.len()),
            Self::CopyData(data) => match StandbyMessage::decode(data.clone()) {
                Ok(message) => ("CopyData", message.summary(), 0),
                Err(_) => ("CopyData", String::new(), data.len()),
            },
            Self::CopyFail(reason) => ("CopyFail", reason.clone(), 0),
            Self::CopyDone => ("CopyDone", String::new(), 0),
            Self::Terminate => ("Terminate", String::new(), 0),
            Self::Sync => ("Sync", String::new(), 0),
            Self::Flush => ("Flush", String::new(), 0),
            Self::Parse(body) => {
                ("Parse", Parse::decode(body.clone()).map_or_else(|error| error.to_string(), |parse| parse.query), 0)
            }
            Self::Bind(body) => {
                ("Bind", Bind::decode(body.clone()).map_or_else(|error| error.to_string(), |bind| parameters(&bind)), 0)
            }
            Self::Describe(body) => ("Describe", named("Describe", body), 0),
            Self::Execute(body) => (
                "Execute",
                Execute::decode(body.clone()).map_or_else(|error| error.to_string(), |execute| execute.portal),
                0,
            ),
            Self::Close(body) => ("Close", named("Close", body), 0),
            Self::FunctionCall(body) => ("FunctionCall", String::new(), body.len()),
        }
    }
}

/// What Describe and Close are about: `portal`, `statement s1`.
fn named(message: &'static str, body: &Bytes) -> String {
    match Named::decode(message, body.clone()) {
        Ok(Named::Statement(name)) => format!("statement {name}").trim_end().to_owned(),
        Ok(Named::Portal(name)) => format!("portal {name}").trim_end().to_owned(),
        Ok(Named::Unknown(kind)) => format!("unknown subtype {}", kind.escape_ascii()),
        Err(error) => error.to_string(),
    }
}

fn parameters(bind: &Bind) -> String {
    bind.parameters.iter().map(|value| shown(value.as_ref())).collect::<Vec<_>>().join(", ")
}

/// A value of a row, or a parameter.
fn shown(value: Option<&Bytes>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some(value) if value.len() > LONGEST_VALUE => format!("{} bytes", value.len()),
        Some(value) => value.escape_ascii().to_string(),
    }
}

impl Authentication {
    fn summary(&self) -> String {
        match self {
            Self::Ok => "Ok".to_owned(),
            Self::CleartextPassword => "CleartextPassword".to_owned(),
            Self::Md5Password { .. } => "MD5Password".to_owned(),
            Self::Sasl { mechanisms } => format!("SASL {}", mechanisms.join(" ")),
            Self::SaslContinue(_) => "SASLContinue".to_owned(),
            Self::SaslFinal(_) => "SASLFinal".to_owned(),
            Self::Other(code) => code.to_string(),
        }
    }
}

impl Diagnostic {
    /// Severity, SQLSTATE and text: `ERROR 58P01 requested WAL segment … has already been removed`.
    pub fn summary(&self) -> String {
        format!("{} {} {}", self.severity.as_str(), self.code, self.message)
    }
}

impl WalMessage {
    /// The positions: `w 0/2000000..0/2020000, server at 0/2020000`.
    pub fn summary(&self) -> String {
        match self {
            Self::XLogData { start, wal_end, data, .. } => {
                let end = start.saturating_add(data.len() as u64);
                format!("w {start}..{end}, server at {wal_end}")
            }
            Self::Keepalive { wal_end, reply_requested, .. } => {
                format!("k server at {wal_end}{}", asks(*reply_requested))
            }
        }
    }
}

impl StandbyMessage {
    /// The positions: `r write 0/2020000 flush 0/2000000 apply 0/0`.
    pub fn summary(&self) -> String {
        match self {
            Self::StatusUpdate { write, flush, apply, reply_requested, .. } => {
                format!("r write {write} flush {flush} apply {apply}{}", asks(*reply_requested))
            }
            Self::HotStandbyFeedback { .. } => "h".to_owned(),
        }
    }
}

fn asks(reply_requested: bool) -> &'static str {
    if reply_requested { ", reply requested" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;
    use crate::wal::stream::PgTimestamp;

    #[test]
    fn a_line_says_what_matters_and_no_secret() {
        let at = PgTimestamp(0);
        let lines = [
            BackendMessage::Authentication(Authentication::Md5Password { salt: *b"salt" }).summary(),
            BackendMessage::BackendKeyData { pid: 7, key: Bytes::from_static(b"key!") }.summary(),
            BackendMessage::DataRow(vec![None, Some(Bytes::from_static(b"a\n"))]).summary(),
            BackendMessage::CopyDone.summary(),
            WalMessage::XLogData { start: Lsn(0x10), wal_end: Lsn(0x20), sent_at: at, data: "ab".into() }.summary(),
            WalMessage::Keepalive { wal_end: Lsn(0x20), sent_at: at, reply_requested: true }.summary(),
        ];
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn statements_and_parameters_are_shown_and_long_values_are_counted() {
        let parse = Parse { statement: String::new(), query: "SELECT $1".to_owned(), types: vec![25] };
        let long = Bytes::from(vec![b'x'; LONGEST_VALUE + 1]);
        let parameters = vec![Some(Bytes::from_static(b"base/5/1\0")), None, Some(long.clone())];
        let (portal, statement) = (String::new(), String::new());
        let bind = Bind { portal, statement, parameter_formats: vec![1], parameters, result_formats: vec![1] };
        let told = [
            FrontendMessage::Parse(parse.body()),
            FrontendMessage::Bind(bind.body()),
            FrontendMessage::Describe(Named::Portal(String::new()).body()),
            FrontendMessage::Execute(Execute { portal: "p".to_owned(), max_rows: 0 }.body()),
            FrontendMessage::Close(Named::Statement("s".to_owned()).body()),
            FrontendMessage::Parse(Bytes::from_static(b"no end")),
        ]
        .map(|message| message.told());
        assert_eq!(told[0], ("Parse", "SELECT $1".to_owned(), 0));
        assert_eq!(told[1], ("Bind", format!("base/5/1\\x00, NULL, {} bytes", LONGEST_VALUE + 1), 0));
        assert_eq!(told[2], ("Describe", "portal".to_owned(), 0));
        assert_eq!(told[3], ("Execute", "p".to_owned(), 0));
        assert_eq!(told[4], ("Close", "statement s".to_owned(), 0));
        assert!(told[5].1.contains("no terminating zero byte"), "{:?}", told[5]);
        assert_eq!(BackendMessage::DataRow(vec![Some(long)]).summary(), "1025 bytes");
    }
}
