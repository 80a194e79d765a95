//! A deliberately wrong backup client: it takes the end of the archive for the end of the backup, exits 0, and never sees what
//! the server says after it. Real clients have done this. The tests show that the harness catches it.
//!
//! `hasty_client HOST PORT DIR`: trust authentication, servers of version 15 and newer, no tablespaces.

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use backstop_protocol::backend::BackendMessage;
use backstop_protocol::base_backup::archive::ArchiveMessage;
use backstop_protocol::frame::{MAX_FRAME, read_frame};
use backstop_protocol::frontend::{FrontendMessage, Startup, StartupPacket};
use bytes::BytesMut;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [host, port, directory] = arguments.as_slice() else { return Err("usage: hasty_client HOST PORT DIR".into()) };
    let mut server = Server::connect(host, port.parse()?)?;
    let options = "LABEL 'hasty', CHECKPOINT 'fast', WAL, MANIFEST 'yes'";
    server.send(&FrontendMessage::Query(format!("BASE_BACKUP ({options})").into()))?;
    let (mut archive, mut manifest) = (Vec::new(), None);
    loop {
        match server.receive()? {
            BackendMessage::ErrorResponse(error) => return Err(error.to_string().into()),
            BackendMessage::CopyData(payload) => match ArchiveMessage::decode(payload)? {
                ArchiveMessage::Data(data) => manifest.as_mut().unwrap_or(&mut archive).extend_from_slice(&data),
                ArchiveMessage::Manifest => manifest = Some(Vec::new()),
                _ => {}
            },
            // The mistake: what follows is the verdict of the server.
            BackendMessage::CopyDone => break,
            _ => {}
        }
    }
    let directory = Path::new(directory);
    tar::Archive::new(archive.as_slice()).unpack(directory)?;
    std::fs::write(directory.join("backup_manifest"), manifest.unwrap_or_default())?;
    Ok(())
}

struct Server {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Server {
    fn connect(host: &str, port: u16) -> Result<Self, Box<dyn Error>> {
        let mut server = Self { stream: TcpStream::connect((host, port))?, buffer: BytesMut::new() };
        let name = std::env::var("PGAPPNAME").unwrap_or_default();
        let parameters = [("user", "backstop"), ("replication", "true"), ("application_name", &name)];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let mut packet = BytesMut::new();
        StartupPacket::Startup(Startup { major: 3, minor: 0, parameters }).encode(&mut packet);
        server.stream.write_all(&packet)?;
        while !matches!(server.receive()?, BackendMessage::ReadyForQuery(_)) {}
        Ok(server)
    }

    fn send(&mut self, message: &FrontendMessage) -> Result<(), Box<dyn Error>> {
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes);
        Ok(self.stream.write_all(&bytes)?)
    }

    fn receive(&mut self) -> Result<BackendMessage, Box<dyn Error>> {
        loop {
            if let Some(frame) = read_frame(&mut self.buffer, MAX_FRAME)? {
                return Ok(BackendMessage::decode(frame)?);
            }
            let mut chunk = vec![0; 64 << 10];
            let read = self.stream.read(&mut chunk)?;
            if read == 0 {
                return Err("server closed the connection unexpectedly".into());
            }
            self.buffer.extend_from_slice(chunk.get(..read).unwrap_or_default());
        }
    }
}
