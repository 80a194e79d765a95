//! What is to run: the cases, the clients under test and the server, as chosen on the command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::golden::Bless;
use crate::known::KnownFaults;
use crate::scenario::Case;

/// One run.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// In the order of their ids. A sweep without a [step](Case::step) stands for all steps of the sweep.
    pub cases: Vec<Case>,
    /// Every case runs against every one of these.
    pub clients: Vec<SubjectSpec>,
    /// What the clients connect to.
    pub server: ServerSpec,
    /// What the clients are known to do wrong.
    pub known: KnownFaults,
    /// How many cases run at a time, at least 1.
    pub jobs: usize,
    /// In place of the seed that a case gets from its scenario.
    pub seed: Option<u64>,
    /// A directory for what the cases leave behind. Without it everything is removed.
    pub keep: Option<PathBuf>,
    /// A directory for the transcripts of all cases, and nothing else of them: `CASE/transcript.txt`.
    pub transcripts: Option<PathBuf>,
    /// A directory for the cases to happen in. Without it they happen in memory where there is room.
    pub scratch: Option<PathBuf>,
    /// Whether something may be left on a server that is not ours.
    pub allow_writes: bool,
    /// Whether captures of the connections are kept, too.
    pub capture: bool,
    /// Whether PostgreSQL's tools are asked about backups of synthetic clusters that must be restorable.
    pub ask_postgres: bool,
    /// Whether a failed `should` fails the run.
    pub strict: bool,
    /// Which golden transcripts are written.
    pub bless: Bless,
}

/// The client under test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectSpec {
    /// The client of this project, in process.
    Builtin,
    /// PostgreSQL's `pg_basebackup`, at this path or found through PATH.
    PgBasebackup(Option<PathBuf>),
    /// PostgreSQL's `pg_receivewal`, at this path or found through PATH.
    PgReceivewal(Option<PathBuf>),
    /// A command line template, split at blanks and run without a shell.
    Exec(String),
}

/// A client or server on the command line that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}: expected {expected}")]
pub struct UnknownSpec {
    problem: String,
    expected: &'static str,
}

impl SubjectSpec {
    const EXPECTED: &'static str = "builtin, pg_basebackup[=PATH], pg_receivewal[=PATH] or exec=TEMPLATE";
    const PLACEHOLDERS: [&'static str; 10] =
        ["host", "port", "user", "password", "dir", "label", "slot", "manifest", "jobs", "lsn"];
}

impl FromStr for SubjectSpec {
    type Err = UnknownSpec;

    fn from_str(text: &str) -> Result<Self, UnknownSpec> {
        let refuse = |problem| UnknownSpec { problem, expected: Self::EXPECTED };
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        if value.is_some_and(|value| value.trim().is_empty()) {
            return Err(refuse(format!("nothing follows \"{name}=\"")));
        }
        match (name, value) {
            ("builtin", None) => Ok(Self::Builtin),
            ("pg_basebackup", path) => Ok(Self::PgBasebackup(path.map(PathBuf::from))),
            ("pg_receivewal", path) => Ok(Self::PgReceivewal(path.map(PathBuf::from))),
            ("exec", Some(template)) => {
                if let Some(unknown) = unknown_placeholder(template) {
                    return Err(UnknownSpec {
                        problem: format!("unknown placeholder {unknown:?} in the exec template"),
                        expected: "{host}, {port}, {user}, {password}, {dir}, {label}, {slot}, {manifest}, {jobs} or {lsn}",
                    });
                }
                Ok(Self::Exec(template.to_owned()))
            }
            ("exec", None) => Err(refuse("exec without a template".to_owned())),
            _ => Err(refuse(format!("unknown client {text:?}"))),
        }
    }
}

/// The first `{word}` of `template` that no placeholder is called.
fn unknown_placeholder(template: &str) -> Option<&str> {
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let tail = rest.get(open..)?;
        let close = tail.find('}')?;
        let word = tail.get(1..close)?;
        if word.bytes().all(|b| b.is_ascii_lowercase()) && !SubjectSpec::PLACEHOLDERS.contains(&word) {
            return tail.get(..=close);
        }
        rest = tail.get(close + 1..)?;
    }
    None
}

impl fmt::Display for SubjectSpec {
    /// As on the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, path) = match self {
            Self::Builtin => return f.write_str("builtin"),
            Self::Exec(template) => return write!(f, "exec={template}"),
            Self::PgBasebackup(path) => ("pg_basebackup", path),
            Self::PgReceivewal(path) => ("pg_receivewal", path),
        };
        match path {
            Some(path) => write!(f, "{name}={}", path.display()),
            None => f.write_str(name),
        }
    }
}

/// What the clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerSpec {
    /// The mock walsender of this project.
    Mock,
    /// PostgreSQL's programs in this directory: a server of its own for every case.
    Postgres(PathBuf),
    /// PostgreSQL in containers of the image, in whose name `{major}` stands for the release; of the official ones without it.
    Docker(Option<String>),
    /// A server that is there.
    Url(Conninfo),
}

/// A connection string. Shown without what may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Conninfo(pub String);

impl fmt::Display for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: [&str; 5] = ["host", "hostaddr", "port", "user", "dbname"];
        let read = backstop_client::conninfo::Conninfo::parse(&self.0).unwrap_or_default();
        let pairs = SHOWN.iter().filter_map(|name| read.get(name).map(|value| (name, value)));
        let pairs = pairs.map(|(name, value)| {
            if value.contains([' ', '\'', '\\']) {
                format!("{name}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
            } else {
                format!("{name}={value}")
            }
        });
        f.write_str(&pairs.collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ServerSpec {
    const EXPECTED: &'static str = "mock, pg=BINDIR, docker[=IMAGE] or url=CONNINFO";
}

impl FromStr for ServerSpec {
    type Err = UnknownSpec;

    fn from_str(text: &str) -> Result<Self, UnknownSpec> {
        let refuse = |problem| UnknownSpec { problem, expected: Self::EXPECTED };
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        match (name, value) {
            ("mock", None) => Ok(Self::Mock),
            ("pg", Some(bin)) if !bin.trim().is_empty() => Ok(Self::Postgres(bin.into())),
            ("docker", None) => Ok(Self::Docker(None)),
            ("docker", Some(image)) if !image.trim().is_empty() => Ok(Self::Docker(Some(image.to_owned()))),
            ("docker", _) => Err(refuse("nothing follows \"docker=\"".to_owned())),
            ("url", Some(conninfo)) if !conninfo.trim().is_empty() => {
                let read = backstop_client::conninfo::Conninfo::parse(conninfo);
                read.map(|_| Self::Url(Conninfo(conninfo.to_owned()))).map_err(|error| refuse(format!("url: {error}")))
            }
            ("url", _) => Err(refuse("url without a connection string".to_owned())),
            ("pg", _) => Err(refuse("pg without the directory of its programs".to_owned())),
            _ => Err(refuse(format!("unknown server {text:?}"))),
        }
    }
}

impl fmt::Display for ServerSpec {
    /// As on the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mock => f.write_str("mock"),
            Self::Postgres(bin) => write!(f, "pg={}", bin.display()),
            Self::Docker(None) => f.write_str("docker"),
            Self::Docker(Some(image)) => write!(f, "docker={image}"),
            Self::Url(conninfo) => write!(f, "url={conninfo}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_and_servers_round_trip() {
        for text in [
            "builtin",
            "pg_basebackup",
            "pg_basebackup=/opt/pg/bin/pg_basebackup",
            "pg_receivewal=r",
            "exec=a {dir} x=1",
        ] {
            assert_eq!(text.parse::<SubjectSpec>().expect(text).to_string(), text);
        }
        for text in
            ["mock", "pg=/opt/pg/bin", "docker", "docker=localhost:5000/postgres:{major}", "url=host=db user=backup"]
        {
            assert_eq!(text.parse::<ServerSpec>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn other_clients_and_servers_are_named() {
        let client = |text: &str| text.parse::<SubjectSpec>().expect_err(text).to_string();
        insta::assert_snapshot!(client("pgbasebackup"), @r#"unknown client "pgbasebackup": expected builtin, pg_basebackup[=PATH], pg_receivewal[=PATH] or exec=TEMPLATE"#);
        insta::assert_snapshot!(client("builtin=x"), @r#"unknown client "builtin=x": expected builtin, pg_basebackup[=PATH], pg_receivewal[=PATH] or exec=TEMPLATE"#);
        insta::assert_snapshot!(client("pg_basebackup="), @r#"nothing follows "pg_basebackup=": expected builtin, pg_basebackup[=PATH], pg_receivewal[=PATH] or exec=TEMPLATE"#);
        insta::assert_snapshot!(client("exec=tool {target}"), @r#"unknown placeholder "{target}" in the exec template: expected {host}, {port}, {user}, {password}, {dir}, {label}, {slot}, {manifest}, {jobs} or {lsn}"#);
        let server = |text: &str| text.parse::<ServerSpec>().expect_err(text).to_string();
        insta::assert_snapshot!(server("podman=postgres"), @r#"unknown server "podman=postgres": expected mock, pg=BINDIR, docker[=IMAGE] or url=CONNINFO"#);
        insta::assert_snapshot!(server("url=nonsense=1"), @r#"url: invalid connection option "nonsense": expected mock, pg=BINDIR, docker[=IMAGE] or url=CONNINFO"#);
        let secret: ServerSpec = "url=postgres://u:geheim@db:5433/x?sslmode=require".parse().expect("a server");
        assert_eq!(secret.to_string(), "url=host=db port=5433 user=u dbname=x");
        insta::assert_snapshot!(server("pg"), @"pg without the directory of its programs: expected mock, pg=BINDIR, docker[=IMAGE] or url=CONNINFO");
    }
}
