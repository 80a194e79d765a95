//! Whether the permissions of what was stored are such as a server gives its files.
//!
//! PostgreSQL makes files 0600 or 0640 and directories 0700 or 0750 (`pg_file_create_mode`, `pg_dir_create_mode`), and a person may have
//! given a configuration file to more readers. None is set-user-ID, a program, beyond its owner's reach, or writable by others: an
//! archive that says so lies, and a client that believes it leaves what recovery cannot open or anybody can change.

use super::artifact::{Artifact, Item};

/// After so many the rest is not interesting.
const ENOUGH: usize = 20;

/// Members of a backup in plain format with permissions that no server gives them.
pub fn problems(artifact: &Artifact) -> Vec<String> {
    let wrong = artifact.modes.iter().filter_map(|(name, mode)| {
        let (needed, never) = match artifact.items.get(name)? {
            Item::Directory => (0o700, 0o7022),
            _ => (0o600, 0o7133),
        };
        let wrong = mode & needed != needed || mode & never != 0;
        wrong.then(|| format!("\"{}\" has mode {mode:04o}", name.escape_ascii()))
    });
    wrong.take(ENOUGH).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_modes_that_a_server_gives_pass() {
        let target = tempfile::tempdir().unwrap();
        let set = |name: &str, mode| {
            fs::set_permissions(target.path().join(name), Permissions::from_mode(mode)).unwrap();
        };
        fs::create_dir_all(target.path().join("base/5")).unwrap();
        for name in ["PG_VERSION", "postgresql.conf", "base/5/1259"] {
            fs::write(target.path().join(name), name).unwrap();
        }
        let sound = [("base", 0o700), ("base/5", 0o750), ("PG_VERSION", 0o600), ("base/5/1259", 0o640)];
        for (name, mode) in sound.into_iter().chain([("postgresql.conf", 0o644)]) {
            set(name, mode);
        }
        let now = || problems(&Artifact::load(target.path()));
        assert_eq!(now(), Vec::<String>::new());

        for mode in [0o4777, 0, 0o666, 0o700, 0o400, 0o1600] {
            set("base/5/1259", mode);
            assert_eq!(now(), [format!("\"base/5/1259\" has mode {mode:04o}")]);
        }
        set("base/5/1259", 0o600);
        for mode in [0o777, 0o2750] {
            set("base", mode);
            assert_eq!(now(), [format!("\"base\" has mode {mode:04o}")]);
        }
    }
}
