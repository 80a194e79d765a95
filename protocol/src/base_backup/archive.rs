//! The archive stream: the payloads of CopyData inside BASE_BACKUP since 15.

use bytes::{BufMut, Bytes, BytesMut};

use crate::decode::{Fields, MessageError};
use crate::frontend::put_c_string;

/// One CopyData payload of a BASE_BACKUP of a server of version 15 or newer. Older servers send one COPY for each archive,
/// whose payloads are the archive's bytes and nothing else.
///
/// Nothing says that an archive ends: the next [`NewArchive`](Self::NewArchive), [`Manifest`](Self::Manifest) or CopyDone does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveMessage {
    /// `n`: a new archive begins.
    NewArchive {
        /// `base.tar`, `16391.tar`, and the suffix of the compression. Untrusted.
        name: Bytes,
        /// The tablespace's location on the server; empty for the base directory. Untrusted.
        location: Bytes,
    },
    /// `m`: the manifest begins; data belongs to it from now on.
    Manifest,
    /// `d`: bytes of the current archive, or of the manifest.
    Data(Bytes),
    /// `p`: bytes of all archives done so far, before compression.
    Progress(i64),
}

impl ArchiveMessage {
    /// Decodes the payload of a CopyData.
    pub fn decode(payload: Bytes) -> Result<Self, MessageError> {
        let mut fields = Fields::new("archive", payload);
        let message = match fields.u8()? {
            b'n' => Self::NewArchive { name: fields.c_string()?, location: fields.c_string()? },
            b'm' => Self::Manifest,
            b'd' => return Ok(Self::Data(fields.remainder())),
            b'p' => Self::Progress(fields.i64()?),
            _ => return Err(fields.error("unknown kind of archive message")),
        };
        fields.end().map(|()| message)
    }

    /// Appends the payload of a CopyData.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::NewArchive { name, location } => {
                out.put_u8(b'n');
                put_c_string(out, name);
                put_c_string(out, location);
            }
            Self::Manifest => out.put_u8(b'm'),
            Self::Data(data) => {
                out.put_u8(b'd');
                out.put_slice(data);
            }
            Self::Progress(done) => {
                out.put_u8(b'p');
                out.put_i64(*done);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = ArchiveMessage> {
        let bytes = |range| proptest::collection::vec(range, 0..40).prop_map(Bytes::from);
        prop_oneof![
            (bytes(1_u8..=255), bytes(1..=255))
                .prop_map(|(name, location)| ArchiveMessage::NewArchive { name, location }),
            Just(ArchiveMessage::Manifest),
            bytes(0..=255).prop_map(ArchiveMessage::Data),
            any::<i64>().prop_map(ArchiveMessage::Progress),
        ]
    }

    #[test]
    fn reads_recorded_payloads() {
        let decode =
            |payload: &'static [u8]| ArchiveMessage::decode(Bytes::from_static(payload)).expect("a recorded payload");
        let archive = |name: &'static str, location: &'static str| ArchiveMessage::NewArchive {
            name: name.into(),
            location: location.into(),
        };
        assert_eq!(decode(b"n16391.tar\0/srv/cap/pg/ts1\0"), archive("16391.tar", "/srv/cap/pg/ts1"));
        assert_eq!(decode(b"nbase.tar\0\0"), archive("base.tar", ""));
        assert_eq!(decode(b"p\0\0\0\0\x01\x93\x96\0"), ArchiveMessage::Progress(26_449_408));
    }

    #[test]
    fn refuses_what_is_cut_or_unknown() {
        for payload in [&b""[..], b"z", b"p\0\0\0", b"nbase.tar\0", b"nbase.tar", b"mx"] {
            assert!(ArchiveMessage::decode(Bytes::copy_from_slice(payload)).is_err(), "{payload:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(message in message()) {
            let mut payload = BytesMut::new();
            message.encode(&mut payload);
            prop_assert_eq!(ArchiveMessage::decode(payload.freeze()), Ok(message));
        }

        #[test]
        fn any_bytes_are_safe(payload: Vec<u8>) {
            let _ = ArchiveMessage::decode(payload.into());
        }
    }
}
