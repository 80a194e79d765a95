//! Values, as texts and as bytes.

use backstop_protocol::base_backup::manifest::format_start_time;
use backstop_protocol::catalog::SqlType;
use backstop_protocol::diagnostic::{Diagnostic, SqlState};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::wal::stream::PgTimestamp;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::super::startup::parse_bool;

/// A value of some type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// int4, int8, oid, xid.
    Int(i64),
    /// text, name, unknown.
    Text(String),
    Bytes(Bytes),
    Lsn(Lsn),
    /// Unix seconds.
    Time(i64),
    Record(Vec<(SqlType, Value)>),
    /// What a function returns that returns a set: one row each.
    Set(Vec<Value>),
    /// text[]
    Texts(Vec<Bytes>),
    Void,
}

/// The formats of Bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Binary,
}

impl Format {
    /// `unsupported format code` is what a server says of any other number.
    pub(super) fn new(code: i16) -> Result<Self, Diagnostic> {
        match code {
            0 => Ok(Self::Text),
            1 => Ok(Self::Binary),
            other => {
                let message = format!("unsupported format code: {other}");
                Err(Diagnostic::error(SqlState::INVALID_PARAMETER_VALUE, message))
            }
        }
    }
}

/// `invalid input syntax for type …`
fn invalid_text(ty: SqlType, text: &str) -> Diagnostic {
    let message = format!("invalid input syntax for type {}: \"{text}\"", ty.shown());
    Diagnostic::error(SqlState::INVALID_TEXT_REPRESENTATION, message)
}

impl Value {
    /// The value as it is sent; None is NULL.
    pub(super) fn encode(&self, ty: SqlType, format: Format) -> Option<Bytes> {
        match format {
            Format::Text => self.text().map(Bytes::from),
            Format::Binary => self.binary(ty),
        }
    }

    /// What the type's output function writes.
    pub(super) fn text(&self) -> Option<String> {
        Some(match self {
            Self::Null => return None,
            Self::Bool(value) => if *value { "t" } else { "f" }.to_owned(),
            Self::Int(value) => value.to_string(),
            Self::Text(value) => value.clone(),
            Self::Bytes(value) => value.iter().fold("\\x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
            Self::Lsn(value) => value.to_string(),
            Self::Time(seconds) => format!("{}+00", format_start_time(*seconds).trim_end_matches(" UTC")),
            Self::Record(fields) => {
                let fields: Vec<_> = fields.iter().map(|(_, value)| record_field(value)).collect();
                format!("({})", fields.join(","))
            }
            // They are taken apart before they are sent, or never sent.
            Self::Set(_) | Self::Texts(_) | Self::Void => String::new(),
        })
    }

    /// What the type's send function writes.
    fn binary(&self, ty: SqlType) -> Option<Bytes> {
        let mut out = BytesMut::new();
        match self {
            Self::Null => return None,
            Self::Bool(value) => out.put_u8(u8::from(*value)),
            Self::Int(value) if ty == SqlType::Int8 => out.put_i64(*value),
            // The low half of a number that was made as one of four bytes.
            Self::Int(value) => out.put_u32(u32::try_from(value & 0xFFFF_FFFF).unwrap_or(0)),
            Self::Text(value) => out.put_slice(value.as_bytes()),
            Self::Bytes(value) => return Some(value.clone()),
            Self::Lsn(value) if ty == SqlType::Lsn => out.put_u64(value.0),
            Self::Lsn(value) => out.put_slice(value.to_string().as_bytes()),
            Self::Time(seconds) => out.put_i64(PgTimestamp::from_unix_micros(seconds.saturating_mul(1_000_000)).0),
            Self::Record(fields) => {
                out.put_u32(u32::try_from(fields.len()).unwrap_or(u32::MAX));
                for (ty, value) in fields {
                    out.put_u32(ty.oid());
                    match value.binary(*ty) {
                        None => out.put_i32(-1),
                        Some(value) => {
                            out.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
                            out.put_slice(&value);
                        }
                    }
                }
            }
            Self::Set(_) | Self::Texts(_) | Self::Void => {}
        }
        Some(out.freeze())
    }

    /// Reads a text as the type's input function does.
    pub(super) fn parse(ty: SqlType, text: &str) -> Result<Self, Diagnostic> {
        let number = |limits: std::ops::RangeInclusive<i64>| {
            let value: i64 = text.trim().parse().map_err(|_| invalid_text(ty, text))?;
            if limits.contains(&value) {
                Ok(Self::Int(value))
            } else {
                let message = format!("value \"{text}\" is out of range for type {}", ty.shown());
                Err(Diagnostic::error(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, message))
            }
        };
        match ty {
            SqlType::Text | SqlType::Unknown | SqlType::Name => Ok(Self::Text(text.to_owned())),
            SqlType::Bool => parse_bool(text.trim()).map(Self::Bool).ok_or_else(|| invalid_text(ty, text)),
            SqlType::Int4 => number(i64::from(i32::MIN)..=i64::from(i32::MAX)),
            SqlType::Int8 => number(i64::MIN..=i64::MAX),
            SqlType::Oid | SqlType::Xid => number(0..=i64::from(u32::MAX)),
            SqlType::Lsn => text.parse().map(Self::Lsn).map_err(|_| invalid_text(ty, text)),
            SqlType::Bytea | SqlType::Timestamptz | SqlType::Record | SqlType::TextArray | SqlType::Void => {
                Err(cannot_read(ty))
            }
        }
    }

    /// Reads bytes as the type's receive function does.
    pub(super) fn receive(ty: SqlType, bytes: &Bytes) -> Result<Self, Diagnostic> {
        let wrong = || {
            let message = "incorrect binary data format in bind parameter";
            Diagnostic::error(SqlState::INVALID_BINARY_REPRESENTATION, message)
        };
        let four = || <[u8; 4]>::try_from(&bytes[..]).map_err(|_| wrong());
        let eight = || <[u8; 8]>::try_from(&bytes[..]).map_err(|_| wrong());
        Ok(match ty {
            // A client whose encoding is SQL_ASCII sends what it likes.
            SqlType::Text | SqlType::Unknown | SqlType::Name => match str::from_utf8(bytes) {
                Ok(text) => Self::Text(text.to_owned()),
                Err(_) => Self::Bytes(bytes.clone()),
            },
            SqlType::Bool => match &bytes[..] {
                [value] => Self::Bool(*value != 0),
                _ => return Err(wrong()),
            },
            SqlType::Int4 => Self::Int(i32::from_be_bytes(four()?).into()),
            SqlType::Oid | SqlType::Xid => Self::Int(u32::from_be_bytes(four()?).into()),
            SqlType::Int8 => Self::Int(i64::from_be_bytes(eight()?)),
            SqlType::Lsn => Self::Lsn(Lsn(u64::from_be_bytes(eight()?))),
            SqlType::Bytea => Self::Bytes(bytes.clone()),
            SqlType::TextArray => Self::Texts(texts(bytes).ok_or_else(wrong)?),
            SqlType::Timestamptz | SqlType::Record | SqlType::Void => return Err(cannot_read(ty)),
        })
    }

    /// The value as another type: what `::` does, and what happens to arguments without saying.
    pub(super) fn cast(self, ty: SqlType) -> Result<Self, Diagnostic> {
        match (&self, ty) {
            (Self::Null, _) => Ok(Self::Null),
            (Self::Bool(value), SqlType::Text) => Ok(Self::Text(value.to_string())),
            (_, SqlType::Text | SqlType::Name) => Ok(self.text().map_or(Self::Null, Self::Text)),
            (Self::Text(text), _) => Self::parse(ty, text),
            (Self::Int(value), SqlType::Int4 | SqlType::Int8) => Self::parse(ty, &value.to_string()),
            _ => Ok(self),
        }
    }
}

/// A type that no argument of this server has.
fn cannot_read(ty: SqlType) -> Diagnostic {
    let message = format!("this server reads no values of type {}", ty.shown());
    Diagnostic::error(SqlState::FEATURE_NOT_SUPPORTED, message)
}

/// `array_recv` of texts in one dimension, none of them NULL.
fn texts(bytes: &Bytes) -> Option<Vec<Bytes>> {
    let mut rest = bytes.clone();
    let mut number = || rest.try_get_i32().ok();
    let (dimensions, _has_null, _type) = (number()?, number()?, number()?);
    if dimensions == 0 {
        return rest.is_empty().then(Vec::new);
    }
    let (count, _first) = (number()?, number()?);
    let mut texts = Vec::new();
    if dimensions != 1 {
        return None;
    }
    for _ in 0..count {
        let length = usize::try_from(rest.try_get_i32().ok()?).ok()?;
        texts.push((length <= rest.len()).then(|| rest.split_to(length))?);
    }
    rest.is_empty().then_some(texts)
}

/// `record_out`: what could be mistaken stands in quotes.
fn record_field(value: &Value) -> String {
    let Some(text) = value.text() else { return String::new() };
    let mistaken = |c: char| matches!(c, '(' | ')' | ',' | '"' | '\\') || c.is_ascii_whitespace();
    if text.is_empty() || text.contains(mistaken) {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_a_server() {
        let text = |value: Value| value.text().unwrap_or_default();
        assert_eq!(text(Value::Time(1_795_245_905)), "2026-11-21 07:25:05+00");
        assert_eq!(text(Value::Bytes(Bytes::from_static(b"\x00\xff"))), "\\x00ff");
        let fields = [Value::Lsn(Lsn(0x300_0100)), Value::Text("a \"b\"\n".to_owned()), Value::Text(String::new())];
        let record =
            Value::Record(fields.into_iter().chain([Value::Null]).map(|value| (SqlType::Text, value)).collect());
        assert_eq!(text(record), "(0/3000100,\"a \"\"b\"\"\n\",\"\",)");
        assert_eq!(Value::parse(SqlType::Bool, " yes "), Ok(Value::Bool(true)));
        let refusal = |ty, text| Value::parse(ty, text).expect_err("invalid").message;
        assert_eq!(refusal(SqlType::Bool, "maybe"), "invalid input syntax for type boolean: \"maybe\"");
        assert_eq!(refusal(SqlType::Lsn, "x"), "invalid input syntax for type pg_lsn: \"x\"");
        assert_eq!(refusal(SqlType::Int4, "3000000000"), "value \"3000000000\" is out of range for type integer");
    }

    /// As a server 15 sent it.
    #[test]
    fn records_are_sent_with_their_types() {
        let name = Value::Text("000000010000000000000002".to_owned());
        let record = Value::Record(vec![(SqlType::Text, name), (SqlType::Int4, Value::Int(40))]);
        let bytes = record.encode(SqlType::Record, Format::Binary).expect("a value");
        let expected =
            b"\x00\x00\x00\x02\x00\x00\x00\x19\x00\x00\x00\x18000000010000000000000002\x00\x00\x00\x17\x00\x00\x00\x04\x00\x00\x00(";
        assert_eq!(&bytes[..], expected);
    }

    #[test]
    fn binary_values_come_back() {
        for (ty, value) in [
            (SqlType::Bool, Value::Bool(true)),
            (SqlType::Int4, Value::Int(-7)),
            (SqlType::Int8, Value::Int(-7)),
            (SqlType::Oid, Value::Int(4_000_000_000)),
            (SqlType::Text, Value::Text("x".to_owned())),
            (SqlType::Lsn, Value::Lsn(Lsn(0x1_0000_0028))),
            (SqlType::Bytea, Value::Bytes(Bytes::from_static(b"x"))),
        ] {
            let bytes = value.encode(ty, Format::Binary).expect("not NULL");
            assert_eq!(Value::receive(ty, &bytes), Ok(value.clone()), "{ty:?}");
            let back =
                value.encode(ty, Format::Text).map(|text| Value::parse(ty, str::from_utf8(&text).expect("text")));
            assert!(ty == SqlType::Bytea || back == Some(Ok(value)), "{ty:?}");
        }
    }
}
