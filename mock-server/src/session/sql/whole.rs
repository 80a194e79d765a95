//! Statements that are known as a whole: what they mean is not found out from their words.
//!
//! A tool that backs a server up over ordinary connections lists files by a recursive query, and tablespaces and languages from the
//! catalogs. This server has no executor for them; it knows these texts, whatever stands between their words.

use backstop_protocol::catalog::SqlType;
use backstop_protocol::diagnostic::Diagnostic;
use backstop_protocol::version::ServerVersion;

use super::files::path_value;
use super::value::Value;
use super::{Session, unsupported};
use crate::cluster::below_data_directory;

/// One of these statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whole {
    /// Everything below `$1`, but not what is in the directories of `$2`.
    Tree,
    /// What lies at `$1`.
    Status,
    /// Tablespaces with their locations, since 9.2.
    Tablespaces,
    /// The same of 9.1.
    OldTablespaces,
    /// The procedural languages that can compress: none.
    Languages,
}

const TEXTS: [(Whole, &str); 5] = [
    (
        Whole::Tree,
        "WITH RECURSIVE tree (path, isdir, size, change, depth) AS (SELECT $1, true, 0::bigint, 0::bigint, 0 UNION ALL \
         SELECT tree.path || '/' || name, stat.isdir, stat.size, extract(epoch FROM stat.change)::bigint, tree.depth + 1 \
         FROM tree, LATERAL pg_ls_dir(tree.path, true, false) AS name, \
         LATERAL pg_stat_file(tree.path || '/' || name, true) AS stat \
         WHERE tree.isdir AND tree.depth < 32 AND tree.path <> ALL ($2)) \
         SELECT path, isdir, size, change FROM tree WHERE depth > 0 AND isdir IS NOT NULL",
    ),
    (Whole::Status, "SELECT isdir, size, extract(epoch FROM change)::bigint FROM pg_stat_file($1)"),
    (Whole::Tablespaces, "SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace WHERE oid NOT IN (1663, 1664)"),
    (Whole::OldTablespaces, "SELECT oid, spclocation FROM pg_tablespace WHERE oid NOT IN (1663, 1664)"),
    (Whole::Languages, "SELECT lanname FROM pg_language WHERE lanname IN ('plperlu', 'plpython3u')"),
];

/// The words of a text, one blank between them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.trim_end().trim_end_matches(';').split_ascii_whitespace()
}

impl Whole {
    /// The statement with this text.
    pub(super) fn find(text: &str) -> Option<Self> {
        TEXTS.into_iter().find(|(_, known)| words(known).eq(words(text))).map(|(whole, _)| whole)
    }

    /// The types of its parameters.
    pub(super) fn parameters(self) -> &'static [SqlType] {
        match self {
            Self::Tree => &[SqlType::Text, SqlType::TextArray],
            Self::Status => &[SqlType::Text],
            Self::Tablespaces | Self::OldTablespaces | Self::Languages => &[],
        }
    }

    /// Its columns.
    ///
    /// # Errors
    /// The release has not what the statement needs.
    pub(super) fn columns(self, version: ServerVersion) -> Result<Vec<(String, SqlType)>, Diagnostic> {
        let (since, until, columns): (_, _, &[_]) = match self {
            Self::Tree => (
                ServerVersion::V9_5,
                ServerVersion::V18,
                &[
                    ("path", SqlType::Text),
                    ("isdir", SqlType::Bool),
                    ("size", SqlType::Int8),
                    ("change", SqlType::Int8),
                ],
            ),
            Self::Status => (
                ServerVersion::V9_1,
                ServerVersion::V18,
                &[("isdir", SqlType::Bool), ("size", SqlType::Int8), ("date_part", SqlType::Int8)],
            ),
            Self::Tablespaces => (
                ServerVersion::V9_2,
                ServerVersion::V18,
                &[("oid", SqlType::Oid), ("pg_tablespace_location", SqlType::Text)],
            ),
            Self::OldTablespaces => {
                (ServerVersion::V9_1, ServerVersion::V9_1, &[("oid", SqlType::Oid), ("spclocation", SqlType::Text)])
            }
            Self::Languages => (ServerVersion::V9_1, ServerVersion::V18, &[("lanname", SqlType::Name)]),
        };
        if !(since..=until).contains(&version) {
            return Err(unsupported());
        }
        Ok(columns.iter().map(|(name, ty)| ((*name).to_owned(), *ty)).collect())
    }
}

impl Session {
    /// The rows of one of these statements.
    pub(super) fn run_whole(&self, whole: Whole, parameters: &[Value]) -> Result<Vec<Vec<Value>>, Diagnostic> {
        let first = parameters.first().cloned().unwrap_or(Value::Null);
        let path = match &first {
            Value::Bytes(bytes) => bytes.to_vec(),
            other => other.text().unwrap_or_default().into_bytes(),
        };
        match whole {
            Whole::Tree => {
                let closed = match parameters.get(1) {
                    Some(Value::Texts(closed)) => closed.clone(),
                    _ => Vec::new(),
                };
                self.tree(&path, &closed)
            }
            Whole::Status => match self.stat_file(&path, false)? {
                Value::Record(fields) => match fields.as_slice() {
                    [(_, size), _, _, (_, Value::Time(change)), _, (_, isdir)] => {
                        Ok(vec![vec![isdir.clone(), size.clone(), Value::Int(*change)]])
                    }
                    _ => Ok(Vec::new()),
                },
                _ => Ok(Vec::new()),
            },
            Whole::Tablespaces | Whole::OldTablespaces => {
                let tablespaces = self.shared.cluster.tablespaces().into_iter();
                Ok(tablespaces
                    .map(|tablespace| vec![Value::Int(tablespace.oid.into()), Value::Text(tablespace.location)])
                    .collect())
            }
            Whole::Languages => Ok(Vec::new()),
        }
    }

    fn tree(&self, root: &[u8], closed: &[bytes::Bytes]) -> Result<Vec<Vec<Value>>, Diagnostic> {
        self.refuse_without_right_to_files("pg_ls_dir", "get directory listings")?;
        let Some(clean) = below_data_directory(root) else { return Ok(Vec::new()) };
        let directory = self.data_directory()?;
        if directory.get(&clean).is_none_or(|node| !node.is_directory) || closed.iter().any(|closed| closed == root) {
            return Ok(Vec::new());
        }
        self.note_removed(&clean);
        let mut rows = Vec::new();
        for (below, node) in directory.below(&clean) {
            let path = [root, b"/", below].concat();
            let within =
                |closed: &bytes::Bytes| path.strip_prefix(&closed[..]).is_some_and(|rest| rest.starts_with(b"/"));
            if closed.iter().any(within) {
                continue;
            }
            let full = if clean.is_empty() { below.to_vec() } else { [&clean[..], b"/", below].concat() };
            self.note_listed(&full, node);
            let size = i64::try_from(node.size).unwrap_or(i64::MAX);
            rows.push(vec![
                path_value(&path),
                Value::Bool(node.is_directory),
                Value::Int(size),
                Value::Int(node.changed),
            ]);
        }
        Ok(rows)
    }
}
