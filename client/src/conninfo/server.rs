//! What the parameters say of the server: where it is, and how one logs in.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Conninfo, ConninfoError, passfile, refuse};
use crate::connector::{Address, Host, NetConnector};
use crate::keepalive::Keepalive;
use crate::login::{ChannelBinding, Login, Methods, SessionKind};
use crate::tls::{CertificateFile, Encryption, Mode, Roots, TlsParameters, TlsVersion};

impl Conninfo {
    /// Opens connections to [`hosts`](Self::hosts), as the parameters want them.
    pub fn connector(&self) -> Result<NetConnector, ConninfoError> {
        let mut connector = NetConnector::new(self.hosts()?);
        connector.keepalive(self.keepalive().map_err(|error| error.0));
        if let Err(error) = self.connect_timeout() {
            connector.refuse(error.0);
        }
        if self.get("load_balance_hosts") == Some("random") {
            connector.shuffle();
        }
        if let Some(user) = self.get("requirepeer") {
            connector.require_peer(user);
        }
        Ok(connector)
    }

    /// Where to connect. Hosts, addresses and ports may be lists; one port serves all hosts.
    pub fn hosts(&self) -> Result<Vec<Host>, ConninfoError> {
        let list = |keyword| self.get(keyword).map(|text| text.split(',').map(str::trim).collect::<Vec<_>>());
        let (names, addresses) = (list("host"), list("hostaddr"));
        let ports = list("port").unwrap_or_else(|| vec![""]);
        let count = addresses.as_ref().or(names.as_ref()).map_or(1, Vec::len);
        if let (Some(names), Some(addresses)) = (&names, &addresses)
            && names.len() != addresses.len()
        {
            let (names, addresses) = (names.len(), addresses.len());
            return refuse(format!("could not match {names} host names to {addresses} hostaddr values"));
        }
        if ports.len() != 1 && ports.len() != count {
            return refuse(format!("could not match {} port numbers to {count} hosts", ports.len()));
        }
        let at = |list: &Option<Vec<&str>>, index: usize| -> String {
            list.as_ref().and_then(|list| list.get(index)).copied().unwrap_or_default().to_owned()
        };
        let host = |index: usize| {
            let (name, address) = (at(&names, index), at(&addresses, index));
            let port = ports.get(index).or(ports.first()).copied().unwrap_or_default();
            let number = if port.is_empty() { Ok(5432) } else { port.parse::<i32>() };
            let Ok(number) = number else {
                return refuse(format!("invalid integer value \"{port}\" for connection option \"port\""));
            };
            let Some(port) = u16::try_from(number).ok().filter(|port| *port > 0) else {
                return refuse(format!("invalid port number: \"{port}\""));
            };
            if address.is_empty() {
                let name = if name.is_empty() { default_host() } else { name };
                return Ok(Host { address: Address::new(&name, port), at: None });
            }
            let Ok(at) = address.parse::<IpAddr>() else {
                return refuse(format!("could not parse network address \"{address}\": Name or service not known"));
            };
            let name = if name.is_empty() { address } else { name };
            Ok(Host { address: Address::Tcp { host: name, port }, at: Some(at) })
        };
        (0..count).map(host).collect()
    }

    /// Who logs in, and how. The program's name is `program` unless there is another one.
    ///
    /// Passwords come from the parameters; [`look_up_passwords`](Self::look_up_passwords) finds others.
    pub fn login(&self, program: &str) -> Result<Login, ConninfoError> {
        let name = self.get("application_name").or(self.get("fallback_application_name")).unwrap_or(program);
        let mut login = Login::new(self.user()?, name);
        self.get("dbname").unwrap_or("replication").clone_into(&mut login.database);
        login.password = self.get("password").map(str::to_owned);
        login.session_options = self.get("options").map(str::to_owned);
        // What is said here is said in UTF-8, whatever the locale.
        let encoding = |encoding: &str| if encoding == "auto" { "UTF8" } else { encoding }.to_owned();
        login.client_encoding = self.get("client_encoding").map(encoding);
        // What it is wrong with, the connector says.
        login.connect_timeout = self.connect_timeout().unwrap_or_default();
        login.require_certificate = self.get("sslcertmode") == Some("require");
        login.channel_binding = match self.get("channel_binding") {
            Some("disable") => ChannelBinding::Disable,
            Some("require") => ChannelBinding::Require,
            _ => ChannelBinding::Prefer,
        };
        login.methods = self.get("require_auth").map(Methods::parse).transpose().map_err(ConninfoError)?;
        login.session = match self.get("target_session_attrs") {
            Some("read-write") => SessionKind::ReadWrite,
            Some("read-only") => SessionKind::ReadOnly,
            Some("primary") => SessionKind::Primary,
            Some("standby") => SessionKind::Standby,
            Some("prefer-standby") => SessionKind::PreferStandby,
            _ => SessionKind::Any,
        };
        self.check_protocol()?;
        login.encryption = self.encryption()?;
        Ok(login)
    }

    /// Takes passwords for `login` from the password file, one for each host, if none was given. Warnings are returned.
    pub fn look_up_passwords(&self, login: &mut Login) -> Vec<String> {
        if login.password.is_some() {
            return Vec::new();
        }
        let file = self.get("passfile").map(str::to_owned).or_else(default_passfile);
        let Some(file) = file.map(PathBuf::from) else { return Vec::new() };
        let text = match passfile::read(&file) {
            Ok(text) => text,
            Err(warning) => return vec![warning],
        };
        let hosts = self.hosts().unwrap_or_default();
        let find = |host: &Host| {
            let (name, port) = match &host.address {
                Address::Tcp { host, port } => (host.clone(), port.to_string()),
                Address::Unix { directory, port } => {
                    let directory = directory.display().to_string();
                    let local = directory == default_host();
                    (if local { "localhost".to_owned() } else { directory }, port.to_string())
                }
            };
            passfile::find(&text, [&name, &port, &login.database, &login.user])
        };
        login.host_passwords = hosts.iter().map(find).collect();
        login.passfile = Some(file);
        Vec::new()
    }

    /// The role to log in as: as given, or named like the operating system's user.
    fn user(&self) -> Result<String, ConninfoError> {
        if let Some(user) = self.get("user") {
            return Ok(user.to_owned());
        }
        let id = rustix::process::getuid().as_raw();
        let unknown = || ConninfoError(format!("could not look up local user ID {id}: user does not exist"));
        crate::connector::user_name(id).ok_or_else(unknown)
    }

    /// The time that a connection to one address may take.
    fn connect_timeout(&self) -> Result<Option<Duration>, ConninfoError> {
        let seconds = self.integer("connect_timeout")?.filter(|seconds| *seconds > 0);
        // A single second is too likely to be cut to none.
        Ok(seconds.map(|seconds| Duration::from_secs(u64::from(seconds.unsigned_abs().max(2)))))
    }

    fn keepalive(&self) -> Result<Keepalive, ConninfoError> {
        let positive = |keyword| {
            let value = self.integer(keyword)?.filter(|value| *value > 0);
            Ok::<_, ConninfoError>(value.map(i32::unsigned_abs))
        };
        Ok(Keepalive {
            on: self.integer("keepalives")?.unwrap_or(1) != 0,
            idle: positive("keepalives_idle")?,
            interval: positive("keepalives_interval")?,
            count: positive("keepalives_count")?,
            user_timeout: positive("tcp_user_timeout")?,
        })
    }

    /// Protocol 3.0 is what this client speaks.
    fn check_protocol(&self) -> Result<(), ConninfoError> {
        for keyword in ["min_protocol_version", "max_protocol_version"] {
            match (keyword, self.get(keyword)) {
                (_, None | Some("3.0")) | ("max_protocol_version", Some("3.2" | "latest")) => {}
                (_, Some(value @ ("3.2" | "latest"))) => {
                    return refuse(format!("{keyword} value \"{value}\" is not supported by this client"));
                }
                (_, Some(value)) => return refuse(format!("invalid {keyword} value: \"{value}\"")),
            }
        }
        Ok(())
    }

    fn encryption(&self) -> Result<Encryption, ConninfoError> {
        let system = self.get("sslrootcert") == Some("system");
        let mode = match self.get("sslmode") {
            Some("disable") => return Ok(Encryption::DISABLE),
            Some("allow") => Mode::Allow,
            Some("require") => Mode::Require,
            Some("verify-ca") => Mode::VerifyCa,
            Some("verify-full") => Mode::VerifyFull,
            // The authorities of the system vouch for a name only.
            None if system => Mode::VerifyFull,
            _ => Mode::Prefer,
        };
        let file = |keyword: &str, default: &str| -> Option<CertificateFile> {
            if let Some(path) = self.get(keyword) {
                return Some(CertificateFile { path: path.into(), given: true });
            }
            let path = std::env::home_dir()?.join(".postgresql").join(default);
            Some(CertificateFile { path, given: false })
        };
        let certificate = self.get("sslcertmode").unwrap_or("allow");
        let parameters = TlsParameters {
            roots: if system { Roots::System } else { Roots::File(file("sslrootcert", "root.crt")) },
            revoked: file("sslcrl", "root.crl"),
            revoked_in: self.get("sslcrldir").map(PathBuf::from),
            certificate: file("sslcert", "postgresql.crt").filter(|_| certificate != "disable"),
            key: file("sslkey", "postgresql.key"),
            key_password: self.get("sslpassword").map(str::to_owned),
            oldest: self.tls_version("ssl_min_protocol_version")?,
            newest: self.tls_version("ssl_max_protocol_version")?,
            server_name: self.get("sslsni") != Some("0"),
            direct: self.get("sslnegotiation") == Some("direct"),
        };
        parameters.check().map_err(ConninfoError)?;
        Ok(Encryption { mode, tls: parameters })
    }

    fn tls_version(&self, keyword: &str) -> Result<Option<TlsVersion>, ConninfoError> {
        let Some(text) = self.get(keyword) else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            // Older ones are not spoken here: a lower bound below them bounds nothing.
            "tlsv1" | "tlsv1.1" if keyword == "ssl_min_protocol_version" => Ok(None),
            "tlsv1" | "tlsv1.1" => refuse(format!("{keyword} value \"{text}\" is not supported by this client")),
            "tlsv1.2" => Ok(Some(TlsVersion::Tls12)),
            "tlsv1.3" => Ok(Some(TlsVersion::Tls13)),
            _ => refuse(format!("invalid {keyword} value: \"{text}\"")),
        }
    }
}

/// The password file of whoever names none.
pub(super) fn default_passfile() -> Option<String> {
    Some(std::env::home_dir()?.join(".pgpass").to_str()?.to_owned())
}

/// The directory of Unix sockets: where packages put it if that exists, else where the source puts it.
fn default_host() -> String {
    let packaged = "/var/run/postgresql";
    if Path::new(packaged).is_dir() { packaged.to_owned() } else { "/tmp".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Vec<Host> {
        Conninfo::parse(text).expect("a connection string").hosts().expect("hosts")
    }

    #[test]
    fn hosts_and_ports_are_lists() {
        let tcp = |host: &str, port| Host { address: Address::Tcp { host: host.into(), port }, at: None };
        assert_eq!(hosts("postgresql://h1:5433,[::1]/db"), [tcp("h1", 5433), tcp("::1", 5432)]);
        assert_eq!(hosts("host=a,b port=1"), [tcp("a", 1), tcp("b", 1)]);
        let unix =
            |directory: &str| Host { address: Address::Unix { directory: directory.into(), port: 5432 }, at: None };
        assert_eq!(hosts("host=/tmp,@abstract"), [unix("/tmp"), unix("@abstract")]);
        assert_eq!(hosts(""), [unix(&default_host())]);
        let at = |address: &str| address.parse().ok();
        assert_eq!(
            hosts("host=a,b hostaddr=::1,127.0.0.1"),
            [Host { at: at("::1"), ..tcp("a", 5432) }, Host { at: at("127.0.0.1"), ..tcp("b", 5432) }]
        );
        assert_eq!(hosts("hostaddr=::1"), [Host { at: at("::1"), ..tcp("::1", 5432) }]);
    }

    /// What the kernel was told of a connection that this string makes: SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, and
    /// TCP_USER_TIMEOUT.
    async fn socket(text: &str) -> std::io::Result<(bool, u64, u64, u32, u32)> {
        use rustix::net::sockopt;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let text = format!("host=127.0.0.1 port={} {text}", address.port());
        let connector = Conninfo::parse(&text).expect("pairs").connector().expect("a connector");
        let stream = connector.open_tcp(address).await?;
        assert!(stream.nodelay()?, "{text}");
        Ok((
            sockopt::socket_keepalive(&stream)?,
            sockopt::tcp_keepidle(&stream)?.as_secs(),
            sockopt::tcp_keepintvl(&stream)?.as_secs(),
            sockopt::tcp_keepcnt(&stream)?,
            sockopt::tcp_user_timeout(&stream)?,
        ))
    }

    #[tokio::test]
    async fn what_is_said_of_a_socket_is_true_of_it() {
        let all = "keepalives_idle=31 keepalives_interval=7 keepalives_count=4 tcp_user_timeout=4321";
        assert_eq!(socket(all).await.expect("a connection"), (true, 31, 7, 4, 4321));
        let (on, idle, interval, count, timeout) = socket("").await.expect("a connection");
        assert!(on && timeout == 0, "the system's own");
        // libpq leaves the system's own where a value is no number above zero.
        let none = "keepalives=1 keepalives_idle=0 keepalives_interval=-1 keepalives_count=0 tcp_user_timeout=-5";
        assert_eq!(socket(none).await.expect("a connection"), (true, idle, interval, count, 0));
        // Without keepalives the rest of them is not looked at.
        let off = socket(&format!("keepalives=0 {all}")).await.expect("a connection");
        assert_eq!(off, (false, idle, interval, count, 4321));
        for wrong in ["keepalives_idle=x", "keepalives=yes", "tcp_user_timeout=1s"] {
            let error = socket(wrong).await.expect_err(wrong).to_string();
            assert!(error.starts_with("invalid integer value \""), "{wrong}: {error}");
        }
    }

    #[test]
    fn each_host_has_its_password() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "a:5432:replication:me:one\n*:5433:replication:me:two\n*:*:postgres:*:no\n")
            .expect("written");
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).expect("set");
        let text = format!("host=a,b,c port=5432,5433,5434 user=me passfile={}", file.path().display());
        let conninfo = Conninfo::parse(&text).expect("pairs");
        let mut login = conninfo.login("x").expect("a login");
        assert_eq!(conninfo.look_up_passwords(&mut login), Vec::<String>::new());
        let passwords = [0, 1, 2].map(|host| login.password_for(host));
        assert_eq!(passwords, [Some("one"), Some("two"), None]);
        login.password = Some("given".to_owned());
        assert_eq!(login.password_for(2), Some("given"));
    }
}
