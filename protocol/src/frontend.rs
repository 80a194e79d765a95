//! What clients send.

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode::{Fields, MessageError};
use crate::frame::{Frame, write_counted, write_frame};

const SSL_REQUEST: u32 = 80_877_103;
const GSS_ENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// The packets without a tag that open a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartupPacket {
    /// StartupMessage.
    Startup(Startup),
    /// SSLRequest: may this connection go on under TLS?
    SslRequest,
    /// GSSENCRequest: may this connection go on under GSSAPI encryption?
    GssEncRequest,
    /// CancelRequest: stop what the session with this key is doing.
    Cancel {
        /// The process id of BackendKeyData.
        pid: i32,
        /// The secret key of BackendKeyData: 4 bytes, up to 256 with protocol 3.2.
        key: Bytes,
    },
}

/// StartupMessage: the protocol version and the session's parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Startup {
    /// 3 in every supported release.
    pub major: u16,
    /// 0, or 2 for protocol 3.2.
    pub minor: u16,
    /// In the order in which they were sent.
    pub parameters: Vec<(String, String)>,
}

impl Startup {
    /// The last value given for `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl StartupPacket {
    /// Decodes a packet that [`read_startup`](crate::frame::read_startup) returned.
    pub fn decode(packet: Bytes) -> Result<Self, MessageError> {
        let mut fields = Fields::new("StartupMessage", packet);
        let code = fields.u32()?;
        match code {
            // Servers do not look at what else these two hold.
            SSL_REQUEST => Ok(Self::SslRequest),
            GSS_ENC_REQUEST => Ok(Self::GssEncRequest),
            CANCEL_REQUEST => {
                let mut fields = Fields::new("CancelRequest", fields.remainder());
                let pid = fields.i32()?;
                let key = fields.remainder();
                if !(4..=256).contains(&key.len()) {
                    return Err(fields.error("a cancel key has 4 to 256 bytes"));
                }
                Ok(Self::Cancel { pid, key })
            }
            version => {
                let (major, minor) = ((version >> 16) as u16, (version & 0xFFFF) as u16);
                let mut parameters = Vec::new();
                // Others than these are refused by their number alone.
                match major {
                    3 => read_parameters(&mut fields, &mut parameters)?,
                    2 => read_fixed_parameters(&fields.remainder(), &mut parameters),
                    _ => {}
                }
                Ok(Self::Startup(Startup { major, minor, parameters }))
            }
        }
    }

    /// Appends the packet with its length.
    pub fn encode(&self, out: &mut BytesMut) {
        write_counted(out, |out| match self {
            Self::SslRequest => out.put_u32(SSL_REQUEST),
            Self::GssEncRequest => out.put_u32(GSS_ENC_REQUEST),
            Self::Cancel { pid, key } => {
                out.put_u32(CANCEL_REQUEST);
                out.put_i32(*pid);
                out.put_slice(key);
            }
            Self::Startup(startup) => {
                out.put_u16(startup.major);
                out.put_u16(startup.minor);
                for (name, value) in &startup.parameters {
                    put_c_string(out, name.as_bytes());
                    put_c_string(out, value.as_bytes());
                }
                out.put_u8(0);
            }
        });
    }
}

/// Name and value pairs up to an empty name, which must be the end. The packet's length bounds their number.
fn read_parameters(fields: &mut Fields, parameters: &mut Vec<(String, String)>) -> Result<(), MessageError> {
    loop {
        let name = fields.text()?;
        if name.is_empty() {
            return fields.end();
        }
        parameters.push((name, fields.text()?));
    }
}

/// The first fields of protocol 2's packet: 64 bytes of database, 32 of user, each up to its first zero. A short packet is filled
/// up with zeros.
fn read_fixed_parameters(packet: &[u8], parameters: &mut Vec<(String, String)>) {
    for (name, place) in [("database", 0..64), ("user", 64..96)] {
        let field = packet.get(place.start..place.end.min(packet.len())).unwrap_or_default();
        let value = field.split(|byte| *byte == 0).next().unwrap_or_default();
        parameters.push((name.to_owned(), String::from_utf8_lossy(value).into_owned()));
    }
}

/// The typed messages that a walsender may receive. Those of the extended query protocol are kept as they came:
/// a walsender refuses them unread, and [`crate::extended`] decodes them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of PostgreSQL's protocol documentation")]
pub enum FrontendMessage {
    /// Query. A walsender's commands and SQL come in here. Not necessarily UTF-8.
    Query(Bytes),
    /// PasswordMessage, SASLInitialResponse, SASLResponse or GSSResponse: what it is depends on the exchange.
    Password(Bytes),
    CopyData(Bytes),
    CopyDone,
    CopyFail(String),
    Terminate,
    Sync,
    Flush,
    Parse(Bytes),
    Bind(Bytes),
    Describe(Bytes),
    Execute(Bytes),
    Close(Bytes),
    FunctionCall(Bytes),
}

impl FrontendMessage {
    /// The type byte.
    pub fn tag(&self) -> u8 {
        match self {
            Self::Query(_) => b'Q',
            Self::Password(_) => b'p',
            Self::CopyData(_) => b'd',
            Self::CopyDone => b'c',
            Self::CopyFail(_) => b'f',
            Self::Terminate => b'X',
            Self::Sync => b'S',
            Self::Flush => b'H',
            Self::Parse(_) => b'P',
            Self::Bind(_) => b'B',
            Self::Describe(_) => b'D',
            Self::Execute(_) => b'E',
            Self::Close(_) => b'C',
            Self::FunctionCall(_) => b'F',
        }
    }

    /// Decodes a frame from a client.
    pub fn decode(frame: Frame) -> Result<Self, MessageError> {
        let empty = |name, message| Fields::new(name, frame.body.clone()).end().map(|()| message);
        match frame.tag {
            b'Q' => {
                let mut fields = Fields::new("Query", frame.body);
                let text = fields.c_string()?;
                fields.end()?;
                Ok(Self::Query(text))
            }
            b'p' => Ok(Self::Password(frame.body)),
            b'd' => Ok(Self::CopyData(frame.body)),
            b'c' => empty("CopyDone", Self::CopyDone),
            b'f' => Fields::new("CopyFail", frame.body).text().map(Self::CopyFail),
            b'X' => empty("Terminate", Self::Terminate),
            b'S' => empty("Sync", Self::Sync),
            b'H' => empty("Flush", Self::Flush),
            b'P' => Ok(Self::Parse(frame.body)),
            b'B' => Ok(Self::Bind(frame.body)),
            b'D' => Ok(Self::Describe(frame.body)),
            b'E' => Ok(Self::Execute(frame.body)),
            b'C' => Ok(Self::Close(frame.body)),
            b'F' => Ok(Self::FunctionCall(frame.body)),
            _ => Err(Fields::new("frontend", Bytes::new()).error("invalid frontend message type")),
        }
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut BytesMut) {
        write_frame(out, self.tag(), |out| match self {
            Self::Query(text) => put_c_string(out, text),
            Self::Password(data)
            | Self::CopyData(data)
            | Self::Parse(data)
            | Self::Bind(data)
            | Self::Describe(data)
            | Self::Execute(data)
            | Self::Close(data)
            | Self::FunctionCall(data) => out.put_slice(data),
            Self::CopyFail(reason) => put_c_string(out, reason.as_bytes()),
            Self::CopyDone | Self::Terminate | Self::Sync | Self::Flush => {}
        });
    }
}

/// Appends the bytes before the first NUL of `text`, and a NUL.
pub(crate) fn put_c_string(out: &mut BytesMut, text: &[u8]) {
    out.put_slice(text.split(|byte| *byte == 0).next().unwrap_or_default());
    out.put_u8(0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{MAX_FRAME, read_frame, read_startup};

    fn startup_packet() -> impl Strategy<Value = StartupPacket> {
        let parameters = proptest::collection::vec(("[a-z_]{1,12}", "[ -~]{0,12}"), 0..5);
        prop_oneof![
            Just(StartupPacket::SslRequest),
            Just(StartupPacket::GssEncRequest),
            (any::<i32>(), proptest::collection::vec(any::<u8>(), 4..=256))
                .prop_map(|(pid, key)| StartupPacket::Cancel { pid, key: key.into() }),
            (0_u16..5, parameters)
                .prop_map(|(minor, parameters)| { StartupPacket::Startup(Startup { major: 3, minor, parameters }) }),
        ]
    }

    fn message() -> impl Strategy<Value = FrontendMessage> {
        let data = proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        prop_oneof![
            "[ -~]{0,40}".prop_map(|sql| FrontendMessage::Query(sql.into())),
            data.clone().prop_map(FrontendMessage::Password),
            data.clone().prop_map(FrontendMessage::CopyData),
            data.clone().prop_map(FrontendMessage::Parse),
            data.prop_map(FrontendMessage::Bind),
            Just(FrontendMessage::CopyDone),
            "[ -~]{0,40}".prop_map(FrontendMessage::CopyFail),
            Just(FrontendMessage::Terminate),
            Just(FrontendMessage::Sync),
        ]
    }

    #[test]
    fn the_last_parameter_of_a_name_counts() {
        let parameters = [("user", "a"), ("user", "b")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let startup = Startup { major: 3, minor: 0, parameters: parameters.into() };
        assert_eq!(startup.get("user"), Some("b"));
        assert_eq!(startup.get("database"), None);
    }

    /// The encoders of postgres-protocol are an independent statement of the same wire format.
    #[test]
    fn reads_what_postgres_protocol_writes() {
        let mut wire = BytesMut::new();
        postgres_protocol::message::frontend::startup_message([("user", "u"), ("replication", "true")], &mut wire)
            .unwrap();
        let packet = read_startup(&mut wire).unwrap().expect("a whole packet");
        let StartupPacket::Startup(startup) = StartupPacket::decode(packet).unwrap() else {
            panic!("not a StartupMessage")
        };
        assert_eq!((startup.major, startup.minor), (3, 0));
        assert_eq!(startup.get("replication"), Some("true"));

        postgres_protocol::message::frontend::query("IDENTIFY_SYSTEM", &mut wire).unwrap();
        let frame = read_frame(&mut wire, MAX_FRAME).unwrap().expect("a whole frame");
        assert_eq!(FrontendMessage::decode(frame).unwrap(), FrontendMessage::Query("IDENTIFY_SYSTEM".into()));
    }

    proptest! {
        #[test]
        fn startup_packets_round_trip(packet in startup_packet()) {
            let mut wire = BytesMut::new();
            packet.encode(&mut wire);
            let bytes = read_startup(&mut wire).unwrap().expect("a whole packet");
            prop_assert_eq!(StartupPacket::decode(bytes), Ok(packet));
        }

        #[test]
        fn messages_round_trip(message in message()) {
            let mut wire = BytesMut::new();
            message.encode(&mut wire);
            let frame = read_frame(&mut wire, MAX_FRAME).unwrap().expect("a whole frame");
            prop_assert_eq!(FrontendMessage::decode(frame), Ok(message));
        }

        #[test]
        fn any_bytes_are_safe(tag: u8, body: Vec<u8>) {
            let _ = StartupPacket::decode(body.clone().into());
            let _ = FrontendMessage::decode(Frame { tag, body: body.into() });
        }
    }
}
