//! Takes a base backup into a directory of blobs: each content once, under its SHA-256, and an index of paths.
//!
//! Backups of the same cluster share what did not change between them, as the blobs are the same. The index is written last, under
//! its name only when everything is on disk: without it there is no backup.
//!
//! ```sh
//! cargo run -p backstop-client --example blobs -- 'host=/tmp user=postgres' store monday
//! ```

use std::collections::BTreeSet;
use std::error::Error;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstop_client::conninfo::Conninfo;
use backstop_client::sink::{Kind, Member, MemberHeader, Sink, Tablespace};
use backstop_client::{BackupOptions, BackupSummary, ClientError, Silent, Target, WalMethod, base_backup};
use bytes::Bytes;
use sha2::{Digest, Sha256};

/// What stands at a path.
pub(crate) enum Entry {
    /// A directory.
    Directory,
    /// A file, whose content is the blob of this name.
    File(String),
    /// A link to the tablespace at this place on the server.
    Link(PathBuf),
}

/// A store of blobs, and the index of one backup in it.
pub(crate) struct Blobs {
    store: PathBuf,
    name: String,
    tablespaces: Vec<Tablespace>,
    index: Vec<u8>,
    open: Option<Blob>,
    /// What was made here and is taken away again unless the backup is published.
    made: BTreeSet<PathBuf>,
}

/// A blob that does not yet have its name.
struct Blob {
    path: Vec<u8>,
    file: File,
    hash: Sha256,
}

impl Blobs {
    /// The backup `name` in the directory `store`, which is made if it is not there.
    pub(crate) fn create(store: &Path, name: &str) -> Result<Self, ClientError> {
        fs::create_dir_all(store).map_err(ClientError::sink)?;
        let index = store.join(format!("{name}.index"));
        if index.exists() {
            return Err(ClientError::Refused(format!("backup \"{name}\" exists in \"{}\"", store.display())));
        }
        let (store, name) = (store.to_path_buf(), name.to_owned());
        Ok(Self { store, name, tablespaces: Vec::new(), index: Vec::new(), open: None, made: BTreeSet::new() })
    }

    fn unfinished(&self) -> PathBuf {
        self.store.join(format!("{}.tmp", self.name))
    }

    fn begin(&mut self, path: &[u8]) -> Result<(), ClientError> {
        let unfinished = self.unfinished();
        self.made.insert(unfinished.clone());
        let file = File::create(unfinished).map_err(ClientError::sink)?;
        self.open = Some(Blob { path: path.to_vec(), file, hash: Sha256::new() });
        Ok(())
    }

    fn end(&mut self) -> Result<(), ClientError> {
        let Some(Blob { path, file, hash }) = self.open.take() else { return Ok(()) };
        let name: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let blob = self.store.join(&name);
        if !blob.exists() {
            file.sync_all().and_then(|()| fs::rename(self.unfinished(), &blob)).map_err(ClientError::sink)?;
            self.made.insert(blob);
        }
        self.entry(name.as_bytes(), &path);
        Ok(())
    }

    /// Two fields, each ended by a zero byte: names may hold anything else.
    fn entry(&mut self, what: &[u8], path: &[u8]) {
        self.index.extend_from_slice(&[what, b"\0", path, b"\0"].concat());
    }
}

impl Sink for Blobs {
    fn prepare(&mut self, tablespaces: &[Tablespace]) -> Result<(), ClientError> {
        self.tablespaces = tablespaces.to_vec();
        Ok(())
    }

    fn begin_member(&mut self, _header: &MemberHeader, member: &Member) -> Result<(), ClientError> {
        match member.kind {
            Kind::Directory => self.entry(b"directory", &member.path),
            Kind::File { .. } => self.begin(&member.path)?,
            Kind::Link { tablespace } => {
                let location = self.tablespaces.get(tablespace).map(|space| space.location.clone());
                self.entry(&[b"link:", &location.unwrap_or_default()[..]].concat(), &member.path);
            }
        }
        Ok(())
    }

    fn data(&mut self, bytes: &Bytes) -> Result<(), ClientError> {
        let Some(blob) = &mut self.open else { return Ok(()) };
        blob.hash.update(bytes);
        blob.file.write_all(bytes).map_err(ClientError::sink)
    }

    fn end_member(&mut self) -> Result<(), ClientError> {
        self.end()
    }

    fn finish(&mut self, manifest: Option<&[u8]>) -> Result<(), ClientError> {
        if let Some(manifest) = manifest {
            self.begin(b"backup_manifest")?;
            self.data(&Bytes::copy_from_slice(manifest))?;
            self.end()?;
        }
        let unfinished = self.unfinished();
        self.made.insert(unfinished.clone());
        let write = || {
            let mut index = File::create(&unfinished)?;
            index.write_all(&self.index)?;
            index.sync_all()?;
            File::open(&self.store)?.sync_all()
        };
        write().map_err(ClientError::sink)
    }

    fn publish(&mut self) -> Result<(), ClientError> {
        let name = self.store.join(format!("{}.index", self.name));
        let published = fs::rename(self.unfinished(), name).and_then(|()| File::open(&self.store)?.sync_all());
        published.map_err(ClientError::sink)?;
        self.made.clear();
        Ok(())
    }
}

impl Drop for Blobs {
    fn drop(&mut self) {
        for path in &self.made {
            // Nothing more can be done about what cannot be removed.
            let _ = fs::remove_file(path);
        }
    }
}

/// Backs the server at `conninfo` up as `name`, with the WAL that it needs.
pub(crate) async fn back_up(conninfo: &str, store: &Path, name: &str) -> Result<BackupSummary, Box<dyn Error>> {
    let mut server = Conninfo::parse(conninfo)?;
    server.fill_from(|variable| std::env::var(variable).ok())?;
    let mut login = server.login("blobs")?;
    for warning in server.look_up_passwords(&mut login) {
        eprintln!("WARNING: {warning}");
    }
    let mut options = BackupOptions::new(&login.user, Target::Sink(Box::new(Blobs::create(store, name)?)));
    options.login = login;
    options.wal = WalMethod::Fetch;
    options.fast_checkpoint = true;
    Ok(base_backup(Arc::new(server.connector()?), options, Arc::new(Silent)).await?)
}

/// What a backup consists of, and at which paths.
pub(crate) fn index(store: &Path, name: &str) -> Result<Vec<(Entry, PathBuf)>, Box<dyn Error>> {
    let index = fs::read(store.join(format!("{name}.index")))?;
    let fields: Vec<&[u8]> = index.split(|byte| *byte == 0).collect();
    let entry = |what: &[u8], path: &[u8]| {
        let entry = match what.strip_prefix(b"link:") {
            Some(location) => Entry::Link(PathBuf::from(OsStr::from_bytes(location))),
            None if what == b"directory" => Entry::Directory,
            None => Entry::File(std::str::from_utf8(what)?.to_owned()),
        };
        Ok((entry, PathBuf::from(OsStr::from_bytes(path))))
    };
    fields.as_chunks().0.iter().map(|[what, path]| entry(what, path)).collect()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [conninfo, store, name] = arguments.as_slice() else {
        return Err("usage: blobs CONNINFO STORE NAME".into());
    };
    let summary = back_up(conninfo, Path::new(store), name).await?;
    for (entry, path) in index(Path::new(store), name)? {
        let what = match entry {
            Entry::Directory => "directory".to_owned(),
            Entry::File(blob) => blob,
            Entry::Link(location) => format!("-> {}", location.display()),
        };
        println!("{what:64} {}", path.display());
    }
    println!("{} bytes, from {} to {}", summary.bytes, summary.start, summary.end);
    Ok(())
}
