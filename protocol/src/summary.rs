//! What a message says, in one line for people.

use bytes::Bytes;

use crate::backend::{Authentication, BackendMessage, Diagnostic, TransactionStatus};
use crate::wal::stream::{StandbyMessage, WalMessage};

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
            Self::DataRow(values) => {
                let text = |value: &Option<Bytes>| match value {
                    None => "NULL".to_owned(),
                    Some(value) => value.escape_ascii().to_string(),
                };
                values.iter().map(text).collect::<Vec<_>>().join(", ")
            }
            Self::CommandComplete(tag) => tag.clone(),
            Self::ErrorResponse(diagnostic) | Self::NoticeResponse(diagnostic) => diagnostic.summary(),
            Self::NegotiateProtocolVersion { newest, unrecognized } => {
                format!("{}.{} {}", newest >> 16, newest & 0xFFFF, unrecognized.join(" ")).trim_end().to_owned()
            }
            _ => String::new(),
        }
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
}
