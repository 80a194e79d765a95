//! The limits: a sender of frames that are always there, and a reader that throws everything away.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use postgres_protocol::message::frontend;

/// What one read may bring, in bytes.
const READ: usize = 256 << 10;

/// The payload of a CopyData of the server's own: `SINK_BUFFER_LENGTH`, 32 kB.
const FRAME: usize = 32 << 10;

/// Frames in one write: more do not go faster.
const BATCH: usize = 8;

/// Sends `bytes` bytes in CopyData messages to everyone who comes. Prints where, first.
///
/// # Errors
/// The port, and the output.
pub fn send_frames(bytes: u64) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);
    let mut frame = vec![b'd'];
    frame.extend_from_slice(&u32::try_from(FRAME + 4).unwrap_or(u32::MAX).to_be_bytes());
    frame.resize(FRAME + 5, b'x');
    let batch = frame.repeat(BATCH);
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        // A reader that leaves early is its own affair.
        let _ = (0..bytes.div_ceil((FRAME * BATCH) as u64)).try_for_each(|_| stream.write_all(&batch));
    }
}

/// Reads frames to the end of the connection.
///
/// # Errors
/// Those of the connection.
pub fn read_frames(port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut frames = Frames::default();
    while frames.next(&mut stream)?.is_some() {}
    Ok(())
}

/// Takes a backup of a server of release 15 or later and throws it away.
///
/// # Errors
/// Those of the connection, and of the server.
pub fn discard_backup(port: u16, manifest: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let mut out = bytes::BytesMut::new();
    frontend::startup_message([("user", "backstop"), ("replication", "true")], &mut out)?;
    stream.write_all(&out)?;
    let mut frames = Frames::default();
    let mut asked = false;
    while let Some(tag) = frames.next(&mut stream)? {
        match tag {
            b'E' => return Err(io::Error::other("the server refused")),
            b'Z' if asked => return Ok(()),
            b'Z' => {
                out.clear();
                let command = format!("BASE_BACKUP ( LABEL 'discard', CHECKPOINT 'fast', MANIFEST '{manifest}' )");
                frontend::query(&command, &mut out)?;
                stream.write_all(&out)?;
                asked = true;
            }
            _ => {}
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Messages of which only the tag matters.
#[derive(Default)]
struct Frames {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Frames {
    /// The tag of the next message, which is then read over.
    fn next(&mut self, stream: &mut TcpStream) -> io::Result<Option<u8>> {
        let Some(header) = self.header(stream)? else { return Ok(None) };
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let mut rest = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(4);
        while rest > 0 {
            if self.start == self.end && !self.fill(stream)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let here = rest.min(self.end - self.start);
            self.start += here;
            rest -= here;
        }
        Ok(Some(header[0]))
    }

    fn header(&mut self, stream: &mut TcpStream) -> io::Result<Option<[u8; 5]>> {
        let mut header = [0; 5];
        for (at, byte) in header.iter_mut().enumerate() {
            if self.start == self.end && !self.fill(stream)? {
                return if at == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            *byte = self.buffer.get(self.start).copied().unwrap_or_default();
            self.start += 1;
        }
        Ok(Some(header))
    }

    fn fill(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        self.buffer.resize(READ, 0);
        self.start = 0;
        self.end = stream.read(&mut self.buffer)?;
        Ok(self.end > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_to_their_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sender = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // A message, an empty one, and one that is cut short.
            stream.write_all(b"d\0\0\0\x06xyZ\0\0\0\x04d\0\0\0\x09x").unwrap();
        });
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut frames = Frames::default();
        assert_eq!(frames.next(&mut stream).unwrap(), Some(b'd'));
        assert_eq!(frames.next(&mut stream).unwrap(), Some(b'Z'));
        assert_eq!(frames.next(&mut stream).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        sender.join().unwrap();
    }
}
