//! The parameters of a connection.

use backstop_protocol::version::ServerVersion;
use backstop_protocol::version::ServerVersion::{V9_1, V9_2, V10, V12, V13, V14, V16, V17, V18};

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyword {
    pub(super) name: &'static str,
    /// The environment variable that stands in for it.
    pub(super) variable: Option<&'static str>,
    /// The release whose libpq knows it first, and shows it among the parameters of a connection.
    pub(super) since: ServerVersion,
    /// What it is where nobody says otherwise.
    pub(super) default: Option<&'static str>,
}

const fn keyword(
    since: ServerVersion,
    name: &'static str,
    variable: Option<&'static str>,
    default: Option<&'static str>,
) -> Keyword {
    Keyword { name, variable, since, default }
}

/// All of them, in the order of `PQconninfoOptions` of 18, which is also the order in `primary_conninfo`. Those of OAuth, which no
/// walsender is logged in to by, are not known here. Defaults are those of a libpq that was built with everything.
///
/// PGDATABASE is left out: it names a database to work in, and a replication connection works in none.
#[rustfmt::skip]
pub(super) const KEYWORDS: [Keyword; 46] = [
    keyword(V18, "service", Some("PGSERVICE"), None),
    keyword(V9_1, "user", Some("PGUSER"), None),
    keyword(V9_1, "password", Some("PGPASSWORD"), None),
    keyword(V10, "passfile", Some("PGPASSFILE"), None),
    keyword(V13, "channel_binding", Some("PGCHANNELBINDING"), Some("prefer")),
    keyword(V9_1, "connect_timeout", Some("PGCONNECT_TIMEOUT"), None),
    keyword(V9_1, "dbname", None, None),
    keyword(V9_1, "host", Some("PGHOST"), None),
    keyword(V9_1, "hostaddr", Some("PGHOSTADDR"), None),
    keyword(V9_1, "port", Some("PGPORT"), Some("5432")),
    keyword(V9_1, "client_encoding", Some("PGCLIENTENCODING"), None),
    keyword(V9_1, "options", Some("PGOPTIONS"), None),
    keyword(V9_1, "application_name", Some("PGAPPNAME"), None),
    keyword(V9_1, "fallback_application_name", None, None),
    keyword(V9_1, "keepalives", None, None),
    keyword(V9_1, "keepalives_idle", None, None),
    keyword(V9_1, "keepalives_interval", None, None),
    keyword(V9_1, "keepalives_count", None, None),
    keyword(V12, "tcp_user_timeout", None, None),
    keyword(V9_1, "sslmode", Some("PGSSLMODE"), Some("prefer")),
    keyword(V17, "sslnegotiation", Some("PGSSLNEGOTIATION"), Some("postgres")),
    keyword(V9_2, "sslcompression", Some("PGSSLCOMPRESSION"), Some("0")),
    keyword(V9_1, "sslcert", Some("PGSSLCERT"), None),
    keyword(V9_1, "sslkey", Some("PGSSLKEY"), None),
    keyword(V16, "sslcertmode", Some("PGSSLCERTMODE"), Some("allow")),
    keyword(V13, "sslpassword", None, None),
    keyword(V9_1, "sslrootcert", Some("PGSSLROOTCERT"), None),
    keyword(V9_1, "sslcrl", Some("PGSSLCRL"), None),
    keyword(V14, "sslcrldir", Some("PGSSLCRLDIR"), None),
    keyword(V14, "sslsni", Some("PGSSLSNI"), Some("1")),
    keyword(V9_1, "requirepeer", Some("PGREQUIREPEER"), None),
    keyword(V16, "require_auth", Some("PGREQUIREAUTH"), None),
    keyword(V18, "min_protocol_version", Some("PGMINPROTOCOLVERSION"), None),
    keyword(V18, "max_protocol_version", Some("PGMAXPROTOCOLVERSION"), None),
    keyword(V13, "ssl_min_protocol_version", Some("PGSSLMINPROTOCOLVERSION"), Some("TLSv1.2")),
    keyword(V13, "ssl_max_protocol_version", Some("PGSSLMAXPROTOCOLVERSION"), None),
    keyword(V12, "gssencmode", Some("PGGSSENCMODE"), Some("prefer")),
    keyword(V9_1, "krbsrvname", Some("PGKRBSRVNAME"), Some("postgres")),
    keyword(V9_1, "gsslib", Some("PGGSSLIB"), None),
    keyword(V16, "gssdelegation", Some("PGGSSDELEGATION"), Some("0")),
    keyword(V9_1, "replication", None, None),
    keyword(V10, "target_session_attrs", Some("PGTARGETSESSIONATTRS"), Some("any")),
    keyword(V16, "load_balance_hosts", Some("PGLOADBALANCEHOSTS"), Some("disable")),
    keyword(V18, "scram_client_key", None, None),
    keyword(V18, "scram_server_key", None, None),
    keyword(V18, "sslkeylogfile", None, None),
];

/// What a parameter may be. Others take any text, or are looked at where they are used.
pub(super) const VALUES: [(&str, &[&str]); 7] = [
    ("sslmode", &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]),
    ("gssencmode", &["disable", "prefer", "require"]),
    ("channel_binding", &["disable", "prefer", "require"]),
    ("sslnegotiation", &["postgres", "direct"]),
    ("sslcertmode", &["disable", "allow", "require"]),
    ("target_session_attrs", &["any", "read-write", "read-only", "primary", "standby", "prefer-standby"]),
    ("load_balance_hosts", &["disable", "random"]),
];

/// What would make a difference, and cannot be followed.
pub(super) const UNSUPPORTED: [&str; 3] = ["scram_client_key", "scram_server_key", "sslkeylogfile"];
