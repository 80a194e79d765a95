//! Roles.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A role, as `CREATE USER` makes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RoleConfig {
    /// Its name.
    pub name: String,
    /// Its password, in clear. Without one nobody can prove to be this role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// What `password_encryption` was when the password was set. Without it the password is kept as the method of the rule needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_encryption: Option<PasswordEncryption>,
    /// LOGIN
    #[serde(default = "yes")]
    pub login: bool,
    /// REPLICATION
    #[serde(default)]
    pub replication: bool,
    /// SUPERUSER
    #[serde(default)]
    pub superuser: bool,
    /// The roles that it is a member of, predefined ones such as `pg_write_server_files` included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub member_of: Vec<String>,
}

fn yes() -> bool {
    true
}

impl RoleConfig {
    /// A role that can log in and nothing else, without a password.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            name,
            password: None,
            password_encryption: None,
            login: true,
            replication: false,
            superuser: false,
            member_of: Vec::new(),
        }
    }
}

/// How a password is kept: `password_encryption`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PasswordEncryption {
    /// As MD5, which serves the methods `md5` and `password`.
    Md5,
    /// As a SCRAM-SHA-256 secret, which serves all methods: `md5` becomes SCRAM.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
}
