//! Who logs in, and how.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::tls::Encryption;

/// What a connection says of itself, how it proves who it is, and what it asks of the server in return.
#[derive(Clone)]
pub struct Login {
    /// The role to log in as.
    pub user: String,
    /// Its password, if the server should ask.
    pub password: Option<String>,
    /// Passwords for single hosts of the connector, where there is none for all.
    pub host_passwords: Vec<Option<String>>,
    /// Where those came from.
    pub passfile: Option<PathBuf>,
    /// `database` in the StartupMessage. A physical walsender ignores it; poolers and `pg_hba.conf` may not.
    pub database: String,
    /// Whether a physical walsender is asked for, one that speaks SQL, too, in `database`, or an ordinary backend.
    pub replication: Replication,
    /// `application_name` in the StartupMessage.
    pub application_name: String,
    /// `options` in the StartupMessage.
    pub session_options: Option<String>,
    /// `client_encoding` in the StartupMessage.
    pub client_encoding: Option<String>,
    /// The time that a connection to one address may take, login included.
    pub connect_timeout: Option<Duration>,
    /// Whether and how the connection is encrypted. Not at all by default.
    pub encryption: Encryption,
    /// Whether the server must ask for a certificate and get one (`sslcertmode=require`).
    pub require_certificate: bool,
    /// Whether the password is tied to the encrypted connection.
    pub channel_binding: ChannelBinding,
    /// How the server may ask for a proof; anyhow if there is none.
    pub methods: Option<Methods>,
    /// What the server has to be.
    pub session: SessionKind,
}

/// What kind of session is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    /// None: a session that speaks SQL alone.
    Off,
    /// `replication=true`.
    Physical,
    /// `replication=database`.
    Database,
}

/// `channel_binding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where the server can.
    Prefer,
    /// Or else no login.
    Require,
}

/// `target_session_attrs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// Any server.
    Any,
    /// One that writes by default.
    ReadWrite,
    /// One that does not.
    ReadOnly,
    /// One that is not in hot standby mode.
    Primary,
    /// One that is.
    Standby,
    /// A standby, or anything if there is none among the hosts.
    PreferStandby,
}

/// A way of authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    None,
    Password,
    Md5,
    ScramSha256,
    /// Kerberos, GSSAPI, SSPI, OAuth: nothing that is spoken here.
    Foreign,
}

/// `require_auth`: what the server may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Methods {
    text: String,
    named: Vec<Method>,
    /// Whether the named ones are all but allowed.
    negated: bool,
}

impl Methods {
    /// Reads a list of methods, or of methods with `!` before each.
    ///
    /// # Errors
    /// libpq's words about a list that cannot be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut seen: Vec<&str> = Vec::new();
        let mut named = Vec::new();
        let mut negated = None;
        for entry in text.split(',').map(str::trim) {
            let (not, name) = entry.strip_prefix('!').map_or((false, entry), |name| (true, name));
            if *negated.get_or_insert(not) != not {
                let problem = if not {
                    format!("negative require_auth method \"{entry}\" cannot be mixed with non-negative methods")
                } else {
                    format!("require_auth method \"{entry}\" cannot be mixed with negative methods")
                };
                return Err(problem);
            }
            if seen.contains(&name) {
                return Err(format!("require_auth method \"{entry}\" is specified more than once"));
            }
            seen.push(name);
            named.push(match name {
                "none" => Method::None,
                "password" => Method::Password,
                "md5" => Method::Md5,
                "scram-sha-256" => Method::ScramSha256,
                "gss" | "sspi" | "oauth" => Method::Foreign,
                _ => return Err(format!("invalid require_auth value: \"{name}\"")),
            });
        }
        let methods = Self { text: text.to_owned(), named, negated: negated.unwrap_or_default() };
        if [Method::None, Method::Password, Method::Md5, Method::ScramSha256]
            .iter()
            .any(|method| methods.allows(*method))
        {
            Ok(methods)
        } else {
            Err(format!("require_auth value \"{text}\" is not supported by this client"))
        }
    }

    pub(crate) fn allows(&self, method: Method) -> bool {
        self.named.contains(&method) != self.negated
    }
}

impl fmt::Display for Methods {
    /// As it was given.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Login {
    /// A physical replication connection of `user`, in clear.
    pub fn new(user: impl Into<String>, application_name: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            password: None,
            host_passwords: Vec::new(),
            passfile: None,
            database: "replication".to_owned(),
            replication: Replication::Physical,
            application_name: application_name.into(),
            session_options: None,
            client_encoding: None,
            connect_timeout: None,
            encryption: Encryption::DISABLE,
            require_certificate: false,
            channel_binding: ChannelBinding::Prefer,
            methods: None,
            session: SessionKind::Any,
        }
    }

    /// The password for a host of the connector.
    pub(crate) fn password_for(&self, host: usize) -> Option<&str> {
        self.password.as_deref().or_else(|| self.host_passwords.get(host)?.as_deref())
    }
}

impl fmt::Debug for Login {
    /// Without the passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .field("database", &self.database)
            .field("application_name", &self.application_name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_named_or_excluded() {
        let named = Methods::parse("md5, scram-sha-256").expect("a list");
        assert!(named.allows(Method::Md5) && named.allows(Method::ScramSha256));
        assert!(!named.allows(Method::None) && !named.allows(Method::Password));
        let excluded = Methods::parse("!password,!none").expect("a list");
        assert!(excluded.allows(Method::Md5) && excluded.allows(Method::Foreign));
        assert!(!excluded.allows(Method::None) && !excluded.allows(Method::Password));
    }
}
