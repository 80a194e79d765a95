//! Connection strings, environment variables and password files, by libpq's rules.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::connector::Address;

/// A parameter that is understood, and the environment variable that stands in for it.
///
/// In the order of `PQconninfoOptions`, which is also the order in `primary_conninfo`.
const KEYWORDS: [(&str, Option<&str>); 25] = [
    ("user", Some("PGUSER")),
    ("password", Some("PGPASSWORD")),
    ("passfile", Some("PGPASSFILE")),
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("dbname", Some("PGDATABASE")),
    ("host", Some("PGHOST")),
    ("hostaddr", Some("PGHOSTADDR")),
    ("port", Some("PGPORT")),
    ("client_encoding", Some("PGCLIENTENCODING")),
    ("options", Some("PGOPTIONS")),
    ("application_name", Some("PGAPPNAME")),
    ("fallback_application_name", None),
    ("keepalives", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("keepalives_count", None),
    ("tcp_user_timeout", None),
    ("sslmode", Some("PGSSLMODE")),
    ("sslnegotiation", Some("PGSSLNEGOTIATION")),
    ("sslcompression", None),
    ("gssencmode", Some("PGGSSENCMODE")),
    ("replication", None),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    ("load_balance_hosts", Some("PGLOADBALANCEHOSTS")),
];

/// A connection string or a parameter that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConninfoError(pub String);

fn refuse<T>(problem: impl Into<String>) -> Result<T, ConninfoError> {
    Err(ConninfoError(problem.into()))
}

/// Connection parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conninfo {
    values: BTreeMap<&'static str, String>,
}

impl Conninfo {
    /// Reads `text`: a URI, a string of `key=value` pairs, or, without an equals sign, the name of a database.
    pub fn parse(text: &str) -> Result<Self, ConninfoError> {
        let mut conninfo = Self::default();
        if let Some(rest) = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
            conninfo.parse_uri(rest)?;
        } else if text.contains('=') {
            conninfo.parse_pairs(text)?;
        } else {
            conninfo.set("dbname", text)?;
        }
        Ok(conninfo)
    }

    /// Sets a parameter; the last value counts.
    pub fn set(&mut self, keyword: &str, value: &str) -> Result<(), ConninfoError> {
        let known = KEYWORDS.iter().find(|(known, _)| *known == keyword);
        let Some((keyword, _)) = known else { return refuse(format!("invalid connection option \"{keyword}\"")) };
        if value.contains('\0') {
            return refuse(format!("invalid value of connection option \"{keyword}\""));
        }
        self.values.insert(keyword, value.to_owned());
        Ok(())
    }

    /// The value of a parameter, if it is set and not empty.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.values.get(keyword).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Sets what is not set from environment variables.
    pub fn fill_from(&mut self, environment: impl Fn(&str) -> Option<String>) {
        for (keyword, variable) in KEYWORDS {
            if !self.values.contains_key(keyword)
                && let Some(value) = variable.and_then(&environment)
            {
                self.values.insert(keyword, value);
            }
        }
    }

    /// Refuses what would be ignored although it matters.
    pub fn check(&self) -> Result<(), ConninfoError> {
        let supported: [(&str, &[&str]); 6] = [
            ("sslmode", &["disable", "allow", "prefer"]),
            ("gssencmode", &["disable", "prefer"]),
            ("channel_binding", &["disable", "prefer"]),
            ("sslnegotiation", &["postgres"]),
            ("target_session_attrs", &["any"]),
            ("load_balance_hosts", &["disable"]),
        ];
        for (keyword, values) in supported {
            if let Some(value) = self.get(keyword)
                && !values.contains(&value)
            {
                return refuse(format!("{keyword} value \"{value}\" is not supported"));
            }
        }
        self.connect_timeout().map(|_| ())
    }

    /// The time that a connection may take.
    pub fn connect_timeout(&self) -> Result<Option<Duration>, ConninfoError> {
        let Some(text) = self.get("connect_timeout") else { return Ok(None) };
        match text.trim().parse::<i64>() {
            Ok(seconds) if seconds <= 0 => Ok(None),
            // A single second is too likely to be cut to none.
            Ok(seconds) => Ok(Some(Duration::from_secs(seconds.unsigned_abs().max(2)))),
            Err(_) => refuse(format!("invalid integer value \"{text}\" for connection option \"connect_timeout\"")),
        }
    }

    /// Where to connect. Hosts and ports may be lists; one port serves all hosts.
    pub fn addresses(&self) -> Result<Vec<Address>, ConninfoError> {
        let hosts = self.get("hostaddr").or_else(|| self.get("host")).unwrap_or_default();
        let ports: Vec<&str> = self.get("port").unwrap_or_default().split(',').collect();
        let hosts: Vec<&str> = hosts.split(',').collect();
        if ports.len() != 1 && ports.len() != hosts.len() {
            let (ports, hosts) = (ports.len(), hosts.len());
            return refuse(format!("could not match {ports} port numbers to {hosts} hosts"));
        }
        let default = default_host();
        let address = |(index, host): (usize, &&str)| {
            let port = ports.get(index).or(ports.first()).copied().unwrap_or_default();
            let port = if port.is_empty() { Ok(5432) } else { port.trim().parse::<u16>() };
            match port {
                Ok(port) if port > 0 => Ok(Address::new(if host.is_empty() { &default } else { host }, port)),
                _ => refuse("invalid port number"),
            }
        };
        hosts.iter().enumerate().map(address).collect()
    }

    /// The role to log in as: as given, or named like the operating system's user.
    pub fn user(&self) -> Result<String, ConninfoError> {
        if let Some(user) = self.get("user") {
            return Ok(user.to_owned());
        }
        let id = rustix::process::getuid().as_raw().to_string();
        let names = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let entry = names.lines().find(|line| line.split(':').nth(2) == Some(&id));
        let name = entry.and_then(|line| line.split(':').next()).map(str::to_owned);
        name.map_or_else(|| refuse(format!("could not look up local user ID {id}: user does not exist")), Ok)
    }

    /// The password: as given, or from the password file.
    pub fn password(&self, database: &str, user: &str) -> Option<String> {
        if let Some(password) = self.get("password") {
            return Some(password.to_owned());
        }
        let default = || std::env::home_dir().map(|home| home.join(".pgpass"));
        let file = self.get("passfile").map(PathBuf::from).or_else(default)?;
        let text = read_password_file(&file)?;
        let addresses = self.addresses().ok()?;
        addresses.iter().find_map(|address| password_for(&text, address, database, user))
    }

    /// The parameters in the form that `primary_conninfo` takes: without those that say what this connection is for.
    pub fn to_primary_conninfo(&self) -> String {
        let skipped = ["dbname", "replication", "fallback_application_name"];
        let pairs = KEYWORDS.iter().filter(|(keyword, _)| !skipped.contains(keyword));
        let pairs = pairs.filter_map(|(keyword, _)| Some(format!("{keyword}={}", quoted(self.get(keyword)?))));
        pairs.collect::<Vec<_>>().join(" ")
    }

    fn parse_pairs(&mut self, text: &str) -> Result<(), ConninfoError> {
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let Some((keyword, after)) = rest.split_once('=') else {
                return refuse(format!("missing \"=\" after \"{}\" in connection info string", rest.trim_end()));
            };
            let keyword = keyword.trim_end();
            if keyword.contains(char::is_whitespace) {
                let first = keyword.split_whitespace().next().unwrap_or_default();
                return refuse(format!("missing \"=\" after \"{first}\" in connection info string"));
            }
            let (value, after) = take_value(after.trim_start())?;
            self.set(keyword, &value)?;
            rest = after.trim_start();
        }
        Ok(())
    }

    fn parse_uri(&mut self, rest: &str) -> Result<(), ConninfoError> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        for (keyword, value) in [("user", user), ("password", password), ("dbname", database)] {
            if !value.is_empty() {
                self.set(keyword, &decode_percent(value)?)?;
            }
        }
        if !hosts.is_empty() {
            let (mut names, mut ports) = (Vec::new(), Vec::new());
            for host in hosts.split(',') {
                let (name, port) = split_host(host)?;
                names.push(decode_percent(name)?);
                ports.push(port);
            }
            self.set("host", &names.join(","))?;
            if ports.iter().any(|port| !port.is_empty()) {
                self.set("port", &ports.join(","))?;
            }
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let Some((keyword, value)) = pair.split_once('=') else {
                return refuse(format!("missing key/value separator \"=\" in URI query parameter: \"{pair}\""));
            };
            self.set(&decode_percent(keyword)?, &decode_percent(value)?)?;
        }
        Ok(())
    }
}

/// The directory of Unix sockets: where packages put it if that exists, else where the source puts it.
fn default_host() -> String {
    let packaged = "/var/run/postgresql";
    if Path::new(packaged).is_dir() { packaged.to_owned() } else { "/tmp".to_owned() }
}

/// A value, quoted or not, and what follows it.
fn take_value(text: &str) -> Result<(String, &str), ConninfoError> {
    let mut value = String::new();
    let quoted = text.starts_with('\'');
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((index, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted => return Ok((value, text.get(index + 1..).unwrap_or_default())),
            c if !quoted && c.is_whitespace() => return Ok((value, text.get(index..).unwrap_or_default())),
            c => value.push(c),
        }
    }
    if quoted { refuse("unterminated quoted string in connection info string") } else { Ok((value, "")) }
}

/// `host`, `host:port`, `[::1]:port`.
fn split_host(text: &str) -> Result<(&str, &str), ConninfoError> {
    if let Some(inner) = text.strip_prefix('[') {
        let Some((host, after)) = inner.split_once(']') else {
            return refuse(format!(
                "end of string reached when looking for matching \"]\" in IPv6 host address in URI: \"{text}\""
            ));
        };
        let port = after.strip_prefix(':').unwrap_or(after);
        return Ok((host, port));
    }
    Ok(text.split_once(':').unwrap_or((text, "")))
}

fn decode_percent(text: &str) -> Result<String, ConninfoError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = rest.split_at_checked(2).and_then(|(digits, after)| {
            rest = after;
            u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
        });
        match digits {
            Some(0) => return refuse(format!("forbidden value %00 in percent-encoded value: \"{text}\"")),
            Some(byte) => bytes.push(byte),
            None => return refuse(format!("invalid percent-encoded token: \"{text}\"")),
        }
    }
    String::from_utf8(bytes).or_else(|_| refuse(format!("invalid percent-encoded token: \"{text}\"")))
}

/// A value as `appendConnStrVal` writes it.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    let escaped: String =
        value.chars().flat_map(|c| matches!(c, '\'' | '\\').then_some('\\').into_iter().chain([c])).collect();
    format!("'{escaped}'")
}

/// The password file's text. A file that others can read is ignored, as libpq does.
fn read_password_file(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    const MAX: u64 = 1 << 20;
    let file = std::fs::File::open(path).ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.mode() & 0o077 != 0 {
        return None;
    }
    let mut text = String::new();
    file.take(MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The password in the first line that fits.
fn password_for(text: &str, address: &Address, database: &str, user: &str) -> Option<String> {
    let (host, port) = match address {
        Address::Tcp { host, port } => (host.clone(), port),
        Address::Unix { directory, port } => {
            let directory = directory.display().to_string();
            (if directory == default_host() { "localhost".to_owned() } else { directory }, port)
        }
    };
    let wanted = [host, port.to_string(), database.to_owned(), user.to_owned()];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = split_fields(line);
        let password = fields.split_off(fields.len().min(4));
        let fits =
            fields.len() == 4 && fields.iter().zip(&wanted).all(|(field, wanted)| field == "*" || field == wanted);
        password.into_iter().next().filter(|_| fits)
    })
}

/// The fields of a line of a password file: colons and backslashes in them are escaped. The last one takes the rest.
fn split_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        let last = fields.len() == 5;
        let Some(field) = fields.last_mut() else { return fields };
        match c {
            '\\' => field.extend(chars.next()),
            ':' if !last => fields.push(String::new()),
            c => field.push(c),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Conninfo {
        Conninfo::parse(text).expect("a connection string")
    }

    #[test]
    fn reads_pairs() {
        let conninfo = parse(r"host = /tmp port=5433 user='o\'k' password=a\ b application_name=''");
        assert_eq!(conninfo.get("host"), Some("/tmp"));
        assert_eq!(conninfo.get("user"), Some("o'k"));
        assert_eq!(conninfo.get("password"), Some("a b"));
        assert_eq!(conninfo.get("application_name"), None);
        assert_eq!(conninfo.addresses(), Ok(vec![Address::Unix { directory: "/tmp".into(), port: 5433 }]));
        assert_eq!(parse("postgres").get("dbname"), Some("postgres"));
    }

    #[test]
    fn reads_uris() {
        let conninfo = parse("postgresql://me:p%40ss@h1:5433,[::1]/db?application_name=x&sslmode=disable");
        assert_eq!(conninfo.get("password"), Some("p@ss"));
        assert_eq!(conninfo.get("dbname"), Some("db"));
        let expected =
            vec![Address::Tcp { host: "h1".into(), port: 5433 }, Address::Tcp { host: "::1".into(), port: 5432 }];
        assert_eq!(conninfo.addresses(), Ok(expected));
        assert_eq!(parse("postgres://%2Ftmp").addresses().expect("one")[0], Address::new("/tmp", 5432));
    }

    #[test]
    fn refuses_what_it_would_ignore() {
        assert!(Conninfo::parse("hots=x").is_err());
        assert!(Conninfo::parse("host='x").is_err());
        assert!(Conninfo::parse("a b=c").is_err());
        assert!(parse("sslmode=verify-full").check().is_err());
        assert!(parse("port=0").addresses().is_err());
        assert!(parse("host=a,b,c port=1,2").addresses().is_err());
    }

    #[test]
    fn the_environment_fills_gaps() {
        let mut conninfo = parse("user=a");
        conninfo.fill_from(|name| (name == "PGUSER" || name == "PGHOST").then(|| "env".to_owned()));
        assert_eq!((conninfo.get("user"), conninfo.get("host")), (Some("a"), Some("env")));
    }

    #[test]
    fn finds_passwords() {
        let text = "# comment\nother:*:*:*:no\nh\\:1:5432:replication:me:p:w\\:d\n*:*:*:*:last\n";
        let find = |host: &str, user| password_for(text, &Address::new(host, 5432), "replication", user);
        assert_eq!(find("h:1", "me").as_deref(), Some("p:w:d"));
        assert_eq!(find("h:1", "you").as_deref(), Some("last"));
    }

    #[test]
    fn a_password_file_that_others_can_read_is_ignored() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "*:*:*:*:secret\n").expect("written");
        let mut conninfo = parse("host=h");
        conninfo.set("passfile", &file.path().display().to_string()).expect("a path");
        for (mode, expected) in [(0o600, Some("secret")), (0o640, None)] {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).expect("set");
            assert_eq!(conninfo.password("replication", "me").as_deref(), expected);
        }
    }

    #[test]
    fn writes_primary_conninfo() {
        let conninfo = parse("host=/tmp user=o\\'k port=5433 dbname=x");
        assert_eq!(conninfo.to_primary_conninfo(), r"user='o\'k' host='/tmp' port=5433");
    }

    proptest! {
        #[test]
        fn any_text_is_safe(text in ".{0,60}") {
            let _ = Conninfo::parse(&text);
            let _ = Conninfo::parse(&format!("postgresql://{text}"));
            let _ = split_fields(&text);
        }

        #[test]
        fn what_is_quoted_is_read_back(value in "[^\0]{1,20}") {
            let mut conninfo = Conninfo::default();
            conninfo.set("user", &value).expect("a known keyword");
            let read = parse(&conninfo.to_primary_conninfo());
            prop_assert_eq!(read.get("user"), Some(value.as_str()));
        }
    }
}
