//! The messages of the extended query protocol that a client sends: Parse, Bind, Describe, Execute, Close.
//!
//! A walsender refuses them by their type alone, whatever they hold; [`FrontendMessage`](crate::frontend::FrontendMessage)
//! keeps their bodies as they came, and a server that runs SQL decodes them here.

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode::{Fields, MessageError};
use crate::frontend::put_c_string;

/// Parse: a text becomes a prepared statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parse {
    /// The statement's name; empty for the unnamed one.
    pub statement: String,
    /// SQL.
    pub query: String,
    /// OIDs of the parameters' types, 0 for those that the server shall find out.
    pub types: Vec<u32>,
}

/// Bind: a prepared statement and parameters become a portal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The portal's name; empty for the unnamed one.
    pub portal: String,
    /// The statement's name.
    pub statement: String,
    /// Formats of the parameters: none (all text), one for all, or one for each. 0 is text, 1 binary.
    pub parameter_formats: Vec<i16>,
    /// The parameters; None is NULL.
    pub parameters: Vec<Option<Bytes>>,
    /// Formats of the result's columns, likewise.
    pub result_formats: Vec<i16>,
}

/// What Describe and Close are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// `S` and the name of a prepared statement.
    Statement(String),
    /// `P` and the name of a portal.
    Portal(String),
    /// Any other subtype.
    Unknown(u8),
}

/// Execute: a portal runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execute {
    /// The portal's name.
    pub portal: String,
    /// How many rows to return at most; 0 or less for all.
    pub max_rows: i32,
}

impl Parse {
    /// Decodes the body of a Parse message.
    pub fn decode(body: Bytes) -> Result<Self, MessageError> {
        let mut fields = Fields::new("Parse", body);
        let (statement, query) = (fields.text()?, fields.text()?);
        let count = fields.u16()?;
        // Collected one by one: a count is no promise.
        let types = (0..count).map(|_| fields.u32()).collect::<Result<_, _>>()?;
        fields.end().map(|()| Self { statement, query, types })
    }

    /// The message's body.
    pub fn body(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_c_string(&mut out, self.statement.as_bytes());
        put_c_string(&mut out, self.query.as_bytes());
        put_count(&mut out, self.types.len());
        for oid in &self.types {
            out.put_u32(*oid);
        }
        out.freeze()
    }
}

impl Bind {
    /// Decodes the body of a Bind message.
    pub fn decode(body: Bytes) -> Result<Self, MessageError> {
        let mut fields = Fields::new("Bind", body);
        let (portal, statement) = (fields.text()?, fields.text()?);
        let parameter_formats = formats(&mut fields)?;
        let count = fields.u16()?;
        let mut parameters = Vec::new();
        for _ in 0..count {
            let length = fields.i32()?;
            parameters.push(match usize::try_from(length) {
                Ok(length) => Some(fields.bytes(length)?),
                Err(_) if length == -1 => None,
                Err(_) => return Err(fields.error("a parameter has a negative length")),
            });
        }
        let result_formats = formats(&mut fields)?;
        fields.end().map(|()| Self { portal, statement, parameter_formats, parameters, result_formats })
    }

    /// The message's body.
    pub fn body(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_c_string(&mut out, self.portal.as_bytes());
        put_c_string(&mut out, self.statement.as_bytes());
        put_formats(&mut out, &self.parameter_formats);
        put_count(&mut out, self.parameters.len());
        for parameter in &self.parameters {
            match parameter {
                None => out.put_i32(-1),
                Some(value) => {
                    out.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
                    out.put_slice(value);
                }
            }
        }
        put_formats(&mut out, &self.result_formats);
        out.freeze()
    }
}

impl Named {
    /// Decodes the body of a Describe or Close message, whose name is `message`.
    pub fn decode(message: &'static str, body: Bytes) -> Result<Self, MessageError> {
        let mut fields = Fields::new(message, body);
        let (kind, name) = (fields.u8()?, fields.text()?);
        fields.end()?;
        Ok(match kind {
            b'S' => Self::Statement(name),
            b'P' => Self::Portal(name),
            other => Self::Unknown(other),
        })
    }

    /// The message's body. An unknown subtype is written without a name.
    pub fn body(&self) -> Bytes {
        let mut out = BytesMut::new();
        let (kind, name) = match self {
            Self::Statement(name) => (b'S', name.as_str()),
            Self::Portal(name) => (b'P', name.as_str()),
            Self::Unknown(kind) => (*kind, ""),
        };
        out.put_u8(kind);
        put_c_string(&mut out, name.as_bytes());
        out.freeze()
    }
}

impl Execute {
    /// Decodes the body of an Execute message.
    pub fn decode(body: Bytes) -> Result<Self, MessageError> {
        let mut fields = Fields::new("Execute", body);
        let (portal, max_rows) = (fields.text()?, fields.i32()?);
        fields.end().map(|()| Self { portal, max_rows })
    }

    /// The message's body.
    pub fn body(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_c_string(&mut out, self.portal.as_bytes());
        out.put_i32(self.max_rows);
        out.freeze()
    }
}

fn formats(fields: &mut Fields) -> Result<Vec<i16>, MessageError> {
    let count = fields.u16()?;
    (0..count).map(|_| fields.i16()).collect()
}

fn put_formats(out: &mut BytesMut, formats: &[i16]) {
    put_count(out, formats.len());
    for format in formats {
        out.put_i16(*format);
    }
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u16(u16::try_from(count).unwrap_or(u16::MAX));
}

#[cfg(test)]
mod tests {
    use postgres_protocol::IsNull;
    use postgres_protocol::message::frontend;
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{MAX_FRAME, read_frame};

    fn body(wire: &mut BytesMut) -> Bytes {
        read_frame(wire, MAX_FRAME).unwrap().expect("a whole frame").body
    }

    /// The encoders of postgres-protocol are an independent statement of the same wire format.
    #[test]
    fn reads_what_postgres_protocol_writes() {
        let mut wire = BytesMut::new();
        frontend::parse("s", "SELECT $1", [25], &mut wire).unwrap();
        let parse = Parse { statement: "s".to_owned(), query: "SELECT $1".to_owned(), types: vec![25] };
        assert_eq!(Parse::decode(body(&mut wire)), Ok(parse));

        let serialize = |value: Option<&str>, out: &mut BytesMut| {
            let Some(value) = value else { return Ok(IsNull::Yes) };
            out.put_slice(value.as_bytes());
            Ok(IsNull::No)
        };
        let written = frontend::bind("p", "s", [0, 1], [Some("x"), None], serialize, [1], &mut wire);
        assert!(written.is_ok());
        let bind = Bind {
            portal: "p".to_owned(),
            statement: "s".to_owned(),
            parameter_formats: vec![0, 1],
            parameters: vec![Some(Bytes::from_static(b"x")), None],
            result_formats: vec![1],
        };
        assert_eq!(Bind::decode(body(&mut wire)), Ok(bind));

        frontend::describe(b'P', "p", &mut wire).unwrap();
        assert_eq!(Named::decode("Describe", body(&mut wire)), Ok(Named::Portal("p".to_owned())));
        frontend::close(b'S', "s", &mut wire).unwrap();
        assert_eq!(Named::decode("Close", body(&mut wire)), Ok(Named::Statement("s".to_owned())));
        frontend::execute("p", 7, &mut wire).unwrap();
        assert_eq!(Execute::decode(body(&mut wire)), Ok(Execute { portal: "p".to_owned(), max_rows: 7 }));
    }

    proptest! {
        #[test]
        fn messages_round_trip(
            statement in "[a-z]{0,9}",
            query in "[ -~]{0,40}",
            types: Vec<u32>,
            formats: Vec<i16>,
            parameters in proptest::collection::vec(proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)), 0..5),
            max_rows: i32,
        ) {
            let parse = Parse { statement: statement.clone(), query, types };
            prop_assert_eq!(Parse::decode(parse.body()), Ok(parse));
            let parameters = parameters.into_iter().map(|value| value.map(Bytes::from)).collect();
            let bind = Bind {
                portal: statement.clone(),
                statement: statement.clone(),
                parameter_formats: formats.clone(),
                parameters,
                result_formats: formats,
            };
            prop_assert_eq!(Bind::decode(bind.body()), Ok(bind));
            let execute = Execute { portal: statement.clone(), max_rows };
            prop_assert_eq!(Execute::decode(execute.body()), Ok(execute));
            let named = Named::Statement(statement);
            prop_assert_eq!(Named::decode("Close", named.body()), Ok(named));
        }

        #[test]
        fn any_bytes_are_safe(body: Vec<u8>) {
            let body = Bytes::from(body);
            let _ = (Parse::decode(body.clone()), Bind::decode(body.clone()), Execute::decode(body.clone()));
            let _ = Named::decode("Describe", body);
        }
    }
}
