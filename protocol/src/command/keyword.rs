//! The keywords of the replication grammar, and the releases that know them.

use crate::version::Flavour;
use crate::version::ServerVersion::{self, V9_1, V9_3, V9_4, V9_5, V9_6, V10, V11, V13, V14, V15, V17};

/// One keyword of `repl_scanner.l`.
struct Keyword {
    word: &'static str,
    /// The first release that knows it.
    since: ServerVersion,
    /// The first release that no longer knows it.
    until: Option<ServerVersion>,
    /// Whether a replication command begins with it.
    begins_command: bool,
    /// Whose grammar has it; that of every server without it.
    flavour: Option<Flavour>,
}

const fn command(word: &'static str, since: ServerVersion) -> Keyword {
    Keyword { word, since, until: None, begins_command: true, flavour: None }
}

const fn word(word: &'static str, since: ServerVersion) -> Keyword {
    Keyword { word, since, until: None, begins_command: false, flavour: None }
}

/// An option of BASE_BACKUP: a keyword of its own until option lists came with 15.
const fn backup_option(word: &'static str, since: ServerVersion) -> Keyword {
    Keyword { word, since, until: Some(V15), begins_command: false, flavour: None }
}

/// Options that never were keywords (SNAPSHOT, FAILOVER, TARGET …) are identifiers.
const KEYWORDS: [Keyword; 32] = [
    command("ALTER_REPLICATION_SLOT", V17),
    command("BASE_BACKUP", V9_1),
    command("CREATE_REPLICATION_SLOT", V9_4),
    command("DROP_REPLICATION_SLOT", V9_4),
    command("IDENTIFY_SYSTEM", V9_1),
    command("READ_REPLICATION_SLOT", V15),
    command("SHOW", V10),
    command("START_REPLICATION", V9_1),
    command("TIMELINE_HISTORY", V9_3),
    command("UPLOAD_MANIFEST", V17),
    word("EXPORT_SNAPSHOT", V10),
    word("LOGICAL", V9_4),
    word("NOEXPORT_SNAPSHOT", V10),
    word("PHYSICAL", V9_4),
    word("RESERVE_WAL", V9_6),
    word("SLOT", V9_4),
    word("TEMPORARY", V10),
    word("TIMELINE", V9_3),
    word("TWO_PHASE", V14),
    word("USE_SNAPSHOT", V10),
    word("WAIT", V10),
    backup_option("FAST", V9_1),
    Keyword { flavour: Some(Flavour::IncrementalPoc), ..backup_option("INCREMENTAL", V9_1) },
    backup_option("LABEL", V9_1),
    backup_option("MANIFEST", V13),
    backup_option("MANIFEST_CHECKSUMS", V13),
    backup_option("MAX_RATE", V9_4),
    backup_option("NOVERIFY_CHECKSUMS", V11),
    backup_option("NOWAIT", V9_1),
    backup_option("PROGRESS", V9_1),
    backup_option("TABLESPACE_MAP", V9_5),
    backup_option("WAL", V9_1),
];

/// The keyword spelled `text`, if that release knows one. Keywords are case-sensitive.
pub(super) fn find(text: &str, version: ServerVersion, flavour: Flavour) -> Option<&'static str> {
    known(text, version).filter(|keyword| keyword.flavour.is_none_or(|its| its == flavour)).map(|keyword| keyword.word)
}

/// Whether `text` is a keyword that begins a replication command of that release.
pub(super) fn begins_command(text: &str, version: ServerVersion) -> bool {
    known(text, version).is_some_and(|keyword| keyword.begins_command)
}

/// Whether an option in a list can have the name of this keyword. `repl_gram.y` forgets one, in `ident_or_keyword`.
pub(super) fn names_option(word: &str) -> bool {
    word != "READ_REPLICATION_SLOT"
}

fn known(text: &str, version: ServerVersion) -> Option<&'static Keyword> {
    KEYWORDS.iter().find(|keyword| {
        keyword.word == text && keyword.since <= version && keyword.until.is_none_or(|end| version < end)
    })
}
