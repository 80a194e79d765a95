//! Ways to a real server: encryption, authentication, parameters from everywhere. Where PostgreSQL's own `pg_basebackup` fails, ours
//! fails with the same words.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use backstop_scenarios::postgres::{Installation, Postgres, reachable, succeed};
use support::authority::Authority;
use support::terminal;
use tempfile::TempDir;

const RULES: &str = "\
local all all trust
host all postgres 127.0.0.1/32 trust
local replication all trust
hostssl replication scram 127.0.0.1/32 scram-sha-256
hostssl replication cert 127.0.0.1/32 cert
host replication hashed 127.0.0.1/32 md5
hostssl replication clear 127.0.0.1/32 password
hostnossl replication plain 127.0.0.1/32 scram-sha-256
host replication trusted 127.0.0.1/32 trust
";

/// A server that speaks TLS, with a role for each way to log in.
struct Setup {
    installation: Installation,
    server: Postgres,
    /// The binary under PostgreSQL's name, where the server's user can run it.
    client: PathBuf,
    // Last: it holds everything above.
    scratch: TempDir,
}

impl Setup {
    fn new(what: &str) -> Option<Self> {
        let installation = Installation::find(what)?;
        let scratch = installation.scratch();
        let data = scratch.path().join("data");
        installation.initdb(&data, &[]);
        let authority = Authority::new("ours");
        let other = Authority::new("other");
        let put = |path: PathBuf, text: &str| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            installation.give(&path);
        };
        let (certificate, key) = authority.sign(&["localhost"], "localhost");
        put(data.join("server.crt"), &certificate);
        put(data.join("server.key"), &key);
        put(data.join("root.crt"), &authority.pem());
        put(data.join("pg_hba.conf"), RULES);
        let mut conf = fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
        conf.write_all(
            b"ssl = on\nssl_ca_file = 'root.crt'\nfsync = off\nlog_connections = on\nmax_wal_senders = 20\n",
        )
        .unwrap();
        put(scratch.path().join("ca.pem"), &authority.pem());
        put(scratch.path().join("other.pem"), &other.pem());
        put(scratch.path().join("revoked.pem"), &authority.revoke("localhost"));
        for (directory, name) in [("revoked", "localhost"), ("unrelated", "another")] {
            let directory = scratch.path().join(directory);
            fs::create_dir(&directory).unwrap();
            // As `openssl rehash` names it, but for the hash, which nobody looks at here.
            put(directory.join("1234abcd.r0"), &authority.revoke(name));
            put(directory.join("notes"), "not a list");
            installation.give(&directory);
        }
        let (certificate, key) = authority.sign(&[], "cert");
        put(scratch.path().join("cert.pem"), &certificate);
        put(scratch.path().join("cert.key"), &key);
        put(scratch.path().join("open.key"), &key);
        fs::set_permissions(scratch.path().join("open.key"), Permissions::from_mode(0o644)).unwrap();

        let server = Postgres::start_on_tcp(&installation, &data, &scratch.path().join("s"));
        for role in ["scram", "cert", "clear", "plain", "trusted"] {
            server.sql(&format!("create role {role} login replication password 'secret'"));
        }
        server.sql("set password_encryption = 'md5'; create role hashed login replication password 'secret'");
        let client = reachable(Path::new(env!("CARGO_BIN_EXE_backstop-client")), scratch.path());
        let alias = scratch.path().join("pg_basebackup");
        fs::rename(client, &alias).unwrap();
        Some(Self { installation, server, client: alias, scratch })
    }

    fn path(&self, name: &str) -> String {
        self.scratch.path().join(name).to_str().unwrap().to_owned()
    }

    /// Ours or the real one, with an environment and a connection string in which `{port}` and `{dir}` stand for ours.
    fn command(&self, program: &Path, environment: &[(&str, &str)], conninfo: &str) -> Command {
        let fill = |text: &str| {
            text.replace("{port}", &self.server.port().to_string())
                .replace("{dir}", self.scratch.path().to_str().unwrap())
                .replace("{socket}", self.server.socket().to_str().unwrap())
        };
        let mut command = self.installation.command(program);
        command.env("HOME", self.scratch.path()).args(["-D", &self.path("backup"), "-Xnone", "-cfast", "-N", "-d"]);
        command.arg(fill(conninfo)).envs(environment.iter().map(|(name, value)| (*name, fill(value))));
        command
    }

    /// What the server logged of the session that takes a backup like this.
    fn logged(&self, environment: &[(&str, &str)], conninfo: &str) -> String {
        let before = self.server.log().len();
        succeed(&mut self.command(&self.client, environment, conninfo));
        assert!(self.scratch.path().join("backup/backup_manifest").exists());
        fs::remove_dir_all(self.scratch.path().join("backup")).unwrap();
        let log = self.server.log();
        let line = log[before..].lines().find(|line| line.contains("connection authorized: ")).unwrap();
        line.split_once("connection authorized: ").unwrap().1.to_owned()
    }

    fn said(&self, program: &Path, environment: &[(&str, &str)], conninfo: &str) -> String {
        let output = self.command(program, environment, conninfo).arg("-w").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{conninfo}: {output:?}");
        assert!(!self.scratch.path().join("backup").exists(), "{conninfo}");
        stderr(&output)
    }

    /// What ours says of a login that fails, which the real one says, too.
    fn same(&self, environment: &[(&str, &str)], conninfo: &str) -> String {
        let ours = self.said(&self.client, environment, conninfo);
        let theirs = self.said(&self.installation.path("pg_basebackup"), environment, conninfo);
        let (ours, theirs) = (self.anonymous(&ours), self.anonymous(&theirs));
        assert_eq!(ours, theirs, "{conninfo}");
        ours
    }

    fn anonymous(&self, text: &str) -> String {
        text.replace(self.scratch.path().to_str().unwrap(), "{dir}")
            .replace(&format!("port {}", self.server.port()), "port {port}")
            .replace(&format!(".s.PGSQL.{}", self.server.port()), ".s.PGSQL.{port}")
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn logs_in_by_every_method() {
    let Some(setup) = Setup::new("logging in to a real server") else { return };
    let tls = "SSL enabled (protocol=TLSv1.3, cipher=TLS_AES_256_GCM_SHA384, bits=256)";
    let logged = |environment: &[(&str, &str)], conninfo: &str| setup.logged(environment, conninfo);
    let at = "host=localhost hostaddr=127.0.0.1 port={port}";
    let full = "sslmode=verify-full sslrootcert={dir}/ca.pem";
    let with = |rest: &str| logged(&[], &format!("{at} {rest}"));

    let said = with(&format!("user=scram password=secret {full} channel_binding=require"));
    assert_eq!(said, format!("user=scram application_name=pg_basebackup {tls}"));
    // By default, TLS is taken where it is offered; rules that forbid it are obeyed.
    assert!(with("user=scram password=secret").ends_with(tls));
    assert_eq!(with("user=plain password=secret"), "user=plain application_name=pg_basebackup");
    assert!(with("user=scram password=secret sslmode=allow").ends_with(tls));
    assert_eq!(with("user=hashed password=secret sslmode=allow"), "user=hashed application_name=pg_basebackup");
    assert_eq!(with("user=hashed password=secret sslmode=disable"), "user=hashed application_name=pg_basebackup");
    assert!(with("user=clear password=secret sslmode=require require_auth=password").ends_with(tls));
    assert!(with("user=scram password=secret require_auth=!md5,!password channel_binding=disable").ends_with(tls));
    let old = with(&format!("user=scram password=secret {full} ssl_max_protocol_version=TLSv1.2"));
    assert!(old.contains("TLSv1.2"), "{old}");
    // A certificate of one's own.
    let own = "sslcert={dir}/cert.pem sslkey={dir}/cert.key";
    assert!(with(&format!("user=cert {full} {own}")).ends_with(tls));
    // The server's certificate is for a name; verify-ca asks for none.
    assert!(with("user=trusted sslmode=verify-ca sslrootcert={dir}/ca.pem host=elsewhere").ends_with(tls));
    // Never on a Unix socket, whatever the mode.
    let said = logged(&[], "host={socket} port={port} user=trusted sslmode=verify-full requirepeer=postgres");
    assert_eq!(said, "user=trusted application_name=pg_basebackup");
}

#[test]
fn parameters_come_from_everywhere() {
    let Some(setup) = Setup::new("connection parameters for a real server") else { return };
    let plain = |user: &str, name: &str| format!("user={user} application_name={name}");
    let base = [("PGHOST", "127.0.0.1"), ("PGPORT", "{port}"), ("PGSSLMODE", "disable")];
    let with = |more: &[(&str, &str)], conninfo: &str| setup.logged(&[base.as_slice(), more].concat(), conninfo);
    let more = [("PGUSER", "hashed"), ("PGPASSWORD", "secret"), ("PGAPPNAME", "from the environment")];
    assert_eq!(with(&more, ""), plain("hashed", "from the environment"));
    assert_eq!(with(&more, "user=plain application_name=said"), plain("plain", "said"), "what is said counts");
    let uri = "postgresql://plain:secret@localhost:{port}/?hostaddr=127.0.0.1&application_name=a%20uri";
    assert_eq!(with(&[], uri), plain("plain", "a uri"));

    // A service, and below it the password file, in which `replication` is the database.
    let file = |name: &str, text: String, mode| {
        let path = setup.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        setup.installation.give(Path::new(&path));
    };
    let port = setup.server.port();
    file(
        "services",
        format!("[other]\nuser=x\n[mine]\n# ours\nuser=hashed\nport={port}\napplication_name=service\n"),
        0o644,
    );
    file(".pgpass", format!("127.0.0.1:{port}:postgres:*:no\n*:{port}:replication:hashed:secret\n"), 0o600);
    let service = [("PGSERVICEFILE", "{dir}/services"), ("PGSERVICE", "mine"), ("PGPORT", "1")];
    assert_eq!(with(&service, ""), plain("hashed", "service"));
    assert_eq!(with(&service[..1], "service=mine"), plain("hashed", "service"));
    file("open", "*:*:*:*:secret\n".to_owned(), 0o644);
    let said = [
        setup.same(&base, "user=hashed passfile={dir}/open"),
        setup.same(&base, "user=plain passfile={dir}/none"),
        setup.same(&base, "user=hashed service=none"),
        setup.same(&service[..1], "service=none"),
        setup.same(&[base.as_slice(), &[("PGOPTIONS", "-c log_statement=all")]].concat(), "user=trusted"),
    ];
    insta::assert_snapshot!(said.concat(), @r#"
    WARNING: password file "{dir}/open" has group or world access; permissions should be u=rw (0600) or less
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: fe_sendauth: no password supplied
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: fe_sendauth: no password supplied
    pg_basebackup: error: definition of service "none" not found
    pg_basebackup: error: definition of service "none" not found
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: FATAL:  permission denied to set parameter "log_statement"
    "#);
    file("wrong", "*:*:*:*:wrong\n".to_owned(), 0o600);
    insta::assert_snapshot!(setup.same(&base, "user=hashed passfile={dir}/wrong"), @r#"
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: FATAL:  password authentication failed for user "hashed"
    password retrieved from file "{dir}/wrong"
    "#);
}

#[test]
fn refuses_in_the_words_of_libpq() {
    let Some(setup) = Setup::new("words about a real server") else { return };
    let at = "host=localhost hostaddr=127.0.0.1 port={port}";
    let same = |rest: &str| setup.same(&[], &format!("{at} {rest}"));
    // Connections are accepted, and that is all.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap();
    let said = [
        same("user=scram password=wrong sslmode=require"),
        same("user=scram password=wrong"),
        same("user=scram password=secret sslmode=disable"),
        same("user=plain password=secret sslmode=require"),
        same("user=scram sslmode=require"),
        same("user=nobody sslmode=disable"),
        same("user=hashed password=secret sslmode=disable channel_binding=require"),
        same("user=trusted sslmode=disable channel_binding=require"),
        same("user=plain password=secret sslmode=disable channel_binding=require"),
        same("user=trusted sslmode=verify-full sslrootcert={dir}/ca.pem host=elsewhere"),
        same("user=cert sslmode=require"),
        same("user=cert sslmode=require sslcert={dir}/cert.pem"),
        same("user=cert sslmode=require sslcert={dir}/cert.pem sslkey={dir}/open.key"),
        same("sslmode=secure"),
        same("user=trusted channel_binding=yes"),
        same("user=trusted target_session_attrs=read-only sslmode=disable"),
        same("user=trusted target_session_attrs=standby sslmode=disable"),
        same("nosuch=1"),
        setup.same(&[], "host={socket} port=1 user=trusted"),
        setup.same(&[], "host={socket},127.0.0.1 port=1,2 user=trusted"),
        setup.same(&[], "host=127.0.0.1 port=99999"),
        setup.same(&[], "host=a,b,c port=1,2"),
        setup.same(&[], "host=a,b hostaddr=127.0.0.1"),
        setup.same(&[], "host=nosuch.invalid user=trusted"),
        setup.same(&[], "postgresql://[::1/x"),
        setup.same(&[], "host='x"),
        setup.same(&[], "host={socket} port={port} user=trusted requirepeer=nobody"),
        setup.same(&[], "host=@backstop-nobody port=1 user=trusted"),
        setup.same(&[], "host=localhost port=1 user=trusted"),
        setup.same(&[], "host=127.0.0.1 port=5432x user=trusted"),
        same("user=trusted connect_timeout=x"),
        same("user=trusted keepalives=x"),
        same("user=trusted keepalives_idle=x"),
        same("user=trusted keepalives_idle=99999999"),
        same("user=trusted keepalives_count=1000"),
        same("user=trusted tcp_user_timeout=x"),
        setup.same(&[], &format!("host=127.0.0.1 port={} user=trusted connect_timeout=2", silent.port())),
    ];
    let said = said.concat().replace(&format!("port {} ", silent.port()), "port {silent} ");
    insta::assert_snapshot!(said, @r#"
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: FATAL:  password authentication failed for user "scram"
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: FATAL:  password authentication failed for user "scram"
    connection to server at "127.0.0.1", port {port} failed: FATAL:  no pg_hba.conf entry for replication connection from host "127.0.0.1", user "scram", no encryption
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: FATAL:  no pg_hba.conf entry for replication connection from host "127.0.0.1", user "scram", no encryption
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: FATAL:  no pg_hba.conf entry for replication connection from host "127.0.0.1", user "plain", SSL encryption
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: fe_sendauth: no password supplied
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: FATAL:  no pg_hba.conf entry for replication connection from host "127.0.0.1", user "nobody", no encryption
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: channel binding required but not supported by server's authentication request
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: channel binding required, but server authenticated client without channel binding
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: channel binding required, but SSL not in use
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: server certificate for "localhost" does not match host name "elsewhere"
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: FATAL:  connection requires a valid client certificate
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: certificate present, but not private key file "{dir}/.postgresql/postgresql.key"
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: private key file "{dir}/open.key" has group or world access; file must have permissions u=rw (0600) or less if owned by the current user, or permissions u=rw,g=r (0640) or less if owned by root
    pg_basebackup: error: invalid sslmode value: "secure"
    pg_basebackup: error: invalid channel_binding value: "yes"
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: session is not read-only
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: server is not in hot standby mode
    pg_basebackup: error: invalid connection option "nosuch"
    pg_basebackup: error: connection to server on socket "{dir}/s/.s.PGSQL.1" failed: No such file or directory
    	Is the server running locally and accepting connections on that socket?
    pg_basebackup: error: connection to server on socket "{dir}/s/.s.PGSQL.1" failed: No such file or directory
    	Is the server running locally and accepting connections on that socket?
    connection to server at "127.0.0.1", port 2 failed: Connection refused
    	Is the server running on that host and accepting TCP/IP connections?
    pg_basebackup: error: invalid port number: "99999"
    pg_basebackup: error: could not match 2 port numbers to 3 hosts
    pg_basebackup: error: could not match 2 host names to 1 hostaddr values
    pg_basebackup: error: could not translate host name "nosuch.invalid" to address: Name or service not known
    pg_basebackup: error: end of string reached when looking for matching "]" in IPv6 host address in URI: "postgresql://[::1/x"
    pg_basebackup: error: unterminated quoted string in connection info string
    pg_basebackup: error: connection to server on socket "{dir}/s/.s.PGSQL.{port}" failed: requirepeer specifies "nobody", but actual peer user name is "postgres"
    pg_basebackup: error: connection to server on socket "@backstop-nobody/.s.PGSQL.1" failed: Connection refused
    	Is the server running locally and accepting connections on that socket?
    pg_basebackup: error: connection to server at "localhost" (127.0.0.1), port 1 failed: Connection refused
    	Is the server running on that host and accepting TCP/IP connections?
    pg_basebackup: error: invalid integer value "5432x" for connection option "port"
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: invalid integer value "x" for connection option "connect_timeout"
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: invalid integer value "x" for connection option "keepalives"
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: invalid integer value "x" for connection option "keepalives_idle"
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: setsockopt(TCP_KEEPIDLE) failed: Invalid argument
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: setsockopt(TCP_KEEPCNT) failed: Invalid argument
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: invalid integer value "x" for connection option "tcp_user_timeout"
    pg_basebackup: error: connection to server at "127.0.0.1", port {silent} failed: timeout expired
    "#);
    // What libpq has OpenSSL say, and what came after 15.
    let ours = |rest: &str| setup.anonymous(&setup.said(&setup.client, &[], &format!("{at} {rest}")));
    let ca = "sslmode=verify-ca sslrootcert={dir}/ca.pem";
    let said = [
        ours(&format!("user=trusted {ca} sslcrl={{dir}}/revoked.pem")),
        ours(&format!("user=trusted {ca} sslcrldir={{dir}}/revoked")),
        ours("user=trusted sslmode=require sslcertmode=require"),
        ours("user=trusted sslmode=disable sslcertmode=require"),
        ours("user=cert sslmode=require sslcert={dir}/cert.pem sslkey={dir}/cert.key sslcertmode=disable"),
        ours("user=trusted sslmode=verify-full sslrootcert={dir}/other.pem"),
        ours("user=trusted sslmode=require sslrootcert={dir}/ca.pem sslcrl={dir}/none"),
        ours("user=trusted sslmode=require sslrootcert={dir}/other.pem"),
        ours("user=trusted sslmode=require require_auth=scram-sha-256"),
        ours("user=clear sslmode=require require_auth=scram-sha-256,md5"),
        ours("user=trusted sslmode=require sslnegotiation=direct"),
        ours("user=trusted gssencmode=require"),
        ours("user=trusted sslmode=verify-ca"),
    ];
    insta::assert_snapshot!(said.concat(), @r#"
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: SSL error: certificate verify failed: Revoked
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: SSL error: certificate verify failed: Revoked
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: server accepted connection without a valid SSL certificate
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: server did not request an SSL certificate
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: FATAL:  connection requires a valid client certificate
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: SSL error: certificate verify failed: UnknownIssuer
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: could not read certificate revocation list file "{dir}/none": No such file or directory
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: SSL error: certificate verify failed: UnknownIssuer
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: authentication method requirement "scram-sha-256" failed: server did not complete authentication
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: authentication method requirement "scram-sha-256,md5" failed: server requested a cleartext password
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: SSL SYSCALL error: EOF detected
    pg_basebackup: error: gssencmode value "require" invalid when GSSAPI support is not compiled in
    pg_basebackup: error: connection to server at "127.0.0.1", port {port} failed: root certificate file "{dir}/.postgresql/root.crt" does not exist
    Either provide the file, use the system's trusted roots with sslrootcert=system, or change sslmode to disable server certificate verification.
    "#);
}

/// Passes bytes on from a socket in the abstract namespace to the server's.
fn serve_abstract(name: &str, socket: PathBuf) {
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), UnixStream::connect(&socket).unwrap());
            let pass = |mut from: UnixStream, mut to: UnixStream| {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Write);
            };
            let (back, forth) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || pass(back, forth));
            std::thread::spawn(move || pass(client, server));
        }
    });
}

#[test]
fn every_parameter_has_its_effect() {
    let Some(setup) = Setup::new("parameters of a connection") else { return };
    let by_socket = "user=trusted application_name=pg_basebackup";
    let port = setup.server.port();
    let name = format!("backstop-test-{port}");
    serve_abstract(&format!("{name}/.s.PGSQL.{port}"), setup.server.socket().join(format!(".s.PGSQL.{port}")));
    assert_eq!(setup.logged(&[], &format!("host=@{name} port={port} user=trusted")), by_socket);
    // All addresses of a name are tried, whichever comes first.
    assert!(setup.logged(&[], "host=localhost port={port} user=trusted sslmode=disable") == by_socket);
    // What is for TCP alone is nobody's matter on a socket.
    assert_eq!(
        setup.logged(&[], "host={socket} port={port} user=trusted keepalives_idle=x tcp_user_timeout=x"),
        by_socket
    );
    let at = "host=localhost hostaddr=127.0.0.1 port={port}";
    let with = |rest: &str| setup.logged(&[], &format!("{at} {rest}"));
    assert_eq!(with("user=trusted sslmode=disable client_encoding=auto connect_timeout=' 30 '"), by_socket);
    let settings = "keepalives_idle=30 keepalives_interval=5 keepalives_count=3 tcp_user_timeout=60000";
    assert_eq!(with(&format!("user=trusted sslmode=disable {settings}")), by_socket);
    assert_eq!(with("user=trusted sslmode=disable keepalives=0 keepalives_idle=99999999"), by_socket);
    assert_eq!(with("user=trusted sslmode=disable options='-c geqo=off' load_balance_hosts=random"), by_socket);
    let environment = [("PGPASSFILE", "{dir}/pass"), ("PGSSLMODE", "disable")];
    let pass = setup.path("pass");
    fs::write(&pass, "localhost:*:replication:hashed:secret\n").unwrap();
    fs::set_permissions(&pass, Permissions::from_mode(0o600)).unwrap();
    setup.installation.give(Path::new(&pass));
    let said = setup.logged(&environment, &format!("{at} user=hashed"));
    assert_eq!(said, "user=hashed application_name=pg_basebackup");
    for mode in [0o640, 0o604, 0o660] {
        fs::set_permissions(&pass, Permissions::from_mode(mode)).unwrap();
        let said = setup.same(&environment, &format!("{at} user=hashed"));
        assert!(
            said.contains("has group or world access") && said.contains("no password supplied"),
            "{mode:o}: {said}"
        );
    }
    // A list that revokes others is no hindrance; nor is a directory that is not there.
    let tls = "SSL enabled";
    let ca = "user=trusted sslmode=verify-ca sslrootcert={dir}/ca.pem";
    assert!(with(&format!("{ca} sslcrldir={{dir}}/unrelated")).contains(tls));
    assert!(with(&format!("{ca} sslcrldir={{dir}}/nowhere")).contains(tls));
    let own = "user=cert sslmode=require sslcert={dir}/cert.pem";
    assert!(with(&format!("{own} sslkey={{dir}}/cert.key sslcertmode=require")).contains(tls));
    // A password of a key that has none is not used.
    assert!(with(&format!("{own} sslkey={{dir}}/cert.key sslpassword=unused")).contains(tls));
}

#[test]
fn a_key_may_have_a_password() {
    let Some(setup) = Setup::new("a key with a password") else { return };
    let locked = setup.path("locked.key");
    let mut openssl = Command::new("openssl");
    openssl.args(["pkcs8", "-topk8", "-passout", "pass:geheim", "-in", &setup.path("cert.key"), "-out", &locked]);
    if openssl.output().is_err() {
        println!("skipped: a key with a password: no program \"openssl\", which makes one");
        return;
    }
    fs::set_permissions(&locked, Permissions::from_mode(0o600)).unwrap();
    setup.installation.give(Path::new(&locked));
    let own = "host=localhost hostaddr=127.0.0.1 port={port} user=cert sslmode=require sslcert={dir}/cert.pem sslkey={dir}/locked.key";
    assert!(setup.logged(&[], &format!("{own} sslpassword=geheim")).contains("SSL enabled"));
    let wrong = setup.same(&[], &format!("{own} sslpassword=falsch"));
    assert!(wrong.contains("could not load private key file \"{dir}/locked.key\": bad decrypt"), "{wrong}");
    let none = setup.said(&setup.client, &[], own);
    assert!(none.contains("it is encrypted, and there is no password (see sslpassword)"), "{none}");
}

#[test]
fn the_first_host_that_will_do_is_taken() {
    let Some(setup) = Setup::new("one of several hosts") else { return };
    let logged = |conninfo: &str| setup.logged(&[], conninfo);
    let by_socket = "user=trusted application_name=pg_basebackup";
    assert_eq!(logged("host=127.0.0.1,{socket},nosuch.invalid port=1,{port},2 user=trusted"), by_socket);
    assert_eq!(logged("host=nosuch.invalid,{socket} port={port} user=trusted connect_timeout=60"), by_socket);
    assert_eq!(logged("host={socket} port={port} user=trusted target_session_attrs=primary"), by_socket);
    assert_eq!(
        logged("host={socket},{socket} port={port} user=trusted target_session_attrs=prefer-standby"),
        by_socket
    );
    let random = "host={socket},{socket},{socket} port=1,{port},2 user=trusted load_balance_hosts=random";
    for _ in 0..3 {
        assert_eq!(logged(random), by_socket);
    }
}

#[test]
fn a_person_is_asked_without_showing_the_answer() {
    let Some(setup) = Setup::new("a prompt for a password") else { return };
    if !terminal::at_hand("a prompt for a password") {
        return;
    }
    let typed = |setup: &Setup, arguments: &str, answer: &[u8]| {
        let program = format!("{} {arguments}", setup.client.display());
        let mut command = setup.installation.command("script");
        command.env("HOME", setup.scratch.path());
        let (shown, status) = terminal::run(command, &program, &[("Password: ", answer)]);
        (shown, status.success())
    };
    let port = setup.server.port();
    let base = format!("-h 127.0.0.1 -p {port} -U hashed -Xnone -cfast -N");
    // Asked because the server asked; because of -W; not at all with -w.
    let (shown, success) = typed(&setup, &format!("{base} -D {}", setup.path("one")), b"secret\n");
    assert!(success && shown.contains("Password: ") && !shown.contains("secret"), "{shown}");
    let (shown, success) = typed(&setup, &format!("{base} -W -D {}", setup.path("two")), b"wrong\n");
    assert!(!success && shown.contains("password authentication failed for user \"hashed\""), "{shown}");
    let (shown, success) = typed(&setup, &format!("{base} -w -D {}", setup.path("two")), b"");
    assert!(!success && shown.contains("fe_sendauth: no password supplied"), "{shown}");
    // An interrupt at the prompt ends it, whether it is the first thing or comes after an attempt.
    for more in ["", "-W"] {
        let (shown, success) = typed(&setup, &format!("{base} {more} -D {}", setup.path("two")), b"\x03");
        assert!(!success && shown.contains("canceled by interrupt signal"), "{shown}");
    }
    assert!(!Path::new(&setup.path("two")).exists());
}
