//! Who the clients of a case log in as.

use std::fmt;

/// The role that clients log in as, where the server is ours.
pub const USER: &str = "backstop";

/// Its password.
pub const PASSWORD: &str = "secret";

/// A role and its password. Not part of a scenario, which is kept and shown: a server that is not ours has roles of its own.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The role.
    pub user: String,
    /// Its password, if there is one to be asked for.
    pub password: Option<String>,
}

impl Default for Credentials {
    fn default() -> Self {
        Self { user: USER.to_owned(), password: Some(PASSWORD.to_owned()) }
    }
}

impl fmt::Debug for Credentials {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}
