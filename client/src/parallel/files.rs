//! The questions about files that a session asks.

use backstop_protocol::backend::SqlState;
use backstop_protocol::control::ControlFile;
use backstop_protocol::version::ServerVersion;
use bytes::{Bytes, BytesMut};

use super::language::{self, Language};
use super::session::Session;
use super::statement::{self, Parameter};
use super::values;
use crate::error::{ClientError, shown};
use crate::mutation::Mutation;
use crate::receive::Tablespace;

/// How much of a file is read at once, in bytes: a multiple of a page.
pub(super) const CHUNK: u64 = 8 << 20;

/// The control file's path.
pub(super) const CONTROL: &[u8] = b"global/pg_control";

/// How often `pg_control` is read again if its checksum is wrong: the server may be writing it.
const CONTROL_READS: usize = 10;

/// How often a piece may come short before that is no file's end any more.
const SHORT_READS: usize = 16;

/// More files than a server has.
const MAX_FILES: usize = 50_000_000;

/// More tablespaces than a server can have any use for.
const MAX_TABLESPACES: usize = 100_000;

/// Something in a directory of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// As it was asked for: `./base/5/1259`, `pg_wal/000000010000000000000003`.
    pub(super) path: Vec<u8>,
    pub(super) directory: bool,
    pub(super) size: u64,
    /// When it was changed last, in seconds since 1970.
    pub(super) changed: i64,
}

impl Session {
    /// `pg_control`, whole: it is read again while its checksum is wrong.
    pub(super) async fn control(&mut self) -> Result<(Bytes, Option<ControlFile>), ClientError> {
        let mut problem = String::new();
        for _ in 0..CONTROL_READS {
            let Some(content) = self.read(CONTROL, 0).await? else {
                return Err(ClientError::Incomplete("the server has no file \"global/pg_control\"".to_owned()));
            };
            if !self.version.has_current_wal_format() {
                return Ok((content, None));
            }
            match ControlFile::decode(&content) {
                Ok(control) => return Ok((content, Some(control))),
                Err(error) => problem = error.to_string(),
            }
        }
        Err(ClientError::Incomplete(format!("invalid data in file \"global/pg_control\": {problem}")))
    }

    /// Up to [`CHUNK`] bytes of a file. None if it is not there.
    pub(super) async fn read(&mut self, path: &[u8], offset: u64) -> Result<Option<Bytes>, ClientError> {
        let sql = if self.compressed { language::READ } else { statement::read(self.version) };
        let at = i64::try_from(offset).unwrap_or(i64::MAX);
        let parameters = [Parameter::Text(path), Parameter::Int8(at), Parameter::Int8(CHUNK.cast_signed())];
        let doing = format!("could not read file \"{}\"", shown(path));
        let mut rows = match self.rows(doing, sql, &parameters, (1, 1)).await {
            Err(error) if is_gone(&error, self.version) => return Ok(None),
            rows => rows?,
        };
        let value = rows.pop().and_then(|mut row| row.pop()).ok_or_else(|| self.malformed("one row"))?;
        let Some(value) = value else { return Ok(None) };
        let content = if self.compressed {
            values::inflate(&value, CHUNK).ok_or_else(|| self.malformed("compressed data"))?
        } else {
            value
        };
        if content.len() as u64 > CHUNK {
            return Err(self.connection.unexpected(format!("at most {CHUNK} bytes"), format!("{}", content.len())));
        }
        Ok(Some(content))
    }

    /// At least `wanted` bytes of a file, unless it ends before: a piece that comes short is no proof of that. What follows it is asked for,
    /// and whoever has nothing at all is asked twice. At most [`CHUNK`]. None if the file is not there.
    pub(super) async fn read_all(
        &mut self,
        path: &[u8],
        offset: u64,
        wanted: u64,
    ) -> Result<Option<Bytes>, ClientError> {
        let mut all = BytesMut::new();
        let mut nothing = 0;
        for _ in 0..SHORT_READS {
            let Some(content) = self.read(path, offset + all.len() as u64).await? else { return Ok(None) };
            let enough = content.len() as u64 >= wanted || self.weakness.is(Mutation::TakesShortReads);
            if all.is_empty() && enough {
                return Ok(Some(content));
            }
            nothing += usize::from(content.is_empty());
            all.extend_from_slice(&content);
            if all.len() as u64 >= wanted || nothing > usize::from(all.is_empty()) {
                all.truncate(usize::try_from(CHUNK).unwrap_or(usize::MAX));
                return Ok(Some(all.freeze()));
            }
        }
        let problem = format!("pieces of file \"{}\" come short, and it goes on behind each", shown(path));
        Err(ClientError::Incomplete(problem))
    }

    /// `tablespace_map` of an exclusive backup, of releases that have one.
    pub(super) async fn tablespace_map(&mut self) -> Result<Option<Bytes>, ClientError> {
        if self.version.has_tablespace_map() { self.read(b"tablespace_map", 0).await } else { Ok(None) }
    }

    /// Everything below `root`, but not below the directories `closed`.
    pub(super) async fn tree(&mut self, root: &[u8], closed: &[Vec<u8>]) -> Result<Vec<Found>, ClientError> {
        if !self.version.files_may_be_missing() {
            return self.tree_step_by_step(root, closed).await;
        }
        let doing = format!("could not list directory \"{}\"", shown(root));
        let parameters = [Parameter::Text(root), Parameter::Texts(closed)];
        let rows = self.rows(doing, statement::TREE, &parameters, (4, MAX_FILES)).await?;
        let below = [root, b"/"].concat();
        let found = rows.into_iter().map(|row| {
            let [path, status @ ..] = &*row else { return None };
            let path = path.as_deref().filter(|path| path.starts_with(&below))?;
            values::found(path.to_vec(), status)
        });
        found.map(|found| found.ok_or_else(|| self.malformed("a list of files"))).collect()
    }

    /// The same on servers that have no word for what is gone.
    async fn tree_step_by_step(&mut self, root: &[u8], closed: &[Vec<u8>]) -> Result<Vec<Found>, ClientError> {
        let mut all = Vec::new();
        let mut directories = vec![root.to_vec()];
        while let Some(directory) = directories.pop() {
            if closed.contains(&directory) {
                continue;
            }
            let doing = format!("could not list directory \"{}\"", shown(&directory));
            let names = self.rows(doing, statement::NAMES, &[Parameter::Text(&directory)], (1, MAX_FILES)).await;
            let names = match names {
                Err(error) if is_gone(&error, self.version) => continue,
                names => names?,
            };
            for name in names.into_iter().flatten().flatten() {
                let path = [&directory, &b"/"[..], &name].concat();
                let doing = format!("could not stat file \"{}\"", shown(&path));
                let mut rows = match self.rows(doing, statement::STATUS, &[Parameter::Text(&path)], (3, 1)).await {
                    Err(error) if is_gone(&error, self.version) => continue,
                    rows => rows?,
                };
                let found = rows.pop().and_then(|row| values::found(path, &row));
                let found = found.ok_or_else(|| self.malformed("a file's status"))?;
                if found.directory && found.path.split(|byte| *byte == b'/').count() <= 32 {
                    directories.push(found.path.clone());
                }
                all.push(found);
                if all.len() > MAX_FILES {
                    return Err(self.connection.unexpected("fewer files", "more"));
                }
            }
        }
        Ok(all)
    }

    /// The tablespaces outside of the default ones.
    pub(super) async fn tablespaces(&mut self) -> Result<Vec<Tablespace>, ClientError> {
        let sql = statement::tablespaces(self.version);
        let rows = loop {
            match self.rows("could not list tablespaces", sql, &[], (2, MAX_TABLESPACES)).await {
                // One was dropped meanwhile.
                Err(error) if error.sqlstate() == Some(SqlState::UNDEFINED_FILE) => {}
                rows => break rows?,
            }
        };
        let mut tablespaces: Vec<Tablespace> = Vec::new();
        for row in rows {
            let tablespace = values::tablespace(&row).ok_or_else(|| self.malformed("a tablespace"))?;
            if tablespaces.iter().any(|other| other.oid == tablespace.oid) {
                return Err(self.malformed("a tablespace for the first time"));
            }
            tablespaces.push(tablespace);
        }
        tablespaces.sort_by_key(|tablespace| tablespace.oid);
        Ok(tablespaces)
    }

    /// Lets the server compress what is read, if it can.
    pub(super) async fn compress(&mut self) -> Result<(), ClientError> {
        self.compressed = Language::install(self).await?;
        Ok(())
    }
}

/// Whether an error says that a file is not there, on servers that cannot say so otherwise.
fn is_gone(error: &ClientError, version: ServerVersion) -> bool {
    !version.files_may_be_missing() && error.sqlstate() == Some(SqlState::UNDEFINED_FILE)
}
