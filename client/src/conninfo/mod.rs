//! Connection parameters by libpq's rules: strings, services, environment variables, password files.
//!
//! | to | see |
//! |---|---|
//! | read a connection string | [`Conninfo::parse`] |
//! | fill gaps from a service and the environment | [`Conninfo::fill_from`] |
//! | connect | [`Conninfo::hosts`], [`Conninfo::login`] |

mod keyword;
mod passfile;
mod server;
mod service;
mod text;

use std::collections::BTreeMap;

use backstop_protocol::version::ServerVersion;

use self::keyword::{KEYWORDS, Keyword, UNSUPPORTED, VALUES};

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
    /// Reads `text`: a URI, or a string of `key=value` pairs.
    pub fn parse(text: &str) -> Result<Self, ConninfoError> {
        text::parse(text)
    }

    /// Sets a parameter; the last value counts.
    pub fn set(&mut self, keyword: &str, value: &str) -> Result<(), ConninfoError> {
        let known = KEYWORDS.iter().find(|known| known.name == keyword);
        let Some(Keyword { name: keyword, .. }) = known else {
            return refuse(format!("invalid connection option \"{keyword}\""));
        };
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

    /// Whether a parameter is set, if only to nothing.
    fn is_set(&self, keyword: &str) -> bool {
        self.values.contains_key(keyword)
    }

    /// Sets what is not set: from the service that is named, and then from environment variables.
    ///
    /// # Errors
    /// A service that is named and not found, or has no such parameters.
    pub fn fill_from(&mut self, environment: impl Fn(&str) -> Option<String>) -> Result<(), ConninfoError> {
        let service = self.get("service").map(str::to_owned).or_else(|| environment("PGSERVICE"));
        if let Some(name) = service {
            service::fill(self, &name, &environment)?;
        }
        for Keyword { name, variable, .. } in KEYWORDS {
            if !self.is_set(name)
                && let Some(value) = variable.and_then(&environment)
            {
                self.values.insert(name, value);
            }
        }
        // The word for it before there were modes.
        if !self.is_set("sslmode") && environment("PGREQUIRESSL").is_some_and(|value| value.starts_with('1')) {
            self.values.insert("sslmode", "require".to_owned());
        }
        Ok(())
    }

    /// Refuses values that mean nothing, contradict each other, or cannot be followed.
    pub fn check(&self) -> Result<(), ConninfoError> {
        for (keyword, values) in VALUES {
            if let Some(value) = self.get(keyword)
                && !values.contains(&value)
            {
                return refuse(format!("invalid {keyword} value: \"{value}\""));
            }
        }
        if let Some(keyword) = UNSUPPORTED.iter().find(|keyword| self.get(keyword).is_some()) {
            return refuse(format!("connection option \"{keyword}\" is not supported by this client"));
        }
        if self.get("gssencmode") == Some("require") {
            return refuse("gssencmode value \"require\" invalid when GSSAPI support is not compiled in");
        }
        let mode = self.get("sslmode");
        let weak = matches!(mode, None | Some("disable" | "allow" | "prefer"));
        if weak && self.get("sslnegotiation") == Some("direct") {
            let mode = mode.unwrap_or("prefer");
            return refuse(format!(
                "weak sslmode \"{mode}\" may not be used with sslnegotiation=direct (use \"require\", \"verify-ca\", or \
                 \"verify-full\")"
            ));
        }
        if self.get("sslrootcert") == Some("system")
            && let Some(mode) = mode.filter(|mode| *mode != "verify-full")
        {
            return refuse(format!(
                "weak sslmode \"{mode}\" may not be used with sslrootcert=system (use \"verify-full\")"
            ));
        }
        self.connector()?;
        self.login("").map(drop)
    }

    /// An integer, as libpq reads it: blanks around it are fine.
    fn integer(&self, keyword: &str) -> Result<Option<i32>, ConninfoError> {
        let Some(text) = self.get(keyword) else { return Ok(None) };
        let invalid = |_| format!("invalid integer value \"{text}\" for connection option \"{keyword}\"");
        text.trim().parse().map(Some).map_err(|error| ConninfoError(invalid(error)))
    }

    /// The parameters in the form that `primary_conninfo` takes: without those that say what this connection is for, and with
    /// the defaults of `release`, as its own `pg_basebackup` writes them. A parameter that `release` does not know is left
    /// out: a standby would not connect with it.
    ///
    /// `dbname` stands last, and since 17, when a standby may need it to synchronize slots.
    pub fn to_primary_conninfo(&self, release: ServerVersion) -> String {
        let mut pairs = Vec::new();
        let mut write = |keyword: &str, value: &str| pairs.push(format!("{keyword}={}", text::quoted(value)));
        let skipped = ["dbname", "replication", "fallback_application_name"];
        let known = |keyword: &&Keyword| keyword.since <= release && !skipped.contains(&keyword.name);
        let passfile = self.get("password").is_none().then(server::default_passfile).flatten();
        for Keyword { name, default, .. } in KEYWORDS.iter().filter(known) {
            let default = match *name {
                "sslmode" if self.get("sslrootcert") == Some("system") => Some("verify-full"),
                "sslcompression" if release < ServerVersion::V11 => Some("1"),
                "passfile" => passfile.as_deref(),
                _ => *default,
            };
            if let Some(value) = self.get(name).or(default) {
                write(name, value);
            }
        }
        if release >= ServerVersion::V17
            && let Some(database) = self.get("dbname")
        {
            write("dbname", database);
        }
        pairs.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Conninfo {
        Conninfo::parse(text).expect("a connection string")
    }

    #[test]
    fn the_environment_fills_gaps() {
        let mut conninfo = parse("user=a");
        let environment = |name: &str| match name {
            "PGUSER" | "PGHOST" | "PGDATABASE" => Some("env".to_owned()),
            "PGREQUIRESSL" => Some("1".to_owned()),
            _ => None,
        };
        conninfo.fill_from(environment).expect("no service");
        let values = ["user", "host", "dbname", "sslmode"].map(|keyword| conninfo.get(keyword));
        assert_eq!(values, [Some("a"), Some("env"), None, Some("require")]);
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        let refused = [
            "sslmode=full",
            "gssencmode=require",
            "channel_binding=yes",
            "sslnegotiation=direct",
            "sslnegotiation=direct sslmode=prefer",
            "sslrootcert=system sslmode=require",
            "sslkeylogfile=x",
            "target_session_attrs=master",
            "load_balance_hosts=yes",
            "port=0",
            "port=65536",
            "port=x",
            "host=a,b,c port=1,2",
            "host=a,b hostaddr=::1",
            "hostaddr=nonsense",
            "require_auth=scram",
            "require_auth=md5,!none",
            "require_auth=md5,md5",
            "require_auth=gss",
            "ssl_min_protocol_version=SSLv3",
            "ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
            "ssl_max_protocol_version=TLSv1.1",
            "min_protocol_version=3.2",
            "max_protocol_version=2.0",
        ];
        let said = refused.map(|text| parse(text).check().expect_err(text).to_string());
        insta::assert_snapshot!(said.join("\n"), @r#"
        invalid sslmode value: "full"
        gssencmode value "require" invalid when GSSAPI support is not compiled in
        invalid channel_binding value: "yes"
        weak sslmode "prefer" may not be used with sslnegotiation=direct (use "require", "verify-ca", or "verify-full")
        weak sslmode "prefer" may not be used with sslnegotiation=direct (use "require", "verify-ca", or "verify-full")
        weak sslmode "require" may not be used with sslrootcert=system (use "verify-full")
        connection option "sslkeylogfile" is not supported by this client
        invalid target_session_attrs value: "master"
        invalid load_balance_hosts value: "yes"
        invalid port number: "0"
        invalid port number: "65536"
        invalid integer value "x" for connection option "port"
        could not match 2 port numbers to 3 hosts
        could not match 2 host names to 1 hostaddr values
        could not parse network address "nonsense": Name or service not known
        invalid require_auth value: "scram"
        negative require_auth method "!none" cannot be mixed with non-negative methods
        require_auth method "md5" is specified more than once
        require_auth value "gss" is not supported by this client
        invalid ssl_min_protocol_version value: "SSLv3"
        invalid SSL protocol version range
        ssl_max_protocol_version value "TLSv1.1" is not supported by this client
        min_protocol_version value "3.2" is not supported by this client
        invalid max_protocol_version value: "2.0"
        "#);
        for text in ["sslmode=verify-full sslnegotiation=direct sslsni=0", "sslrootcert=system", "require_auth=!md5"] {
            assert_eq!(parse(text).check(), Ok(()), "{text}");
        }
    }

    #[test]
    fn writes_primary_conninfo() {
        let conninfo =
            parse("host=/tmp user=o\\'k password=secret dbname=x service=s replication=true sslrootcert=system");
        let releases =
            [ServerVersion::V9_1, ServerVersion::V10, ServerVersion::V12, ServerVersion::V15, ServerVersion::V18];
        insta::assert_snapshot!(releases.map(|release| conninfo.to_primary_conninfo(release)).join("\n"), @r#"
        user='o\'k' password=secret host='/tmp' port=5432 sslmode='verify-full' sslrootcert=system krbsrvname=postgres
        user='o\'k' password=secret host='/tmp' port=5432 sslmode='verify-full' sslcompression=1 sslrootcert=system krbsrvname=postgres target_session_attrs=any
        user='o\'k' password=secret host='/tmp' port=5432 sslmode='verify-full' sslcompression=0 sslrootcert=system gssencmode=prefer krbsrvname=postgres target_session_attrs=any
        user='o\'k' password=secret channel_binding=prefer host='/tmp' port=5432 sslmode='verify-full' sslcompression=0 sslrootcert=system sslsni=1 ssl_min_protocol_version=TLSv1.2 gssencmode=prefer krbsrvname=postgres target_session_attrs=any
        service=s user='o\'k' password=secret channel_binding=prefer host='/tmp' port=5432 sslmode='verify-full' sslnegotiation=postgres sslcompression=0 sslcertmode=allow sslrootcert=system sslsni=1 ssl_min_protocol_version=TLSv1.2 gssencmode=prefer krbsrvname=postgres gssdelegation=0 target_session_attrs=any load_balance_hosts=disable dbname=x
        "#);
    }
}
