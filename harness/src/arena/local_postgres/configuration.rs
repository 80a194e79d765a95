//! What a scenario says of its server, as files of a data directory and SQL.

use std::fmt::Write as _;

use backstop_mock::access::PasswordEncryption;
use backstop_mock::config::{Auth, RoleConfig};

use crate::scenario::credentials::{PASSWORD, USER};
use crate::scenario::model::Scenario;

/// The superuser of every cluster, who comes in over the socket.
pub(in crate::arena) const SUPERUSER: &str = "postgres";

/// Shows the permissions of the data directory, which initdb gives it.
pub(in crate::arena) const DIRECTORY_MODE: &str = "data_directory_mode";

/// Its value where the group may read.
pub(in crate::arena) const GROUP_MODE: &str = "0750";

/// Lines for the end of `postgresql.conf`: the last of a setting counts.
pub(in crate::arena) fn settings(scenario: &Scenario) -> String {
    let mut text = String::from(
        "\n# Nothing here outlives its machine, and nothing is done that nobody asked for.\n\
         fsync = off\nautovacuum = off\nlogging_collector = off\nlog_destination = stderr\nshared_buffers = 16MB\n\
         wal_level = replica\nrestart_after_crash = off\nlc_messages = 'C'\ntimezone = 'UTC'\n",
    );
    // Writing to a String cannot fail.
    let _ = writeln!(text, "max_wal_senders = {}", scenario.server.max_wal_senders);
    for (name, value) in scenario.server.settings.iter().filter(|(name, _)| *name != DIRECTORY_MODE) {
        let _ = writeln!(text, "{name} = '{}'", value.replace('\'', "''"));
    }
    text
}

/// `pg_hba.conf`: the scenario's rules; the socket is ours.
pub(in crate::arena) fn rules(scenario: &Scenario) -> String {
    let mut text = String::from("local all all trust\nlocal replication all trust\n");
    if scenario.server.hba.is_empty() {
        let method = match scenario.server.auth {
            Auth::Trust => "trust",
            Auth::Password => "password",
            Auth::Md5 => "md5",
            Auth::ScramSha256 => "scram-sha-256",
        };
        let _ = writeln!(text, "host all all all {method}\nhost replication all all {method}");
    }
    for rule in &scenario.server.hba {
        let _ = writeln!(text, "{rule}");
    }
    text
}

/// The roles: the scenario's, or the one that clients log in as.
pub(in crate::arena) fn roles(scenario: &Scenario) -> Vec<String> {
    let everyone = RoleConfig { password: Some(PASSWORD.to_owned()), replication: true, ..RoleConfig::new(USER) };
    let roles = if scenario.server.users.is_empty() { std::slice::from_ref(&everyone) } else { &scenario.server.users };
    roles.iter().flat_map(|role| statements(role, scenario.server.auth)).collect()
}

fn statements(role: &RoleConfig, auth: Auth) -> Vec<String> {
    let mut all = Vec::new();
    let encryption = match (role.password_encryption, auth) {
        (Some(PasswordEncryption::Md5), _) | (None, Auth::Md5) => "md5",
        _ => "scram-sha-256",
    };
    all.push(format!("SET password_encryption = '{encryption}'"));
    let word = |given: bool, word: &str| if given { format!(" {word}") } else { format!(" NO{word}") };
    let mut attributes =
        word(role.login, "LOGIN") + &word(role.replication, "REPLICATION") + &word(role.superuser, "SUPERUSER");
    if let Some(password) = &role.password {
        let _ = write!(attributes, " PASSWORD {}", literal(password));
    }
    let name = identifier(&role.name);
    // The superuser is there already.
    let verb = if role.name == SUPERUSER { "ALTER" } else { "CREATE" };
    all.push(format!("{verb} ROLE {name}{attributes}"));
    all.extend(role.member_of.iter().map(|group| format!("GRANT {} TO {name}", identifier(group))));
    all
}

/// Tables of about `bytes` bytes, in `tablespace` if one is given.
pub(in crate::arena) fn load(name: &str, bytes: u64, tablespace: Option<&str>) -> String {
    // So many rows of a thousand bytes fill seven eighths of a page of 8 KiB.
    let rows = bytes * 7 / 8192;
    let tablespace = tablespace.map(|name| format!(" TABLESPACE {}", identifier(name))).unwrap_or_default();
    format!(
        "CREATE TABLE {}{tablespace} AS SELECT repeat(md5(n::text), 33) AS t FROM generate_series(1, {rows}) n",
        identifier(name)
    )
}

/// How the call begins that makes a slot which keeps WAL from now on.
pub(in crate::arena) fn slot(name: &str) -> String {
    format!("SELECT pg_create_physical_replication_slot({}, true)", literal(name))
}

pub(in crate::arena) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub(in crate::arena) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
