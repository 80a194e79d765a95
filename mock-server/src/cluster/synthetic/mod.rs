//! A data directory as `initdb` and some use would leave it, of which nothing exists.
//!
//! [`layout`] decides which files there are and how large, [`small`] writes the real content of the small ones, and
//! [`contents`] makes the pages of relations, [`change`] decides when they change, [`extra`] is what the configuration adds and
//! damages. A relation is listed file by file only while somebody walks, so that the
//! number of files costs no memory.

mod change;
pub(super) mod contents;
mod extra;
mod image;
mod layout;
mod life;
mod small;

use std::collections::BTreeMap;
use std::sync::Arc;

use backstop_protocol::control::ControlFile;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::version::ServerVersion;

use crate::config::{Config, ConfigError, TablespaceConfig};

use super::entry::{Entry, EntryKind, Origin};
use super::{Facts, Tablespace};
use change::Rhythm;
use contents::{Pages, SEGMENT_BYTES};
use life::Life;

pub(super) use extra::damage;

/// A system identifier as `initdb` makes one, an hour before the life of the server begins: seconds, microseconds, PID.
pub(super) fn system_identifier(seed: u64, epoch: i64) -> u64 {
    let chance = contents::key(seed, b"system identifier");
    let seconds = u64::try_from(epoch).unwrap_or(0).saturating_sub(3600);
    seconds << 32 | (chance % 1_000_000) << 12 | (chance >> 32) & 0xFFF
}

/// `pg_control` but for what changes.
pub(super) fn control(config: &Config, facts: &Facts) -> ControlFile {
    let mut nonce = [0; 32];
    for (part, index) in nonce.chunks_exact_mut(8).zip(0_u8..) {
        part.copy_from_slice(&contents::key(config.seed, &[b'n', index]).to_le_bytes());
    }
    ControlFile {
        max_wal_senders: config.max_wal_senders,
        wal_segment_size: facts.segment_size,
        data_checksum_version: u32::from(facts.checksums),
        nonce,
        ..ControlFile::new(facts.version, facts.system_identifier, config.timeline)
    }
}

/// The most that a synthetic base directory or tablespace can hold: the size of the largest relation.
const SIZE_LIMIT: u64 = 32 << 40;

/// The files of a synthetic cluster.
#[derive(Debug)]
pub(super) struct Synthetic {
    base: Arc<[Node]>,
    tablespaces: BTreeMap<u32, Arc<[Node]>>,
    /// What the configuration adds to the base directory.
    extra: Vec<Entry>,
    /// Damaged blocks, ascending, by the path of their file in the manifest.
    damaged: BTreeMap<String, Arc<[u32]>>,
    seed: u64,
    epoch: u64,
    checksums: bool,
    oldest_lsn: Lsn,
    newest_lsn: Lsn,
    rhythm: Rhythm,
}

/// One line of the layout.
#[derive(Debug)]
struct Node {
    /// Without a slash at the end; a relation's without the number of a file.
    name: String,
    kind: NodeKind,
}

#[derive(Debug)]
enum NodeKind {
    Directory,
    Symlink(String),
    Bytes(Arc<[u8]>),
    /// A fork of so many bytes, in files of at most 1 GiB.
    Fork(contents::Layout, u64),
    /// A small relation that does not keep its size, whose name is its first number in its database.
    Living(Life, u64),
}

impl Node {
    /// Bytes that do not change.
    fn size(&self) -> u64 {
        match &self.kind {
            NodeKind::Directory | NodeKind::Symlink(_) | NodeKind::Living(..) => 0,
            NodeKind::Bytes(bytes) => bytes.len() as u64,
            NodeKind::Fork(_, bytes) => *bytes,
        }
    }

    /// How many entries the node makes.
    fn entries(&self) -> u64 {
        match self.kind {
            NodeKind::Fork(_, bytes) => bytes.div_ceil(SEGMENT_BYTES).max(1),
            NodeKind::Directory | NodeKind::Symlink(_) | NodeKind::Bytes(_) | NodeKind::Living(..) => 1,
        }
    }
}

impl Synthetic {
    /// The files of a cluster whose page LSNs lie before `wal_start`, and of which about `percent` of the blocks change with each
    /// WAL segment after that.
    pub(super) fn new(
        config: &Config,
        facts: &Facts,
        epoch: i64,
        wal_start: Lsn,
        percent: u64,
    ) -> Result<Self, ConfigError> {
        check_size("cluster.size", config.size)?;
        let tablespaces = tablespaces(config, facts.version)?;
        let rhythm = Rhythm::new(percent, facts.segment_size, wal_start);
        let base: Arc<[Node]> = layout::base(config, facts.version, &tablespaces, rhythm.is_alive()).into();
        let mut directories = BTreeMap::new();
        for tablespace in &config.tablespaces {
            check_size(&format!("cluster.tablespace {}: size", tablespace.oid), tablespace.size)?;
            directories.insert(tablespace.oid, layout::tablespace(tablespace, facts.version).into());
        }
        let epoch = u64::try_from(epoch).unwrap_or(0);
        let synthetic = Self {
            extra: extra::entries(config, facts.version, &base, epoch)?,
            damaged: extra::damaged(config)?,
            base,
            tablespaces: directories,
            seed: config.seed,
            epoch,
            checksums: facts.checksums,
            oldest_lsn: Lsn(facts.segment_size.bytes() + 0x28),
            newest_lsn: wal_start,
            rhythm,
        };
        for (path, blocks) in &synthetic.damaged {
            synthetic.check_damage(path, blocks)?;
        }
        Ok(synthetic)
    }

    pub(super) fn has_damage(&self) -> bool {
        !self.damaged.is_empty()
    }

    /// Only blocks that exist can be damaged.
    fn check_damage(&self, path: &str, blocks: &[u32]) -> Result<(), ConfigError> {
        let refuse = |problem: String| Err(ConfigError::invalid(format!("damaged page of {path}"), problem));
        let parts = self.tablespaces.keys().map(|oid| (Some(*oid), self.tablespaces.get(oid)));
        for (oid, nodes) in parts.chain([(None, Some(&self.base))]) {
            let below = oid.map(|oid| format!("pg_tblspc/{oid}/")).unwrap_or_default();
            for node in nodes.into_iter().flat_map(|nodes| nodes.iter()) {
                let NodeKind::Fork(_, bytes) = node.kind else { continue };
                let name = path.strip_prefix(&below).unwrap_or_default();
                let Some(rest) = name.strip_prefix(&node.name) else { continue };
                let file = if rest.is_empty() { Some(0) } else { rest.strip_prefix('.').and_then(|n| n.parse().ok()) };
                let Some(file) = file.filter(|file| *file < node.entries()) else { continue };
                let here =
                    (bytes - file * SEGMENT_BYTES).min(SEGMENT_BYTES) / backstop_protocol::page::BLOCK_SIZE as u64;
                return match blocks.iter().find(|block| u64::from(**block) >= here) {
                    Some(block) => refuse(format!("the file has {here} blocks, and none that is block {block}")),
                    None => Ok(()),
                };
            }
        }
        refuse("there is no such file of a relation".to_owned())
    }

    fn nodes(&self, oid: Option<u32>) -> Option<&Arc<[Node]>> {
        oid.map_or(Some(&self.base), |oid| self.tablespaces.get(&oid))
    }

    /// Bytes of all files as a backup that starts at `position` finds them.
    pub(super) fn size(&self, oid: Option<u32>, position: Lsn) -> u64 {
        let age = self.rhythm.age(self.rhythm.generation(position));
        let size = |node: &Node| match node.kind {
            NodeKind::Living(life, _) => living_size(life, age),
            _ => node.size(),
        };
        let extra = if oid.is_none() { self.extra.iter().map(Entry::size).sum() } else { 0 };
        extra + self.nodes(oid).map_or(0, |nodes| nodes.iter().map(size).sum::<u64>())
    }

    /// Walks the base directory or a tablespace as a backup that starts at `position` finds it. A tablespace that does not exist
    /// is empty.
    pub(super) fn entries(
        self: &Arc<Self>,
        oid: Option<u32>,
        position: Lsn,
    ) -> impl Iterator<Item = Entry> + Send + use<> {
        let nodes = self.nodes(oid).map_or_else(|| Arc::from([]), Arc::clone);
        let generation = self.rhythm.generation(position);
        let extra = if oid.is_none() { self.extra.clone() } else { Vec::new() };
        Walk { synthetic: Arc::clone(self), nodes, in_tablespace: oid, generation, node: 0, file: 0 }.chain(extra)
    }

    /// A table's first file, which never changes.
    fn pages(&self, key: u64, generation: u64) -> Pages {
        Pages {
            key,
            layout: contents::Layout::Heap,
            first_block: 0,
            checksums: self.checksums,
            oldest_lsn: self.oldest_lsn,
            newest_lsn: self.newest_lsn,
            rhythm: self.rhythm,
            every: 0,
            life: None,
            generation,
        }
    }

    /// The entry for file number `file` of `node`.
    fn entry(&self, node: &Node, file: u64, oid: Option<u32>, generation: u64) -> Entry {
        /// Files were changed last within this many seconds.
        const AGE: u64 = 30 * 86_400;
        let mut name = node.name.clone();
        let age = self.rhythm.age(generation);
        if let NodeKind::Living(life, number) = node.kind {
            name = format!("{name}/{}", number + life.files_before(age));
        }
        // What a file holds must not depend on where its tablespace is listed.
        let unique = oid.map_or_else(|| name.clone(), |oid| format!("pg_tblspc/{oid}/{name}"));
        let key = contents::key(self.seed, unique.as_bytes());
        let mut mtime = self.epoch.saturating_sub(contents::mix(key ^ file) % AGE);
        let (kind, mode, origin) = match &node.kind {
            NodeKind::Directory => {
                name.push('/');
                (EntryKind::Directory, 0o700, Origin::Nothing)
            }
            NodeKind::Symlink(target) => {
                name.push('/');
                (EntryKind::Symlink { target: target.clone().into_bytes() }, 0o777, Origin::Nothing)
            }
            NodeKind::Bytes(bytes) => {
                (EntryKind::File { size: bytes.len() as u64 }, 0o600, Origin::Bytes(Arc::clone(bytes)))
            }
            NodeKind::Fork(layout, bytes) => {
                if file > 0 {
                    name = format!("{name}.{file}");
                }
                let size = (bytes - file * SEGMENT_BYTES).min(SEGMENT_BYTES);
                let blocks = file * u64::from(backstop_protocol::page::BLOCKS_PER_FILE);
                // Nothing writes to an init fork.
                let every = if node.name.ends_with("_init") { 0 } else { self.rhythm.of_relation(key) };
                if every > 0 && age > 0 {
                    mtime = self.epoch;
                }
                let first_block = u32::try_from(blocks).unwrap_or(u32::MAX);
                let pages = Pages { layout: *layout, first_block, every, ..self.pages(key, generation) };
                let path = if file > 0 { format!("{unique}.{file}") } else { unique.clone() };
                let origin = match self.damaged.get(&path) {
                    Some(blocks) => Origin::Damaged(pages, Arc::clone(blocks)),
                    None => Origin::Pages(pages),
                };
                (EntryKind::File { size }, 0o600, origin)
            }
            NodeKind::Living(life, _) => {
                if age > 0 {
                    mtime = self.epoch;
                }
                let pages = Pages { life: Some(*life), ..self.pages(key, generation) };
                (EntryKind::File { size: living_size(*life, age) }, 0o600, Origin::Pages(pages))
            }
        };
        Entry { name: name.into_bytes(), kind, mode, mtime, origin }
    }
}

fn living_size(life: Life, age: u64) -> u64 {
    u64::from(life.blocks(age)) * backstop_protocol::page::BLOCK_SIZE as u64
}

/// Goes through a layout, one entry at a time.
struct Walk {
    synthetic: Arc<Synthetic>,
    nodes: Arc<[Node]>,
    in_tablespace: Option<u32>,
    generation: u64,
    node: usize,
    file: u64,
}

impl Iterator for Walk {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let node = self.nodes.get(self.node)?;
        let entry = self.synthetic.entry(node, self.file, self.in_tablespace, self.generation);
        self.file += 1;
        if self.file >= node.entries() {
            self.node += 1;
            self.file = 0;
        }
        Some(entry)
    }
}

fn check_size(key: &str, size: u64) -> Result<(), ConfigError> {
    if size > SIZE_LIMIT { Err(ConfigError::invalid(key, "more than 32TiB")) } else { Ok(()) }
}

/// The tablespaces of the configuration, ascending, each checked as CREATE TABLESPACE checks it.
pub(super) fn tablespaces(config: &Config, version: ServerVersion) -> Result<Vec<Tablespace>, ConfigError> {
    /// `FirstNormalObjectId`.
    const FIRST_OID: u32 = 16_384;
    /// `MAXPGPATH`, less what stands below a location.
    const LOCATION_LIMIT: usize = 900;
    let mut all = BTreeMap::new();
    for TablespaceConfig { oid, location, .. } in &config.tablespaces {
        let refuse = |problem: &str| Err(ConfigError::invalid(format!("cluster.tablespace {oid}"), problem));
        let in_place = *location == format!("pg_tblspc/{oid}");
        if *oid < FIRST_OID {
            return refuse("its OID is not that of a user's object, which begin at 16384");
        }
        if !in_place && !location.starts_with('/') {
            return refuse("tablespace location must be an absolute path");
        }
        if in_place && !version.has_in_place_tablespaces() {
            return refuse("tablespaces in place exist since 15");
        }
        if location.len() > LOCATION_LIMIT || location.contains('\0') {
            return refuse("tablespace location is too long");
        }
        if all.values().any(|other: &Tablespace| other.location == *location) {
            return refuse("its location is another tablespace's");
        }
        if all.insert(*oid, Tablespace { oid: *oid, location: location.clone(), in_place }).is_some() {
            return refuse("its OID is another tablespace's");
        }
    }
    Ok(all.into_values().collect())
}
