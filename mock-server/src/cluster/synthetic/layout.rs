//! Which files a synthetic data directory has, and how large they are.

use std::sync::Arc;

use backstop_protocol::page::BLOCK_SIZE;
use backstop_protocol::version::ServerVersion;

use crate::config::{Config, Role, TablespaceConfig};

use super::contents::Layout;
use super::life::Life;
use super::small;
use super::{Node, NodeKind, Tablespace};

const BLOCK: u64 = BLOCK_SIZE as u64;

/// The database of the user.
const USER_DATABASE: u32 = 16_384;

/// Catalogs of every database with their blocks: `pg_type`, `pg_attribute`, `pg_proc`, `pg_class` with free space and
/// visibility maps, `pg_statistic`, two indexes, and two catalogs that are empty at first.
const CATALOGS: [(u32, Layout, u64); 7] = [
    (1247, Layout::Heap, 8),
    (1249, Layout::Heap, 16),
    (1255, Layout::Heap, 24),
    (1259, Layout::Heap, 8),
    (2619, Layout::Heap, 2),
    (2658, Layout::Index, 6),
    (2662, Layout::Index, 2),
];
const EMPTY_CATALOGS: [u32; 2] = [1417, 3118];

/// Shared catalogs: `pg_authid`, `pg_auth_members`, `pg_database`, `pg_tablespace`, `pg_shdepend`, and indexes of theirs.
const SHARED_CATALOGS: [(u32, Layout, u64); 8] = [
    (1213, Layout::Heap, 1),
    (1214, Layout::Heap, 1),
    (1260, Layout::Heap, 1),
    (1261, Layout::Heap, 1),
    (1262, Layout::Heap, 1),
    (2671, Layout::Index, 2),
    (2672, Layout::Index, 2),
    (2676, Layout::Index, 2),
];

/// Collects nodes, a parent directory before what it holds.
struct Builder {
    nodes: Vec<Node>,
}

impl Builder {
    fn push(&mut self, name: impl Into<String>, kind: NodeKind) {
        self.nodes.push(Node { name: name.into(), kind });
    }

    fn directory(&mut self, name: impl Into<String>) {
        self.push(name, NodeKind::Directory);
    }

    fn bytes(&mut self, name: impl Into<String>, content: impl Into<Arc<[u8]>>) {
        self.push(name, NodeKind::Bytes(content.into()));
    }

    fn fork(&mut self, name: impl Into<String>, layout: Layout, blocks: u64) {
        self.push(name, NodeKind::Fork(layout, blocks * BLOCK));
    }

    /// A table with its free space map and its visibility map.
    fn table(&mut self, directory: &str, relation: u32, blocks: u64) {
        self.fork(format!("{directory}/{relation}"), Layout::Heap, blocks);
        if blocks > 0 {
            // A leaf of the free space map knows about 4069 blocks, and two upper levels are always there; a page of the
            // visibility map knows 32672 blocks.
            self.fork(format!("{directory}/{relation}_fsm"), Layout::Map, 2 + blocks.div_ceil(4069));
            self.fork(format!("{directory}/{relation}_vm"), Layout::Map, blocks.div_ceil(32_672));
        }
    }

    fn size(&self) -> u64 {
        self.nodes.iter().map(Node::size).sum()
    }
}

/// How much of their usual size the catalogs have.
#[derive(Clone, Copy)]
struct Share {
    of: u64,
    whole: u64,
}

impl Share {
    fn take(self, blocks: u64) -> u64 {
        if self.of >= self.whole { blocks } else { (blocks * self.of / self.whole).max(1) }
    }
}

/// The base directory; with tables that do not keep their size if the cluster is `alive`.
pub(super) fn base(config: &Config, version: ServerVersion, tablespaces: &[Tablespace], alive: bool) -> Vec<Node> {
    let build = |share: Share, user_blocks: u64| {
        let mut builder = Builder { nodes: Vec::new() };
        databases(&mut builder, version, share, user_blocks, alive);
        global(&mut builder, version, share);
        top_level(&mut builder, config, version, tablespaces);
        builder
    };
    // In a small cluster the catalogs shrink, so that half of it is the user's: down to a block each.
    let usual = build(Share { of: 1, whole: 1 }, 0).size();
    let share = Share { of: config.size.min(2 * usual), whole: 2 * usual };
    let rest = config.size.saturating_sub(build(share, 0).size());
    build(share, rest / BLOCK).nodes
}

fn databases(builder: &mut Builder, version: ServerVersion, share: Share, user_blocks: u64, alive: bool) {
    builder.directory("base");
    let [template0, postgres] = version.initial_databases();
    for database in [1, template0, postgres, USER_DATABASE] {
        let directory = format!("base/{database}");
        builder.directory(&directory);
        for (relation, layout, blocks) in CATALOGS {
            match layout {
                Layout::Heap if blocks > 4 => builder.table(&directory, relation, share.take(blocks)),
                _ => builder.fork(format!("{directory}/{relation}"), layout, share.take(blocks)),
            }
        }
        for relation in EMPTY_CATALOGS {
            builder.fork(format!("{directory}/{relation}"), Layout::Heap, 0);
        }
        if database == USER_DATABASE {
            user_relations(builder, &directory, user_blocks);
            if alive {
                living_relations(builder, &directory);
            }
        }
        builder.bytes(format!("{directory}/PG_VERSION"), small::version(version));
        builder.bytes(format!("{directory}/pg_filenode.map"), small::relation_map(version, &[1247, 1249, 1255, 1259]));
    }
}

/// Tables of the user's with a share of `blocks` each: one large, one smaller, an index, a TOAST table, an empty one, and
/// the init forks of an unlogged table and its index, which are all that is sent of it.
fn user_relations(builder: &mut Builder, directory: &str, blocks: u64) {
    let maps = 4 + blocks / 4069 + blocks / 32_672;
    let blocks = blocks.saturating_sub(2 * maps);
    let part = |percent: u64| blocks / 100 * percent + blocks % 100 * percent / 100;
    builder.table(directory, 16_385, part(55));
    builder.fork(format!("{directory}/16388"), Layout::Heap, part(5));
    builder.fork(format!("{directory}/16389"), Layout::Index, part(1));
    builder.fork(format!("{directory}/16390"), Layout::Index, part(19));
    builder.table(directory, 16_391, part(20));
    builder.fork(format!("{directory}/16394"), Layout::Heap, 0);
    builder.fork(format!("{directory}/16397_init"), Layout::Heap, 0);
    builder.fork(format!("{directory}/16402_init"), Layout::Index, 1);
}

/// Tables of a cluster that changes.
fn living_relations(builder: &mut Builder, directory: &str) {
    for (life, number) in [(Life::Grows, 16_410), (Life::Breathes, 16_413), (Life::IsRewritten, 16_416)] {
        builder.push(directory, NodeKind::Living(life, number));
    }
}

fn global(builder: &mut Builder, version: ServerVersion, share: Share) {
    builder.directory("global");
    for (relation, layout, blocks) in SHARED_CATALOGS {
        builder.fork(format!("global/{relation}"), layout, share.take(blocks));
    }
    let mapped = SHARED_CATALOGS.map(|(relation, ..)| relation);
    builder.bytes("global/pg_filenode.map", small::relation_map(version, &mapped));
}

/// Everything beside `base` and `global`, `pg_wal` included as it is sent.
fn top_level(builder: &mut Builder, config: &Config, version: ServerVersion, tablespaces: &[Tablespace]) {
    builder.bytes("PG_VERSION", small::version(version));
    for directory in version.data_directories() {
        builder.directory(directory);
        let wal = version.wal_directory();
        if directory == wal {
            // In the last minor releases of 9.1 to 9.3, too: a backup with WAL brings `.done` files, and a client puts them here.
            builder.directory(format!("./{wal}/archive_status"));
            if version.has_wal_summaries() {
                builder.directory(format!("./{wal}/summaries"));
            }
        } else if directory == version.commit_status_directory() {
            builder.bytes(format!("{directory}/0000"), small::commit_status());
        } else if directory == "pg_logical" {
            builder.directory("pg_logical/mappings");
            builder.bytes("pg_logical/replorigin_checkpoint", small::replication_origins());
            builder.directory("pg_logical/snapshots");
        } else if directory == "pg_multixact" {
            for part in ["members", "offsets"] {
                builder.directory(format!("pg_multixact/{part}"));
                builder.bytes(format!("pg_multixact/{part}/0000"), vec![0; BLOCK_SIZE]);
            }
        } else if directory == "pg_tblspc" {
            for Tablespace { oid, location, in_place } in tablespaces {
                let kind = if *in_place { NodeKind::Directory } else { NodeKind::Symlink(location.clone()) };
                builder.push(format!("pg_tblspc/{oid}"), kind);
            }
        }
    }
    builder.bytes("pg_hba.conf", small::host_based_authentication(config.auth));
    builder.bytes("pg_ident.conf", small::user_name_maps());
    if version.has_auto_conf() {
        builder.bytes("postgresql.auto.conf", small::auto_conf());
    }
    builder.bytes("postgresql.conf", small::conf(config, version));
    if config.role == Role::Standby {
        if version.has_signal_files() {
            builder.bytes("standby.signal", Vec::new());
        } else {
            builder.bytes("recovery.conf", b"standby_mode = 'on'\n".to_vec());
        }
    }
}

/// A tablespace with a database of the user's: a table and an index. One without size has never been used.
pub(super) fn tablespace(tablespace: &TablespaceConfig, version: ServerVersion) -> Vec<Node> {
    let mut builder = Builder { nodes: Vec::new() };
    let top = version.tablespace_version_directory();
    builder.directory(&top);
    if tablespace.size > 0 {
        let directory = format!("{top}/{USER_DATABASE}");
        builder.directory(&directory);
        let blocks = tablespace.size / BLOCK;
        let maps = 2 + blocks / 4069 + 1 + blocks / 32_672 + 1;
        let blocks = blocks.saturating_sub(maps).max(1);
        let relation = tablespace.oid.saturating_add(1);
        builder.table(&directory, relation, blocks - blocks / 4);
        builder.fork(format!("{directory}/{}", relation.saturating_add(3)), Layout::Index, blocks / 4);
    }
    builder.nodes
}
