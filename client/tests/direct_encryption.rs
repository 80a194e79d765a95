//! `sslnegotiation=direct`: TLS from the first byte, as servers since 17 take it. What terminates it stands before a real server
//! and is as strict as they are.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use backstop_scenarios::postgres::{Installation, PORT, Postgres, USER, reachable, succeed};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use support::authority::Authority;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;

/// Terminates TLS for the server at `socket`, and notes what each client did. Gone with its runtime.
async fn terminate(listener: TcpListener, config: ServerConfig, socket: PathBuf, seen: Arc<Mutex<Vec<String>>>) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let (acceptor, socket, seen) = (acceptor.clone(), socket.clone(), Arc::clone(&seen));
        tokio::spawn(async move {
            let note = |what: &str| seen.lock().unwrap().push(what.to_owned());
            note(&serve(client, &acceptor, &socket).await);
        });
    }
}

/// Passes a session on that began as `ProcessSSLStartup` wants it, and tells how it began.
async fn serve(client: TcpStream, acceptor: &TlsAcceptor, socket: &Path) -> String {
    let mut first = [0];
    client.peek(&mut first).await.unwrap();
    if first != [0x16] {
        return format!("no handshake: {first:?}");
    }
    let mut client = match acceptor.accept(client).await {
        Ok(client) => client,
        Err(error) => return format!("handshake: {error}"),
    };
    if client.get_ref().1.alpn_protocol() != Some(b"postgresql") {
        return "no protocol".to_owned();
    }
    let mut server = UnixStream::connect(socket).await.unwrap();
    // How it ends is the client's matter.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    "direct".to_owned()
}

/// A configuration with a certificate for `localhost`.
fn config(authority: &Authority, protocols: &[&[u8]]) -> ServerConfig {
    let (certificate, key) = authority.sign(&["localhost"], "localhost");
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config
}

/// A way in that a test may take.
struct Entrance {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Entrance {
    fn open(config: ServerConfig, server: &Postgres) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::default());
        let socket = server.socket().join(format!(".s.PGSQL.{PORT}"));
        runtime.spawn(terminate(listener, config, socket, Arc::clone(&seen)));
        Self { address, seen, _runtime: runtime }
    }
}

#[test]
fn a_session_begins_with_the_handshake() {
    let Some(installation) = Installation::find("encryption from the first byte") else { return };
    let scratch = installation.scratch();
    let server = Postgres::new(&installation, scratch.path(), &[]);
    let client = reachable(Path::new(env!("CARGO_BIN_EXE_backstop-client")), scratch.path());
    let authority = Authority::new("ours");
    let ca = scratch.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let target = scratch.path().join("backup");
    let run = |entrance: &Entrance, conninfo: &str| -> Output {
        let mut command: Command = installation.command(&client);
        let (address, port, ca) = (entrance.address.ip(), entrance.address.port(), ca.display());
        let at = format!("host=localhost hostaddr={address} port={port} user={USER} sslrootcert={ca} {conninfo}");
        command.env("HOME", scratch.path()).args(["basebackup", "-cfast", "-N", "-d", &at, "-D"]).arg(&target);
        command.output().unwrap()
    };

    let strict = Entrance::open(config(&authority, &[b"postgresql"]), &server);
    let output = run(&strict, "sslmode=verify-full sslnegotiation=direct");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    succeed(installation.tool("pg_verifybackup").arg(&target));
    std::fs::remove_dir_all(&target).unwrap();
    // That of the backup, and that of its WAL. Either is noted when it has ended.
    while strict.seen.lock().unwrap().len() < 2 {}
    assert_eq!(*strict.seen.lock().unwrap(), ["direct", "direct"]);

    // Whoever asks first is not understood here: that it went in directly was no accident.
    let refused = run(&strict, "sslmode=require");
    assert_eq!(refused.status.code(), Some(1));
    while strict.seen.lock().unwrap().len() < 3 {}
    assert_eq!(strict.seen.lock().unwrap().last().unwrap(), "no handshake: [0]");

    // A server that does not name the protocol may be of another one altogether.
    let silent = Entrance::open(config(&authority, &[]), &server);
    let refused = run(&silent, "sslmode=require sslnegotiation=direct");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    let problem = "direct SSL connection was established without ALPN protocol negotiation extension\n";
    assert!(refused.status.code() == Some(1) && said.ends_with(problem), "{said}");
    assert!(!target.exists());
}
