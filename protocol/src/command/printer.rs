//! The text of a command as stock clients write it.
//!
//! Options follow `AppendPlainCommandOption` of `streamutil.c`, which puts a blank before every option and, unless the
//! option is the first of a list, a separator before that blank: `( LABEL 'x',  WAIT 0)`, `PHYSICAL  RESERVE_WAL`.

use super::{Command, CommandOption, CreateSlot, OptionValue, SlotKind, StartKind, StartReplication, keyword};
use crate::version::ServerVersion;

impl Command {
    /// The text that pg_basebackup and pg_receivewal send to a server of `version`.
    ///
    /// Options are printed under the names they have here; what a release does not know is not left out.
    pub fn to_sql(&self, version: ServerVersion) -> String {
        let mut sql = self.name().to_owned();
        match self {
            Self::IdentifySystem | Self::UploadManifest => {}
            Self::Show(name) => push(&mut sql, &setting(name)),
            Self::TimelineHistory(timeline) => push(&mut sql, &timeline.to_string()),
            Self::BaseBackup(options) => backup_options(&mut sql, options, version),
            Self::CreateReplicationSlot(create) => create_slot(&mut sql, create, version),
            Self::DropReplicationSlot { slot, wait } => {
                push(&mut sql, &quoted_identifier(slot));
                if *wait {
                    push(&mut sql, "WAIT");
                }
            }
            Self::AlterReplicationSlot { slot, options } => {
                push(&mut sql, &quoted_identifier(slot));
                option_list(&mut sql, options);
            }
            Self::ReadReplicationSlot(slot) => push(&mut sql, &quoted_identifier(slot)),
            Self::StartReplication(start) => start_replication(&mut sql, start),
        }
        sql
    }
}

fn push(sql: &mut String, word: &str) {
    sql.push(' ');
    sql.push_str(word);
}

fn backup_options(sql: &mut String, options: &[CommandOption], version: ServerVersion) {
    if version.has_option_lists() {
        option_list(sql, options);
        return;
    }
    for option in options {
        sql.push(' ');
        push(sql, &option_text(option));
    }
}

/// ` ( A 'x',  B)`, or nothing without options.
fn option_list(sql: &mut String, options: &[CommandOption]) {
    if options.is_empty() {
        return;
    }
    let options: Vec<_> = options.iter().map(option_text).collect();
    push(sql, "( ");
    sql.push_str(&options.join(",  "));
    sql.push(')');
}

fn option_text(option: &CommandOption) -> String {
    let upper = option.name.to_ascii_uppercase();
    let plain = is_plain(&option.name) && keyword::names_option(&upper);
    let name = if plain { upper } else { quoted_identifier(&option.name) };
    match &option.value {
        None => name,
        Some(OptionValue::Text(text)) => format!("{name} {}", literal(text)),
        Some(OptionValue::Integer(number)) => format!("{name} {number}"),
    }
}

fn create_slot(sql: &mut String, create: &CreateSlot, version: ServerVersion) {
    push(sql, &quoted_identifier(&create.slot));
    if create.temporary {
        push(sql, "TEMPORARY");
    }
    match &create.kind {
        SlotKind::Physical => push(sql, "PHYSICAL"),
        SlotKind::Logical { plugin } => {
            push(sql, "LOGICAL");
            push(sql, &quoted_identifier(plugin));
        }
    }
    if version.has_option_lists() {
        option_list(sql, &create.options);
        return;
    }
    for option in &create.options {
        sql.push(' ');
        push(sql, &slot_keyword(option));
    }
}

/// The keyword that stood for an option before there were option lists.
fn slot_keyword(option: &CommandOption) -> String {
    let word = match (option.name.as_str(), &option.value) {
        ("snapshot", Some(OptionValue::Text(action))) => match action.as_str() {
            "export" => "EXPORT_SNAPSHOT",
            "nothing" => "NOEXPORT_SNAPSHOT",
            "use" => "USE_SNAPSHOT",
            _ => return option_text(option),
        },
        _ => return option_text(option),
    };
    word.to_owned()
}

fn start_replication(sql: &mut String, start: &StartReplication) {
    if let Some(slot) = &start.slot {
        push(sql, "SLOT");
        push(sql, &quoted_identifier(slot));
    }
    match &start.kind {
        StartKind::Physical { timeline } => {
            push(sql, &start.start.to_string());
            if let Some(timeline) = timeline {
                push(sql, &format!("TIMELINE {timeline}"));
            }
        }
        StartKind::Logical { options } => {
            push(sql, &format!("LOGICAL {}", start.start));
            if options.is_empty() {
                return;
            }
            let options: Vec<_> = options.iter().map(plugin_option).collect();
            push(sql, &format!("({})", options.join(", ")));
        }
    }
}

/// An option of an output plugin as pg_recvlogical writes it: the name is always quoted.
fn plugin_option(option: &CommandOption) -> String {
    let name = quoted_identifier(&option.name);
    match &option.value {
        None => name,
        Some(OptionValue::Text(text)) => format!("{name} {}", literal(text)),
        Some(OptionValue::Integer(number)) => format!("{name} '{number}'"),
    }
}

/// A setting's name: as it is, unless a part of it would be folded or is no identifier.
fn setting(name: &str) -> String {
    if name.split('.').all(is_plain) { name.to_owned() } else { quoted_identifier(name) }
}

/// Whether a name can stand without quotes and comes back from the server's scanner unchanged.
fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '$'))
}

/// `"name"`. A double quote inside is doubled, as everywhere in SQL, although walsenders read that only in minor
/// releases newer than those of [`ServerVersion::announced`].
fn quoted_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
