//! What servers send.

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode::Fields;
pub use crate::decode::MessageError;
pub use crate::diagnostic::{Diagnostic, Severity, SqlState};
use crate::frame::{Frame, write_frame};
use crate::frontend::put_c_string;
use crate::version::ServerVersion;

/// Where a session stands between commands: the byte of ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: not in a transaction. The only one on a physical walsender.
    Idle,
    /// `T`: in a transaction.
    InTransaction,
    /// `E`: in a failed transaction.
    Failed,
}

/// One column of a RowDescription. Table OID and attribute number are 0 in everything a walsender sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The column's name.
    pub name: String,
    /// text 25, int4 23, int8 20, oid 26, bytea 17.
    pub type_oid: u32,
    /// `typlen`: -1 for variable length.
    pub type_len: i16,
    /// `typmod`: -1 for none.
    pub type_modifier: i32,
    /// 0 text, 1 binary: what Bind asked for, and always text without it.
    pub format: i16,
}

/// The messages under tag `R`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// AuthenticationOk.
    Ok,
    /// AuthenticationCleartextPassword.
    CleartextPassword,
    /// AuthenticationMD5Password.
    Md5Password {
        /// Mixed into the answer.
        salt: [u8; 4],
    },
    /// AuthenticationSASL: the mechanisms that the server offers, best first.
    Sasl {
        /// `SCRAM-SHA-256-PLUS`, `SCRAM-SHA-256`.
        mechanisms: Vec<String>,
    },
    /// AuthenticationSASLContinue: server-first-message.
    SaslContinue(Bytes),
    /// AuthenticationSASLFinal: server-final-message.
    SaslFinal(Bytes),
    /// Kerberos, GSSAPI, SSPI: known by their number only.
    Other(u32),
}

/// The messages that occur on a walsender connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of PostgreSQL's protocol documentation")]
#[non_exhaustive]
pub enum BackendMessage {
    Authentication(Authentication),
    ParameterStatus {
        name: String,
        value: String,
    },
    BackendKeyData {
        pid: i32,
        /// 4 bytes, up to 256 with protocol 3.2.
        key: Bytes,
    },
    ReadyForQuery(TransactionStatus),
    RowDescription(Vec<Column>),
    /// `None` is NULL.
    DataRow(Vec<Option<Bytes>>),
    /// The command tag: `SELECT`, `BASE_BACKUP`.
    CommandComplete(String),
    EmptyQueryResponse,
    ErrorResponse(Diagnostic),
    NoticeResponse(Diagnostic),
    ParseComplete,
    BindComplete,
    CloseComplete,
    NoData,
    /// OIDs of the types of a statement's parameters.
    ParameterDescription(Vec<u32>),
    PortalSuspended,
    CopyInResponse,
    CopyOutResponse,
    CopyBothResponse,
    CopyData(Bytes),
    CopyDone,
    NegotiateProtocolVersion {
        /// The newest version that the server speaks, as a whole protocol number: `0x0003_0002`.
        newest: u32,
        /// `_pq_.` parameters that the server does not know.
        unrecognized: Vec<String>,
    },
}

impl BackendMessage {
    /// The type byte.
    pub fn tag(&self) -> u8 {
        match self {
            Self::Authentication(_) => b'R',
            Self::ParameterStatus { .. } => b'S',
            Self::BackendKeyData { .. } => b'K',
            Self::ReadyForQuery(_) => b'Z',
            Self::RowDescription(_) => b'T',
            Self::DataRow(_) => b'D',
            Self::CommandComplete(_) => b'C',
            Self::EmptyQueryResponse => b'I',
            Self::ErrorResponse(_) => b'E',
            Self::NoticeResponse(_) => b'N',
            Self::ParseComplete => b'1',
            Self::BindComplete => b'2',
            Self::CloseComplete => b'3',
            Self::NoData => b'n',
            Self::ParameterDescription(_) => b't',
            Self::PortalSuspended => b's',
            Self::CopyInResponse => b'G',
            Self::CopyOutResponse => b'H',
            Self::CopyBothResponse => b'W',
            Self::CopyData(_) => b'd',
            Self::CopyDone => b'c',
            Self::NegotiateProtocolVersion { .. } => b'v',
        }
    }

    /// The message's name in PostgreSQL's protocol documentation.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Authentication(_) => "Authentication",
            Self::ParameterStatus { .. } => "ParameterStatus",
            Self::BackendKeyData { .. } => "BackendKeyData",
            Self::ReadyForQuery(_) => "ReadyForQuery",
            Self::RowDescription(_) => "RowDescription",
            Self::DataRow(_) => "DataRow",
            Self::CommandComplete(_) => "CommandComplete",
            Self::EmptyQueryResponse => "EmptyQueryResponse",
            Self::ErrorResponse(_) => "ErrorResponse",
            Self::NoticeResponse(_) => "NoticeResponse",
            Self::ParseComplete => "ParseComplete",
            Self::BindComplete => "BindComplete",
            Self::CloseComplete => "CloseComplete",
            Self::NoData => "NoData",
            Self::ParameterDescription(_) => "ParameterDescription",
            Self::PortalSuspended => "PortalSuspended",
            Self::CopyInResponse => "CopyInResponse",
            Self::CopyOutResponse => "CopyOutResponse",
            Self::CopyBothResponse => "CopyBothResponse",
            Self::CopyData(_) => "CopyData",
            Self::CopyDone => "CopyDone",
            Self::NegotiateProtocolVersion { .. } => "NegotiateProtocolVersion",
        }
    }

    /// Decodes a frame from a server.
    pub fn decode(frame: Frame) -> Result<Self, MessageError> {
        let Frame { tag, body } = frame;
        match tag {
            b'R' => decode_authentication(Fields::new("Authentication", body)).map(Self::Authentication),
            b'S' => {
                let mut fields = Fields::new("ParameterStatus", body);
                let (name, value) = (fields.text()?, fields.text()?);
                fields.end().map(|()| Self::ParameterStatus { name, value })
            }
            b'K' => {
                let mut fields = Fields::new("BackendKeyData", body);
                let (pid, key) = (fields.i32()?, fields.remainder());
                if !(4..=256).contains(&key.len()) {
                    return Err(fields.error("a cancel key has 4 to 256 bytes"));
                }
                Ok(Self::BackendKeyData { pid, key })
            }
            b'Z' => {
                let mut fields = Fields::new("ReadyForQuery", body);
                let status = match fields.u8()? {
                    b'I' => TransactionStatus::Idle,
                    b'T' => TransactionStatus::InTransaction,
                    b'E' => TransactionStatus::Failed,
                    _ => return Err(fields.error("unknown transaction status")),
                };
                fields.end().map(|()| Self::ReadyForQuery(status))
            }
            b'T' => decode_row_description(Fields::new("RowDescription", body)),
            b'D' => decode_data_row(Fields::new("DataRow", body)),
            b'C' => {
                let mut fields = Fields::new("CommandComplete", body);
                let tag = fields.text()?;
                fields.end().map(|()| Self::CommandComplete(tag))
            }
            b'I' => Fields::new("EmptyQueryResponse", body).end().map(|()| Self::EmptyQueryResponse),
            b'E' => {
                Diagnostic::decode("ErrorResponse", &mut Fields::new("ErrorResponse", body)).map(Self::ErrorResponse)
            }
            b'N' => {
                Diagnostic::decode("NoticeResponse", &mut Fields::new("NoticeResponse", body)).map(Self::NoticeResponse)
            }
            b'1' => Fields::new("ParseComplete", body).end().map(|()| Self::ParseComplete),
            b'2' => Fields::new("BindComplete", body).end().map(|()| Self::BindComplete),
            b'3' => Fields::new("CloseComplete", body).end().map(|()| Self::CloseComplete),
            b'n' => Fields::new("NoData", body).end().map(|()| Self::NoData),
            b't' => {
                let mut fields = Fields::new("ParameterDescription", body);
                let count = fields.u16()?;
                let types = (0..count).map(|_| fields.u32()).collect::<Result<_, _>>()?;
                fields.end().map(|()| Self::ParameterDescription(types))
            }
            b's' => Fields::new("PortalSuspended", body).end().map(|()| Self::PortalSuspended),
            b'G' => decode_copy_response(Fields::new("CopyInResponse", body)).map(|()| Self::CopyInResponse),
            b'H' => decode_copy_response(Fields::new("CopyOutResponse", body)).map(|()| Self::CopyOutResponse),
            b'W' => decode_copy_response(Fields::new("CopyBothResponse", body)).map(|()| Self::CopyBothResponse),
            b'd' => Ok(Self::CopyData(body)),
            b'c' => Fields::new("CopyDone", body).end().map(|()| Self::CopyDone),
            b'v' => {
                let mut fields = Fields::new("NegotiateProtocolVersion", body);
                let (newest, count) = (fields.u32()?, fields.u32()?);
                let mut unrecognized = Vec::new();
                for _ in 0..count {
                    unrecognized.push(fields.text()?);
                }
                fields.end().map(|()| Self::NegotiateProtocolVersion { newest, unrecognized })
            }
            _ => Err(Fields::new("backend", Bytes::new()).error("unexpected message type")),
        }
    }

    /// Appends the message as the newest release sends it.
    pub fn encode(&self, out: &mut BytesMut) {
        self.encode_as(ServerVersion::NEWEST, out);
    }

    /// Appends the message as `version` sends it. Releases differ in the fields of ErrorResponse and NoticeResponse alone.
    pub fn encode_as(&self, version: ServerVersion, out: &mut BytesMut) {
        write_frame(out, self.tag(), |out| match self {
            Self::Authentication(authentication) => encode_authentication(authentication, out),
            Self::ParameterStatus { name, value } => {
                put_c_string(out, name.as_bytes());
                put_c_string(out, value.as_bytes());
            }
            Self::BackendKeyData { pid, key } => {
                out.put_i32(*pid);
                out.put_slice(key);
            }
            Self::ReadyForQuery(status) => out.put_u8(match status {
                TransactionStatus::Idle => b'I',
                TransactionStatus::InTransaction => b'T',
                TransactionStatus::Failed => b'E',
            }),
            Self::RowDescription(columns) => {
                put_count(out, columns.len());
                for column in columns {
                    put_c_string(out, column.name.as_bytes());
                    out.put_u32(0);
                    out.put_u16(0);
                    out.put_u32(column.type_oid);
                    out.put_i16(column.type_len);
                    out.put_i32(column.type_modifier);
                    out.put_i16(column.format);
                }
            }
            Self::DataRow(values) => {
                put_count(out, values.len());
                for value in values {
                    match value {
                        None => out.put_i32(-1),
                        Some(value) => {
                            out.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
                            out.put_slice(value);
                        }
                    }
                }
            }
            Self::CommandComplete(tag) => put_c_string(out, tag.as_bytes()),
            Self::ErrorResponse(diagnostic) | Self::NoticeResponse(diagnostic) => diagnostic.encode(version, out),
            // Overall format text, no columns.
            Self::CopyInResponse | Self::CopyOutResponse | Self::CopyBothResponse => out.put_slice(&[0; 3]),
            Self::CopyData(data) => out.put_slice(data),
            Self::ParameterDescription(types) => {
                put_count(out, types.len());
                for oid in types {
                    out.put_u32(*oid);
                }
            }
            Self::EmptyQueryResponse
            | Self::ParseComplete
            | Self::BindComplete
            | Self::CloseComplete
            | Self::NoData
            | Self::PortalSuspended
            | Self::CopyDone => {}
            Self::NegotiateProtocolVersion { newest, unrecognized } => {
                out.put_u32(*newest);
                out.put_u32(u32::try_from(unrecognized.len()).unwrap_or(u32::MAX));
                for name in unrecognized {
                    put_c_string(out, name.as_bytes());
                }
            }
        });
    }
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u16(u16::try_from(count).unwrap_or(u16::MAX));
}

fn decode_authentication(mut fields: Fields) -> Result<Authentication, MessageError> {
    let authentication = match fields.u32()? {
        0 => Authentication::Ok,
        3 => Authentication::CleartextPassword,
        5 => {
            let salt = fields.u32()?.to_be_bytes();
            Authentication::Md5Password { salt }
        }
        10 => {
            let mut mechanisms = Vec::new();
            loop {
                let mechanism = fields.text()?;
                if mechanism.is_empty() {
                    break;
                }
                mechanisms.push(mechanism);
            }
            Authentication::Sasl { mechanisms }
        }
        11 => return Ok(Authentication::SaslContinue(fields.remainder())),
        12 => return Ok(Authentication::SaslFinal(fields.remainder())),
        // GSSAPI and SSPI tokens follow some of them.
        other => return Ok(Authentication::Other(other)),
    };
    fields.end().map(|()| authentication)
}

fn encode_authentication(authentication: &Authentication, out: &mut BytesMut) {
    match authentication {
        Authentication::Ok => out.put_u32(0),
        Authentication::CleartextPassword => out.put_u32(3),
        Authentication::Md5Password { salt } => {
            out.put_u32(5);
            out.put_slice(salt);
        }
        Authentication::Sasl { mechanisms } => {
            out.put_u32(10);
            for mechanism in mechanisms {
                put_c_string(out, mechanism.as_bytes());
            }
            out.put_u8(0);
        }
        Authentication::SaslContinue(data) => {
            out.put_u32(11);
            out.put_slice(data);
        }
        Authentication::SaslFinal(data) => {
            out.put_u32(12);
            out.put_slice(data);
        }
        Authentication::Other(code) => out.put_u32(*code),
    }
}

fn decode_row_description(mut fields: Fields) -> Result<BackendMessage, MessageError> {
    let count = fields.u16()?;
    let mut columns = Vec::new();
    for _ in 0..count {
        let name = fields.text()?;
        let (_table, _attribute) = (fields.u32()?, fields.u16()?);
        let (type_oid, type_len, type_modifier) = (fields.u32()?, fields.i16()?, fields.i32()?);
        let format = fields.i16()?;
        columns.push(Column { name, type_oid, type_len, type_modifier, format });
    }
    fields.end().map(|()| BackendMessage::RowDescription(columns))
}

fn decode_data_row(mut fields: Fields) -> Result<BackendMessage, MessageError> {
    let count = fields.u16()?;
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(match fields.i32()? {
            -1 => None,
            length => {
                let length = usize::try_from(length).map_err(|_| fields.error("a value has a negative length"))?;
                Some(fields.bytes(length)?)
            }
        });
    }
    fields.end().map(|()| BackendMessage::DataRow(values))
}

/// Format and columns carry nothing in replication: they are read, bounded, and left.
fn decode_copy_response(mut fields: Fields) -> Result<(), MessageError> {
    fields.u8()?;
    for _ in 0..fields.u16()? {
        fields.u16()?;
    }
    fields.end()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{MAX_FRAME, read_frame};

    fn decode(hex: &str) -> BackendMessage {
        let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
        let mut wire: BytesMut = bytes.collect();
        let frame = read_frame(&mut wire, MAX_FRAME).unwrap().expect("a whole frame");
        BackendMessage::decode(frame).unwrap()
    }

    fn encode(message: &BackendMessage) -> String {
        let mut wire = BytesMut::new();
        message.encode(&mut wire);
        wire.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The complete messages of a BASE_BACKUP of a server of version 18.
    #[test]
    fn reads_and_writes_recorded_messages() {
        for hex in [
            "540000003500027265637074720000000000000000000019ffffffffffff0000746c6900000000000000000000140008ffffffff0000",
            "4400000018000200000009302f333030303032380000000131",
            "44000000170003ffffffffffffffff000000053235373531",
            "430000000b53454c45435400",
            "4800000007000000",
            "64000000056d",
            "6300000004",
            "5a0000000549",
        ] {
            assert_eq!(encode(&decode(hex)), hex);
        }
    }

    #[test]
    fn diagnostics_show_as_libpq_shows_them() {
        let diagnostic = Diagnostic::error(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "the standby was promoted during online backup",
        )
        .with_hint("Try taking another online backup.");
        insta::assert_snapshot!(diagnostic, @r"
        ERROR:  the standby was promoted during online backup
        HINT:  Try taking another online backup.
        ");
    }

    fn diagnostic() -> impl Strategy<Value = Diagnostic> {
        let text = || "[ -~]{0,20}";
        let maybe = || proptest::option::of(text());
        (any::<bool>(), "[0-9A-Z]{5}", text(), maybe(), maybe(), any::<Option<u32>>()).prop_map(
            |(fatal, code, message, detail, hint, position)| Diagnostic {
                severity: if fatal { Severity::Fatal } else { Severity::Notice },
                code: SqlState::new(&code).expect("a valid code"),
                message,
                detail,
                hint,
                raised_in: None,
                position,
            },
        )
    }

    fn message() -> impl Strategy<Value = BackendMessage> {
        let data = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let column = ("[a-z_]{1,12}", any::<u32>(), any::<i16>(), any::<i32>(), any::<i16>());
        let column = column.prop_map(|(name, type_oid, type_len, type_modifier, format)| Column {
            name,
            type_oid,
            type_len,
            type_modifier,
            format,
        });
        prop_oneof![
            Just(BackendMessage::ParseComplete),
            Just(BackendMessage::PortalSuspended),
            proptest::collection::vec(any::<u32>(), 0..5).prop_map(BackendMessage::ParameterDescription),
            Just(BackendMessage::Authentication(Authentication::Ok)),
            any::<[u8; 4]>().prop_map(|salt| BackendMessage::Authentication(Authentication::Md5Password { salt })),
            proptest::collection::vec("[A-Z-]{1,20}", 0..3)
                .prop_map(|mechanisms| BackendMessage::Authentication(Authentication::Sasl { mechanisms })),
            data().prop_map(|data| BackendMessage::Authentication(Authentication::SaslFinal(data))),
            ("[a-z_]{1,12}", "[ -~]{0,12}").prop_map(|(name, value)| BackendMessage::ParameterStatus { name, value }),
            (any::<i32>(), proptest::collection::vec(any::<u8>(), 4..=256))
                .prop_map(|(pid, key)| BackendMessage::BackendKeyData { pid, key: key.into() }),
            proptest::collection::vec(column, 0..5).prop_map(BackendMessage::RowDescription),
            proptest::collection::vec(proptest::option::of(data()), 0..5).prop_map(BackendMessage::DataRow),
            "[A-Z_]{1,20}".prop_map(BackendMessage::CommandComplete),
            diagnostic().prop_map(BackendMessage::ErrorResponse),
            diagnostic().prop_map(BackendMessage::NoticeResponse),
            Just(BackendMessage::CopyBothResponse),
            data().prop_map(BackendMessage::CopyData),
            Just(BackendMessage::ReadyForQuery(TransactionStatus::Idle)),
            (any::<u32>(), proptest::collection::vec("_pq_[.][a-z]{0,8}", 0..3))
                .prop_map(|(newest, unrecognized)| BackendMessage::NegotiateProtocolVersion { newest, unrecognized }),
        ]
    }

    proptest! {
        #[test]
        fn messages_round_trip(message in message()) {
            let mut wire = BytesMut::new();
            message.encode(&mut wire);
            let frame = read_frame(&mut wire, MAX_FRAME).unwrap().expect("a whole frame");
            prop_assert_eq!(BackendMessage::decode(frame), Ok(message));
        }

        /// postgres-protocol's parser is an independent statement of the same wire format, for the messages it knows.
        #[test]
        fn postgres_protocol_reads_what_we_write(message in message()) {
            let beyond = matches!(message.tag(), b'W' | b'v') || matches!(&message, BackendMessage::BackendKeyData { key, .. } if key.len() != 4);
            prop_assume!(!beyond);
            let mut wire = BytesMut::new();
            message.encode(&mut wire);
            let parsed = postgres_protocol::message::backend::Message::parse(&mut wire);
            prop_assert!(matches!(parsed, Ok(Some(_))), "not understood: {:?}", parsed.map(|message| message.is_some()));
            prop_assert!(wire.is_empty());
        }

        #[test]
        fn any_bytes_are_safe(tag: u8, body: Vec<u8>) {
            let _ = BackendMessage::decode(Frame { tag, body: body.into() });
        }
    }
}
