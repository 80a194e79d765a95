//! Rules as `pg_hba.conf` holds them, one a line.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::Auth;

/// A line of `pg_hba.conf`: `hostssl replication backup 127.0.0.1/32 scram-sha-256`.
///
/// Connection types are `local`, `host`, `hostssl` and `hostnossl`; addresses are `all`, an address with a mask in either form; methods are
/// `trust`, `reject`, `password`, `md5` and `scram-sha-256`. Names of hosts, regular expressions, files and options of methods
/// are not known here and refused.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct HbaRule {
    line: String,
    connection: Connection,
    databases: Vec<Database>,
    users: Vec<User>,
    address: Address,
    /// None: `reject`.
    auth: Option<Auth>,
}

/// A line that is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid pg_hba.conf line {line:?}: {problem}")]
pub struct InvalidHbaRule {
    line: String,
    problem: String,
}

/// A connection as rules see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt<'a> {
    /// The client's address; none on a Unix socket.
    pub(crate) peer: Option<IpAddr>,
    /// Under TLS.
    pub(crate) encrypted: bool,
    /// Whether it asks for physical replication, which has no database.
    pub(crate) physical: bool,
    pub(crate) database: &'a str,
    pub(crate) user: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Database {
    All,
    SameUser,
    SameRole,
    Replication,
    Named(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum User {
    All,
    Named(String),
    MemberOf(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Address {
    All,
    Network { address: IpAddr, mask: IpAddr },
}

impl HbaRule {
    /// How a client that this rule matches must prove who it is. None: it is rejected.
    pub fn auth(&self) -> Option<Auth> {
        self.auth
    }

    /// Whether the rule is about this connection. `is_member` tells whether its user is a member of a role.
    pub(crate) fn matches(&self, attempt: &Attempt<'_>, is_member: impl Fn(&str) -> bool) -> bool {
        let connection = match (self.connection, attempt.peer) {
            (Connection::Local, peer) => peer.is_none(),
            (_, None) => false,
            (Connection::Host, Some(peer)) => self.address.holds(peer),
            (Connection::HostSsl, Some(peer)) => attempt.encrypted && self.address.holds(peer),
            (Connection::HostNoSsl, Some(peer)) => !attempt.encrypted && self.address.holds(peer),
        };
        let database = |database: &Database| match database {
            Database::Replication => attempt.physical,
            // No other word matches a connection that has no database.
            _ if attempt.physical => false,
            Database::All => true,
            Database::SameUser => attempt.database == attempt.user,
            Database::SameRole => is_member(attempt.database),
            Database::Named(name) => attempt.database == name,
        };
        let user = |user: &User| match user {
            User::All => true,
            User::Named(name) => attempt.user == name,
            User::MemberOf(role) => is_member(role),
        };
        connection && self.databases.iter().any(database) && self.users.iter().any(user)
    }
}

impl Address {
    fn holds(self, peer: IpAddr) -> bool {
        let Self::Network { address, mask } = self else { return true };
        match (address, mask, peer.to_canonical()) {
            (IpAddr::V4(address), IpAddr::V4(mask), IpAddr::V4(peer)) => (address & mask) == (peer & mask),
            (IpAddr::V6(address), IpAddr::V6(mask), IpAddr::V6(peer)) => (address & mask) == (peer & mask),
            _ => false,
        }
    }

    /// From `ADDRESS/BITS`.
    fn from_cidr(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits) = (address.parse().ok()?, bits.parse::<u32>().ok()?);
        let mask = match address {
            IpAddr::V4(_) => IpAddr::V4(u32::MAX.checked_shl(32_u32.checked_sub(bits)?).unwrap_or(0).into()),
            IpAddr::V6(_) => IpAddr::V6(u128::MAX.checked_shl(128_u32.checked_sub(bits)?).unwrap_or(0).into()),
        };
        Some(Self::Network { address, mask })
    }

    /// From an address and a mask that is one itself.
    fn from_mask(address: &str, mask: &str) -> Option<Self> {
        let (address, mask) = (address.parse().ok()?, mask.parse().ok()?);
        let same = matches!((address, mask), (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)));
        same.then_some(Self::Network { address, mask })
    }
}

/// A word of a line. Quoted, it is a name and nothing else.
#[derive(Clone, Debug)]
struct Token {
    text: String,
    quoted: bool,
}

/// The fields of a line, each a list whose members stand between commas. None: a quote is not closed.
fn fields(line: &str) -> Option<Vec<Vec<Token>>> {
    let mut fields: Vec<Vec<Token>> = Vec::new();
    let mut characters = line.chars().peekable();
    // Whether the last thing that was read was a comma, after which the list goes on.
    let mut goes_on = false;
    loop {
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        if characters.peek().is_none_or(|c| *c == '#') {
            return Some(fields);
        }
        if characters.next_if_eq(&',').is_some() {
            goes_on = true;
            continue;
        }
        let mut token = Token { text: String::new(), quoted: false };
        let mut inside = false;
        while let Some(c) = characters.next_if(|c| inside || !(c.is_whitespace() || *c == ',' || *c == '#')) {
            if c == '"' {
                inside = !inside;
                token.quoted = true;
            } else {
                token.text.push(c);
            }
        }
        if inside {
            return None;
        }
        match fields.last_mut() {
            Some(field) if goes_on => field.push(token),
            _ => fields.push(vec![token]),
        }
        goes_on = false;
    }
}

impl FromStr for HbaRule {
    type Err = InvalidHbaRule;

    fn from_str(line: &str) -> Result<Self, InvalidHbaRule> {
        let wrong = |problem: String| InvalidHbaRule { line: line.to_owned(), problem };
        let fields = fields(line).ok_or_else(|| wrong("a quote is not closed".to_owned()))?;
        let mut fields = fields.into_iter();
        let mut next =
            |what: &str| fields.next().ok_or_else(|| wrong(format!("end-of-line before {what} specification")));
        let single = |field: Vec<Token>, what: &str| match <[Token; 1]>::try_from(field) {
            Ok([token]) => Ok(token.text),
            Err(_) => Err(wrong(format!("multiple values specified for {what}"))),
        };
        let connection = match single(next("connection type")?, "connection type")?.as_str() {
            "local" => Connection::Local,
            "host" => Connection::Host,
            "hostssl" => Connection::HostSsl,
            "hostnossl" => Connection::HostNoSsl,
            other => return Err(wrong(format!("invalid connection type {other:?}"))),
        };
        let databases = next("database")?.into_iter().map(|token| database(token).map_err(&wrong));
        let databases = databases.collect::<Result<_, _>>()?;
        let users = next("role")?.into_iter().map(|token| user(token).map_err(&wrong));
        let users = users.collect::<Result<_, _>>()?;
        let address = if connection == Connection::Local {
            Address::All
        } else {
            let text = single(next("IP address")?, "host address")?;
            let address = match text.as_str() {
                "all" => Some(Address::All),
                _ if text.contains('/') => Address::from_cidr(&text),
                _ => Address::from_mask(&text, &single(next("netmask")?, "netmask")?),
            };
            address.ok_or_else(|| wrong(format!("invalid IP address {text:?}")))?
        };
        let auth = match single(next("authentication method")?, "authentication type")?.as_str() {
            "reject" => None,
            "trust" => Some(Auth::Trust),
            "password" => Some(Auth::Password),
            "md5" => Some(Auth::Md5),
            "scram-sha-256" => Some(Auth::ScramSha256),
            other => return Err(wrong(format!("invalid authentication method {other:?}"))),
        };
        if fields.next().is_some() {
            return Err(wrong("options of methods are not known here".to_owned()));
        }
        Ok(Self { line: line.to_owned(), connection, databases, users, address, auth })
    }
}

fn database(token: Token) -> Result<Database, String> {
    Ok(match token.text.as_str() {
        _ if token.quoted => Database::Named(token.text),
        "all" => Database::All,
        "sameuser" => Database::SameUser,
        "samerole" | "samegroup" => Database::SameRole,
        "replication" => Database::Replication,
        _ => Database::Named(name(token.text)?),
    })
}

fn user(token: Token) -> Result<User, String> {
    match token.text.strip_prefix('+') {
        Some(role) if !token.quoted => Ok(User::MemberOf(name(role.to_owned())?)),
        _ if token.quoted => Ok(User::Named(token.text)),
        _ if token.text == "all" => Ok(User::All),
        _ => Ok(User::Named(name(token.text)?)),
    }
}

/// A name without quotes, which must not mean more than itself.
fn name(text: String) -> Result<String, String> {
    match text.chars().next() {
        Some('@') => Err(format!("files are not read: {text:?}")),
        Some('/') => Err(format!("regular expressions are not known here: {text:?}")),
        _ => Ok(text),
    }
}

impl fmt::Display for HbaRule {
    /// The line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl Serialize for HbaRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.line)
    }
}

impl<'de> Deserialize<'de> for HbaRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(line: &str, attempt: Attempt<'_>) -> bool {
        let rule: HbaRule = line.parse().expect(line);
        rule.matches(&attempt, |role| role == attempt.user)
    }

    const LOCAL: Attempt<'static> =
        Attempt { peer: None, encrypted: false, physical: false, database: "postgres", user: "backup" };

    fn from(address: &str) -> Attempt<'static> {
        Attempt { peer: Some(address.parse().expect("an address")), ..LOCAL }
    }

    #[test]
    fn types_of_connections() {
        let (clear, tls) = (from("127.0.0.1"), Attempt { encrypted: true, ..from("127.0.0.1") });
        for (kind, expected) in [("host", [true, true]), ("hostssl", [false, true]), ("hostnossl", [true, false])] {
            let line = format!("{kind} all all all trust");
            assert_eq!([matches(&line, clear), matches(&line, tls)], expected, "{kind}");
            assert!(!matches(&line, LOCAL), "{kind}");
        }
        assert!(matches("local all all trust", LOCAL) && !matches("local all all trust", clear));
    }

    #[test]
    fn databases_and_users() {
        let physical = Attempt { physical: true, database: "", ..LOCAL };
        for (line, expected) in [
            ("local all all trust", [true, false]),
            ("local replication all trust", [false, true]),
            ("local all,replication all trust", [true, true]),
            ("local \"replication\" all trust", [false, false]),
            ("local postgres , replication other, backup trust # comment", [true, true]),
            ("local sameuser all trust", [false, false]),
            ("local all +backup trust", [true, false]),
            ("local all \"+backup\" trust", [false, false]),
            ("local all \"all\" trust", [false, false]),
        ] {
            assert_eq!([matches(line, LOCAL), matches(line, physical)], expected, "{line}");
        }
        assert!(matches("local sameuser all trust", Attempt { database: "backup", ..LOCAL }));
        assert!(matches("local samerole all trust", Attempt { database: "backup", ..LOCAL }));
    }

    #[test]
    fn addresses() {
        for (address, peer, expected) in [
            ("127.0.0.1/32", "127.0.0.1", true),
            ("127.0.0.1/32", "127.0.0.2", false),
            ("127.0.0.0/8", "127.1.2.3", true),
            ("0.0.0.0/0", "10.0.0.1", true),
            ("0.0.0.0/0", "::1", false),
            ("10.0.0.0 255.255.0.0", "10.0.9.9", true),
            ("::1/128", "::1", true),
            ("fe80::/10", "fe80::5", true),
            ("127.0.0.1/32", "::ffff:127.0.0.1", true),
        ] {
            assert_eq!(matches(&format!("host all all {address} trust"), from(peer)), expected, "{address} {peer}");
        }
    }

    #[test]
    fn what_is_no_rule_is_explained() {
        let lines = [
            "",
            "host",
            "net all all all trust",
            "host all all",
            "host all all 1.2.3.4 trust",
            "host all all 1.2.3.4/33 trust",
            "host all all localhost/8 trust",
            "host all all all peer",
            "local all all md5 x=y",
            "local @all all trust",
            "local /^x all trust",
            "local \"all all trust",
            "local,host all all trust",
            "local all",
        ];
        let told: Vec<_> = lines.map(|line| line.parse::<HbaRule>().expect_err(line).to_string()).into();
        insta::assert_snapshot!(told.join("\n"), @r#"
        invalid pg_hba.conf line "": end-of-line before connection type specification
        invalid pg_hba.conf line "host": end-of-line before database specification
        invalid pg_hba.conf line "net all all all trust": invalid connection type "net"
        invalid pg_hba.conf line "host all all": end-of-line before IP address specification
        invalid pg_hba.conf line "host all all 1.2.3.4 trust": invalid IP address "1.2.3.4"
        invalid pg_hba.conf line "host all all 1.2.3.4/33 trust": invalid IP address "1.2.3.4/33"
        invalid pg_hba.conf line "host all all localhost/8 trust": invalid IP address "localhost/8"
        invalid pg_hba.conf line "host all all all peer": invalid authentication method "peer"
        invalid pg_hba.conf line "local all all md5 x=y": options of methods are not known here
        invalid pg_hba.conf line "local @all all trust": files are not read: "@all"
        invalid pg_hba.conf line "local /^x all trust": regular expressions are not known here: "/^x"
        invalid pg_hba.conf line "local \"all all trust": a quote is not closed
        invalid pg_hba.conf line "local,host all all trust": multiple values specified for connection type
        invalid pg_hba.conf line "local all": end-of-line before role specification
        "#);
    }

    proptest! {
        #[test]
        fn any_line_is_safe(line in "[ -~]{0,60}") {
            if let Ok(rule) = line.parse::<HbaRule>() {
                prop_assert_eq!(rule.to_string(), line);
            }
        }
    }
}
