//! Who may come in: roles, and the rules of `pg_hba.conf`.

mod hba;
mod role;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use self::hba::Attempt;
pub use self::hba::{HbaRule, InvalidHbaRule};
pub use self::role::{PasswordEncryption, RoleConfig};

use crate::config::{Auth, Config, ConfigError};

/// The superuser that `initdb` makes.
const BOOTSTRAP_ROLE: &str = "postgres";

/// The password of every role of a server whose configuration names none.
pub const DEFAULT_PASSWORD: &str = "secret";

/// The iterations of SCRAM secrets where nothing sets them.
const DEFAULT_ITERATIONS: u32 = 4096;

/// What becomes of a connection, before anybody has proven anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// A rule says `reject`.
    Rejected,
    /// No rule matches.
    NoEntry,
    /// To be proven like this.
    By(Auth),
}

/// The roles and rules of a server.
#[derive(Debug)]
pub(crate) struct Access {
    /// None: there is a role of every name.
    roles: Option<BTreeMap<String, RoleConfig>>,
    /// None: every connection is as good as another.
    rules: Option<Vec<HbaRule>>,
    auth: Auth,
    /// `password_encryption`: how an unknown role is challenged under `md5`.
    encryption: PasswordEncryption,
    /// `scram_iterations`
    iterations: u32,
}

impl Access {
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let mut roles = BTreeMap::new();
        for role in &config.roles {
            if roles.insert(role.name.clone(), role.clone()).is_some() {
                return Err(ConfigError::invalid("role", format!("role {:?} is there twice", role.name)));
            }
        }
        let methods = config.hba.iter().map(HbaRule::auth).chain([Some(config.auth)]).flatten();
        for auth in methods {
            if auth == Auth::ScramSha256 && !config.version.has_scram() {
                let problem = format!("PostgreSQL {} does not know scram-sha-256", config.version);
                return Err(ConfigError::invalid("auth", problem));
            }
        }
        let invalid = |name: &str, value: &str| ConfigError::invalid(format!("settings.{name}"), format!("{value:?}"));
        let setting = |name: &str| config.settings.get(name).map(String::as_str);
        let iterations = match setting("scram_iterations") {
            Some(value) if config.version.has_scram_iterations() => value
                .parse()
                .ok()
                .filter(|iterations| *iterations > 0)
                .ok_or_else(|| invalid("scram_iterations", value))?,
            _ => DEFAULT_ITERATIONS,
        };
        let encryption = match setting("password_encryption") {
            None if config.version.encrypts_passwords_with_scram() => PasswordEncryption::ScramSha256,
            None | Some("md5" | "on") => PasswordEncryption::Md5,
            Some("scram-sha-256") => PasswordEncryption::ScramSha256,
            Some(value) => return Err(invalid("password_encryption", value)),
        };
        Ok(Self {
            encryption,
            iterations,
            roles: (!roles.is_empty()).then_some(roles),
            rules: (!config.hba.is_empty()).then(|| config.hba.clone()),
            auth: config.auth,
        })
    }

    /// The role of this name, if there is one.
    pub(crate) fn role(&self, name: &str) -> Option<RoleConfig> {
        match &self.roles {
            Some(roles) => roles.get(name).cloned(),
            None => Some(RoleConfig {
                password: Some(DEFAULT_PASSWORD.to_owned()),
                superuser: name == BOOTSTRAP_ROLE,
                replication: true,
                ..RoleConfig::new(name)
            }),
        }
    }

    /// `scram_iterations`
    pub(crate) fn iterations(&self) -> u32 {
        self.iterations
    }

    /// How the password of a role is checked under the method `md5`: as it is kept, if it is kept at all.
    pub(crate) fn md5_means(&self, role: Option<&RoleConfig>) -> PasswordEncryption {
        match role {
            Some(role) if role.password.is_some() => role.password_encryption.unwrap_or(PasswordEncryption::Md5),
            _ => self.encryption,
        }
    }

    /// Whether roles are listed. Without a list there is one of every name.
    pub(crate) fn lists_roles(&self) -> bool {
        self.roles.is_some()
    }

    /// Whether `user` is `role` or a member of it, itself or through others.
    pub(crate) fn is_member(&self, user: &str, role: &str) -> bool {
        let (mut seen, mut left) = (BTreeSet::new(), vec![user.to_owned()]);
        while let Some(name) = left.pop() {
            if name == role {
                return true;
            }
            if seen.insert(name.clone()) {
                left.extend(self.role(&name).map(|role| role.member_of).unwrap_or_default());
            }
        }
        false
    }

    /// What becomes of a connection: the first rule that matches decides (`hba_getauthmethod`).
    pub(crate) fn admit(&self, attempt: &Attempt<'_>) -> Admission {
        let Some(rules) = &self.rules else { return Admission::By(self.auth) };
        let is_member = |role: &str| self.is_member(attempt.user, role);
        match rules.iter().find(|rule| rule.matches(attempt, is_member)) {
            Some(rule) => rule.auth().map_or(Admission::Rejected, Admission::By),
            None => Admission::NoEntry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(roles: &[(&str, &[&str])], hba: &[&str]) -> Access {
        let role = |(name, groups): &(&str, &[&str])| RoleConfig {
            member_of: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..RoleConfig::new(*name)
        };
        let hba = hba.iter().map(|rule| rule.parse().expect("a rule")).collect();
        Access::new(&Config { roles: roles.iter().map(role).collect(), hba, ..Config::default() }).expect("access")
    }

    #[test]
    fn membership_is_inherited_and_may_go_in_circles() {
        let access = access(&[("a", &["b"]), ("b", &["c", "a"]), ("c", &[]), ("d", &[])], &[]);
        assert!(access.is_member("a", "c") && access.is_member("a", "a"));
        assert!(!access.is_member("a", "d") && !access.is_member("c", "a"));
    }

    #[test]
    fn without_roles_there_is_one_of_every_name() {
        let access = access(&[], &[]);
        let role = access.role("anybody").expect("a role");
        assert_eq!((role.replication, role.superuser, role.password.as_deref()), (true, false, Some(DEFAULT_PASSWORD)));
        assert!(access.role("postgres").expect("a role").superuser);
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let access = access(
            &[("inside", &["staff"]), ("staff", &[]), ("other", &[])],
            &[
                "host replication other 127.0.0.1/32 reject",
                "host replication +staff all md5",
                "host all all all trust",
            ],
        );
        let admit = |user: &'static str, physical| {
            access.admit(&Attempt { user, physical, database: "postgres", encrypted: false, peer: None })
        };
        assert_eq!(admit("inside", true), Admission::NoEntry, "a socket is not local to host rules");
        let from = |user: &'static str, physical| {
            let peer = Some([127, 0, 0, 1].into());
            access.admit(&Attempt { user, physical, database: "postgres", encrypted: false, peer })
        };
        assert_eq!(from("inside", true), Admission::By(Auth::Md5));
        assert_eq!(from("other", true), Admission::Rejected);
        assert_eq!(from("nobody", true), Admission::NoEntry, "all databases are not replication");
        assert_eq!(from("nobody", false), Admission::By(Auth::Trust));
    }

    #[test]
    fn a_role_cannot_be_there_twice_nor_scram_before_10() {
        let config = Config { roles: vec![RoleConfig::new("a"), RoleConfig::new("a")], ..Config::default() };
        let problem = Access::new(&config).expect_err("twice").to_string();
        assert_eq!(problem, "invalid role: role \"a\" is there twice");
        let hba = vec!["local all all scram-sha-256".parse().expect("a rule")];
        let config = Config { hba, version: "9.6".parse().expect("a version"), ..Config::default() };
        let problem = Access::new(&config).expect_err("no SCRAM").to_string();
        assert_eq!(problem, "invalid auth: PostgreSQL 9.6 does not know scram-sha-256");
    }
}
