//! Who logs in, and how.

use std::fmt;

/// What a connection says of itself, and how it proves who it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The role to log in as.
    pub user: String,
    /// Its password, if the server should ask.
    pub password: Option<String>,
    /// `database` in the StartupMessage. A physical walsender ignores it; poolers and `pg_hba.conf` may not.
    pub database: String,
    /// `application_name` in the StartupMessage.
    pub application_name: String,
    /// `options` in the StartupMessage.
    pub session_options: Option<String>,
}

impl Login {
    /// A physical replication connection of `user`.
    pub fn new(user: impl Into<String>, application_name: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            password: None,
            database: "replication".to_owned(),
            application_name: application_name.into(),
            session_options: None,
        }
    }
}

impl fmt::Debug for Login {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .field("database", &self.database)
            .field("application_name", &self.application_name)
            .finish_non_exhaustive()
    }
}
