//! Framing: where one message ends and the next begins.
//!
//! A typed message is one tag byte, a big-endian `Int32` length that counts itself but not the tag, and a body. The packets
//! that open a connection have no tag. Both readers look at the length before they wait for, or allocate, anything.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// No message of either side is larger than this. PostgreSQL's own largest message on a walsender connection is a CopyData of
/// about 128 KiB; a manifest or a history file may be larger, never this large.
pub const MAX_FRAME: usize = 64 << 20;

/// `MAX_STARTUP_PACKET_LENGTH` of the server, and the length word, which it does not count.
pub const MAX_STARTUP_PACKET: usize = 10_004;

/// Room that is made for a message whose rest has not come yet.
const READ_AHEAD: usize = 64 << 10;

/// A typed message: its tag and its body, without the length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The type byte.
    pub tag: u8,
    /// Everything after the length.
    pub body: Bytes,
}

/// A length that no message can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length of a typed message is below 4, negative, or over the reader's limit.
    #[error("lost synchronization with peer: got message type \"{}\", length {length}", tag.escape_ascii())]
    Length {
        /// The type byte that came with it.
        tag: u8,
        /// The length as a signed number, as it stood on the wire.
        length: i32,
    },
    /// The length of a start-up packet is below 8 or over [`MAX_STARTUP_PACKET`].
    #[error("invalid length of startup packet: {0}")]
    Startup(i32),
}

/// Takes the next typed message off the front of `buffer`, or nothing while it is incomplete.
///
/// A body may have up to `limit` bytes. The buffer grows with what has come, not with what a length promises.
pub fn read_frame(buffer: &mut BytesMut, limit: usize) -> Result<Option<Frame>, FrameError> {
    let Some((tag, body)) = peek_frame(buffer, limit)? else { return Ok(None) };
    if buffer.len() < 5 + body {
        buffer.reserve((5 + body - buffer.len()).min(READ_AHEAD));
        return Ok(None);
    }
    buffer.advance(5);
    Ok(Some(Frame { tag, body: buffer.split_to(body).freeze() }))
}

/// The tag of the typed message that `buffer` begins with, and how long its body is, which need not be there yet. Nothing while that
/// cannot be known. The whole message has five bytes more.
pub fn peek_frame(buffer: &[u8], limit: usize) -> Result<Option<(u8, usize)>, FrameError> {
    let Some((header, _)) = buffer.split_first_chunk::<5>() else { return Ok(None) };
    let [tag, length @ ..] = *header;
    let length = i32::from_be_bytes(length);
    let body = usize::try_from(length).ok().and_then(|length| length.checked_sub(4)).filter(|body| *body <= limit);
    body.map(|body| Some((tag, body))).ok_or(FrameError::Length { tag, length })
}

/// Takes the next untagged start-up packet off the front of `buffer`, or nothing while it is incomplete. What is returned
/// begins with the code that follows the length.
pub fn read_startup(buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
    let Some((header, _)) = buffer.split_first_chunk::<4>() else { return Ok(None) };
    let length = i32::from_be_bytes(*header);
    let total = usize::try_from(length).ok().filter(|total| (8..=MAX_STARTUP_PACKET).contains(total));
    let total = total.ok_or(FrameError::Startup(length))?;
    if buffer.len() < total {
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(total - 4).freeze()))
}

/// Appends a typed message whose body is what `write_body` appends.
pub fn write_frame(out: &mut BytesMut, tag: u8, write_body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    write_counted(out, write_body);
}

/// Appends an `Int32` length, counting itself, and what `write_body` appends.
pub fn write_counted(out: &mut BytesMut, write_body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_i32(0);
    write_body(out);
    // Encoders are given at most MAX_FRAME bytes; a longer message would be cut by the peer's own check.
    let length = i32::try_from(out.len() - start).unwrap_or(i32::MAX);
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_for_a_whole_message() {
        let mut buffer = BytesMut::from(&b"Z\0\0\0\x05"[..]);
        assert_eq!(read_frame(&mut buffer, MAX_FRAME), Ok(None));
        assert_eq!(
            (peek_frame(&buffer, MAX_FRAME), peek_frame(b"Z\0\0\0", MAX_FRAME)),
            (Ok(Some((b'Z', 1))), Ok(None))
        );
        buffer.put_u8(b'I');
        assert_eq!(read_frame(&mut buffer, MAX_FRAME), Ok(Some(Frame { tag: b'Z', body: Bytes::from_static(b"I") })));
        assert!(buffer.is_empty());
    }

    #[test]
    fn refuses_impossible_lengths_before_allocating() {
        for length in [i32::MIN, -1, 0, 3, 0x7fff_ffff, 0x4000_0004] {
            let mut buffer = BytesMut::from(&b"d"[..]);
            buffer.put_i32(length);
            let capacity = buffer.capacity();
            assert_eq!(read_frame(&mut buffer, MAX_FRAME), Err(FrameError::Length { tag: b'd', length }));
            assert_eq!(buffer.capacity(), capacity);
        }
        for length in [0, 7, 10_005, -8] {
            let mut buffer = BytesMut::new();
            buffer.put_i32(length);
            assert_eq!(read_startup(&mut buffer), Err(FrameError::Startup(length)));
        }
    }

    #[test]
    fn says_what_it_refused() {
        let error = FrameError::Length { tag: b'd', length: 0x7fff_ffff };
        assert_eq!(error.to_string(), "lost synchronization with peer: got message type \"d\", length 2147483647");
    }

    proptest! {
        #[test]
        fn round_trips_in_any_chunks(messages in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..8), chunk in 1_usize..16) {
            let mut wire = BytesMut::new();
            for (tag, body) in &messages {
                write_frame(&mut wire, *tag, |out| out.put_slice(body));
            }
            let mut buffer = BytesMut::new();
            let mut read = Vec::new();
            for piece in wire.chunks(chunk) {
                buffer.put_slice(piece);
                while let Some(frame) = read_frame(&mut buffer, MAX_FRAME).expect("valid frames") {
                    read.push((frame.tag, frame.body.to_vec()));
                }
            }
            prop_assert_eq!(read, messages);
        }

        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = read_frame(&mut buffer, 1024) {}
            let _ = read_startup(&mut BytesMut::from(&bytes[..]));
        }
    }
}
