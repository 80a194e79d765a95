//! The server on real sockets.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::io::{self, ErrorKind};

use backstop_mock::Server;
use backstop_mock::config::Config;
use backstop_mock::fault::Fault;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// StartupMessage 3.0, user=repl, replication=true.
const STARTUP: &[u8] = b"\0\0\0\x24\0\x03\0\0user\0repl\0replication\0true\0\0";

fn server(faults: &[&str]) -> Server {
    let faults = faults.iter().map(|fault| serde_json::from_str::<Fault>(fault).unwrap()).collect();
    Server::new(Config { size: 0, faults, ..Config::default() }).unwrap()
}

/// Starts up and reads to the end of the connection.
async fn read_all(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<Vec<u8>> {
    stream.write_all(STARTUP).await?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await?;
    Ok(said)
}

async fn over_tcp(server: &Server) -> io::Result<Vec<u8>> {
    let listener = server.listen(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(listener.run());
    let said = read_all(TcpStream::connect(address).await.unwrap()).await;
    serving.abort();
    said
}

#[tokio::test]
async fn a_close_is_an_end_of_stream_on_tcp() {
    let server = server(&[r#"{"when": {"ready": {}}, "do": {"close": {}}}"#]);
    let said = over_tcp(&server).await.unwrap();
    assert!(said.starts_with(b"R\0\0\0\x08\0\0\0\0S"));
    server.idle().await;
}

#[tokio::test]
async fn a_reset_is_a_reset_on_tcp() {
    let server = server(&[r#"{"when": {"connect": {}}, "do": {"reset": {}}}"#]);
    assert_eq!(over_tcp(&server).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_unix_socket_serves_the_same() {
    let server = server(&[r#"{"when": {"ready": {}}, "do": {"close": {}}}"#]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(".s.PGSQL.5432");
    let listener = server.listen_unix(&path).unwrap();
    let serving = tokio::spawn(listener.run());
    let said = read_all(UnixStream::connect(&path).await.unwrap()).await.unwrap();
    serving.abort();
    assert!(said.starts_with(b"R\0\0\0\x08\0\0\0\0S"));
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let server = server(&[]);
    let first = server.listen(([127, 0, 0, 1], 0).into()).unwrap();
    let address = first.local_addr().unwrap();
    let error = server.listen(address).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().starts_with(&format!("could not listen on {address}: ")), "{error}");
}

#[tokio::test]
async fn sessions_end_with_the_server() {
    let server = server(&[]);
    let mut stream = server.connect();
    stream.write_all(STARTUP).await.unwrap();
    stream.read_u8().await.unwrap();
    drop(server);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
}

#[test]
fn a_listener_needs_a_runtime() {
    assert!(server(&[]).listen(([127, 0, 0, 1], 0).into()).is_err());
}
