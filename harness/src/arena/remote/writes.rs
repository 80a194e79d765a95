//! Commands that leave something on a server.
//!
//! What is not known to be harmless is not: SQL may call whatever there is.

use backstop_protocol::command::{self, Command, CommandError, OptionValue};
use backstop_protocol::version::ServerVersion;

/// Functions that only read.
const READERS: [&str; 20] = [
    "coalesce",
    "count",
    "current_setting",
    "max",
    "min",
    "now",
    "pg_backend_pid",
    "pg_control_checkpoint",
    "pg_control_system",
    "pg_current_wal_lsn",
    "pg_is_in_backup",
    "pg_is_in_recovery",
    "pg_last_wal_replay_lsn",
    "pg_ls_dir",
    "pg_ls_waldir",
    "pg_read_binary_file",
    "pg_stat_file",
    "pg_tablespace_location",
    "pg_walfile_name",
    "version",
];

/// What `command` leaves behind, if it may: in a walsender of a database, what is no replication command is SQL.
///
/// A backup by itself is not counted: it makes a checkpoint and switches WAL when it ends, as every backup does.
pub(super) fn writes(command: &str, version: ServerVersion, of_database: bool) -> Option<&'static str> {
    match command::parse(command, version) {
        Ok(parsed) => replication(&parsed.command),
        Err(CommandError::Syntax(_)) => None,
        // A walsender without a database refuses it.
        Err(CommandError::NotReplication) if !of_database => None,
        Err(CommandError::NotReplication) => sql(command),
    }
}

fn replication(command: &Command) -> Option<&'static str> {
    match command {
        Command::IdentifySystem
        | Command::Show(_)
        | Command::TimelineHistory(_)
        | Command::ReadReplicationSlot(_)
        | Command::UploadManifest => None,
        Command::BaseBackup(options) => {
            let stays =
                |value: &Option<OptionValue>| matches!(value, Some(OptionValue::Text(target)) if target == "server");
            let stays = options.iter().any(|option| option.name == "target" && stays(&option.value));
            stays.then_some("writes a backup to the server's disk")
        }
        Command::CreateReplicationSlot(slot) => (!slot.temporary).then_some("creates a replication slot"),
        Command::DropReplicationSlot { .. } => Some("drops a replication slot"),
        Command::AlterReplicationSlot { .. } => Some("alters a replication slot"),
        Command::StartReplication(start) => start.slot.is_some().then_some("moves a replication slot"),
    }
}

fn sql(text: &str) -> Option<&'static str> {
    const UNKNOWN: Option<&str> = Some("runs SQL that may write");
    let text = text.trim().trim_end_matches(';').to_ascii_lowercase();
    let mut words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
    match words.next() {
        Some("show") if !text.contains(';') => None,
        Some("select") if !text.contains(';') && !words.any(|word| word == "into" || word == "update") => {
            let calls = text.match_indices('(').filter_map(|(at, _)| {
                let before = text.get(..at)?.trim_end();
                let begin = before.rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
                before.get(begin..).filter(|name| !name.is_empty())
            });
            let mut strange = calls.filter(|name| !READERS.contains(name));
            if strange.next().is_none() { None } else { UNKNOWN }
        }
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_on_the_server_is_told() {
        let told = |command: &str| writes(command, ServerVersion::V18, true);
        for harmless in [
            "IDENTIFY_SYSTEM",
            "SHOW wal_segment_size",
            "BASE_BACKUP (LABEL 'x', CHECKPOINT 'fast')",
            "BASE_BACKUP (FOO 1)",
            "BASE_BACKUP LABEL 'x' FAST",
            "CREATE_REPLICATION_SLOT s TEMPORARY PHYSICAL",
            "START_REPLICATION 0/2000000 TIMELINE 1",
            "SELECT 1",
            "select pg_is_in_recovery(), version()",
            "show work_mem",
        ] {
            assert_eq!(told(harmless), None, "{harmless}");
        }
        for (command, what) in [
            ("CREATE_REPLICATION_SLOT s PHYSICAL", "creates a replication slot"),
            ("DROP_REPLICATION_SLOT s", "drops a replication slot"),
            ("START_REPLICATION SLOT s PHYSICAL 0/2000000", "moves a replication slot"),
            ("BASE_BACKUP (TARGET 'server', TARGET_DETAIL '/x')", "writes a backup to the server's disk"),
            ("SELECT pg_switch_wal()", "runs SQL that may write"),
            ("SELECT 1 INTO t", "runs SQL that may write"),
            ("SELECT 1; DROP TABLE t", "runs SQL that may write"),
            ("WITH x AS (DELETE FROM t RETURNING 1) SELECT * FROM x", "runs SQL that may write"),
            ("CREATE TABLE t ()", "runs SQL that may write"),
        ] {
            assert_eq!(told(command), Some(what), "{command}");
        }
        assert_eq!(writes("CREATE TABLE t ()", ServerVersion::V18, false), None);
    }
}
