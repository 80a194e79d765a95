//! Services: connection parameters under a name, in a file.

use std::path::{Path, PathBuf};

use super::{Conninfo, ConninfoError, refuse};

/// Where packages and the source look for the file that is everybody's.
const SYSTEM: [&str; 2] = ["/etc/postgresql-common", "/usr/local/pgsql/etc"];

/// Sets what is not set from the service `name`: in PGSERVICEFILE or `~/.pg_service.conf`, else in the system's file.
pub(super) fn fill(
    conninfo: &mut Conninfo,
    name: &str,
    environment: &impl Fn(&str) -> Option<String>,
) -> Result<(), ConninfoError> {
    let chosen = environment("PGSERVICEFILE").map(PathBuf::from);
    if let Some(file) = chosen.as_ref().filter(|file| !file.exists()) {
        return refuse(format!("service file \"{}\" not found", file.display()));
    }
    let own = chosen.or_else(|| std::env::home_dir().map(|home| home.join(".pg_service.conf")));
    let system = match environment("PGSYSCONFDIR") {
        Some(directory) => vec![PathBuf::from(directory)],
        None => SYSTEM.map(PathBuf::from).to_vec(),
    };
    let files = own.into_iter().chain(system.into_iter().map(|directory| directory.join("pg_service.conf")));
    for file in files.filter(|file| file.exists()) {
        let text = std::fs::read_to_string(&file);
        let text = text.map_err(|error| ConninfoError(format!("service file \"{}\": {error}", file.display())))?;
        if read(conninfo, name, &text, &file)? {
            return Ok(());
        }
    }
    refuse(format!("definition of service \"{name}\" not found"))
}

/// Whether the service is in `text`. If so, what is not set was set.
fn read(conninfo: &mut Conninfo, name: &str, text: &str, file: &Path) -> Result<bool, ConninfoError> {
    let mut found = false;
    for (number, line) in text.lines().enumerate() {
        let at = || format!("service file \"{}\", line {}", file.display(), number + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(group) = line.strip_prefix('[') {
            if found {
                return Ok(true);
            }
            found = group.strip_suffix(']') == Some(name);
            continue;
        }
        if !found {
            continue;
        }
        if line.starts_with("ldap") && line.contains("://") {
            return refuse(format!("LDAP lookups are not supported in {}", at()));
        }
        let Some((keyword, value)) = line.split_once('=') else {
            return refuse(format!("syntax error in {}", at()));
        };
        let keyword = keyword.trim_end();
        if keyword == "service" {
            return refuse(format!("nested \"service\" specifications not supported in {}", at()));
        }
        if !conninfo.is_set(keyword) {
            conninfo.set(keyword, value).map_err(|_| ConninfoError(format!("syntax error in {}", at())))?;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# ours\n[other]\nuser=x\n\n[mine]\nhost=h\nport=5433\nuser=from the file\n[mine]\nport=1\n";

    #[test]
    fn a_service_fills_gaps() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("pg_service.conf");
        std::fs::write(&file, TEXT).expect("written");
        let fill = |name, variable: &str| {
            let mut conninfo = Conninfo::parse("user=me").expect("pairs");
            let value = if variable == "PGSERVICEFILE" { &file } else { directory.path() };
            let value = value.display().to_string();
            let environment = |asked: &str| match asked {
                "PGSERVICEFILE" | "PGSYSCONFDIR" if asked == variable => Some(value.clone()),
                "PGSYSCONFDIR" => Some("/nowhere".to_owned()),
                _ => None,
            };
            fill(&mut conninfo, name, &environment).map(|()| conninfo)
        };
        for variable in ["PGSERVICEFILE", "PGSYSCONFDIR"] {
            let conninfo = fill("mine", variable).expect("a service");
            let values = ["user", "host", "port"].map(|keyword| conninfo.get(keyword));
            assert_eq!(values, [Some("me"), Some("h"), Some("5433")], "the first of two counts");
        }
        let problem = fill("none", "PGSERVICEFILE").expect_err("no such service");
        assert_eq!(problem.to_string(), "definition of service \"none\" not found");
        std::fs::remove_file(&file).expect("removed");
        let problem = fill("mine", "PGSERVICEFILE").expect_err("no such file");
        assert_eq!(problem.to_string(), format!("service file \"{}\" not found", file.display()));
    }

    #[test]
    fn what_is_no_service_names_its_line() {
        let refused = ["[s]\nhost", "[s]\nhots=x", "[s]\nservice=t", "[s]\nldap://host/dn"];
        let said = refused.map(|text| {
            let problem = read(&mut Conninfo::default(), "s", text, Path::new("f")).expect_err(text);
            problem.to_string()
        });
        insta::assert_snapshot!(said.join("\n"), @r#"
        syntax error in service file "f", line 2
        syntax error in service file "f", line 2
        nested "service" specifications not supported in service file "f", line 2
        LDAP lookups are not supported in service file "f", line 2
        "#);
    }
}
