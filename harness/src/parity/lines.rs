//! What was said as lines that two servers can share: without what is a server's own.
//!
//! Another server has another system identifier, other positions in its WAL, process ids, sizes and relations. Positions are
//! taken out of the lines and kept beside them.

use std::collections::BTreeSet;

use backstop_mock::transcript::Direction;
use backstop_protocol::lsn::Lsn;

use crate::witness::said::Said;

/// How the line of a backup label begins that tells a time.
const TIME: &str = "START TIME: ";

/// A line, and the positions that stood in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) positions: Vec<Lsn>,
}

/// The lines of a session. WAL that is still on its way when a client has had enough comes behind its CopyDone, or does not: that is chance,
/// and it counts as one stream. Whether a goodbye is heard, and behind which of the server's last words, is chance, too.
pub(super) fn lines(said: &[Said]) -> Vec<Line> {
    let mut streams = false;
    let told = said.iter().filter(|said| {
        let is_wal = said.message == "CopyData"
            && said.fields.first().is_some_and(|(name, value)| name == "of" && value == "wal");
        let goes_on = is_wal && streams;
        streams = (streams || is_wal) && said.message != "Query";
        !goes_on && said.message != "Terminate"
    });
    told.map(line).collect()
}

fn line(said: &Said) -> Line {
    let mut positions = Vec::new();
    let sign = if said.direction == Direction::Sent { '>' } else { '<' };
    let is_archive = said.message == "CopyData" && said.fields.iter().any(|(name, _)| name == "member");
    let fields: Vec<String> = if is_archive {
        members(&said.fields)
    } else {
        let shown = said.fields.iter().filter_map(|(name, value)| field(said.message, name, value, &mut positions));
        shown.collect()
    };
    Line { text: format!("{sign} {} {}", said.message, fields.join(", ")).trim_end().to_owned(), positions }
}

fn field(message: &str, name: &str, value: &str, positions: &mut Vec<Lsn>) -> Option<String> {
    let value = match (message, name) {
        // The line of the source differs from one minor release to the next.
        ("ErrorResponse" | "NoticeResponse", "L") => return None,
        ("DataRow", "systemid") => "[systemid]".to_owned(),
        ("DataRow", "size") if value.bytes().all(|byte| byte.is_ascii_digit()) => "[size]".to_owned(),
        // Packaged builds add words after the number.
        ("ParameterStatus", "server_version") => value.split(['.', ' ']).next().unwrap_or_default().to_owned(),
        _ => redacted(value, positions),
    };
    Some(if name.is_empty() { value } else { format!("{name}={value}") })
}

/// The names in an archive: its first and its last member, and between them each kind of file once. Which relations there are is
/// the cluster's own business.
fn members(fields: &[(String, String)]) -> Vec<String> {
    let names: Vec<String> =
        fields.iter().filter(|(name, _)| name == "member").map(|(_, value)| kind_of_file(value)).collect();
    let between: BTreeSet<&String> = names.iter().take(names.len().saturating_sub(1)).skip(1).collect();
    let ends = fields.iter().any(|(name, _)| name == "end");
    let mut all = vec![format!("first {}", names.first().map_or("nothing", String::as_str))];
    all.extend(between.into_iter().cloned());
    all.push(format!("last {}", names.last().map_or("nothing", String::as_str)));
    all.push(if ends { "two zero blocks".to_owned() } else { "no zero blocks".to_owned() });
    all
}

/// A name with `#` in place of numbers and of relations: `base/#/#`, `pg_wal/#`.
fn kind_of_file(name: &str) -> String {
    let parts = name.split('/').map(|part| {
        let segment = part.split_at_checked(24).filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_hexdigit()));
        // Whether it was archived stands behind it.
        if let Some((_, rest)) = segment {
            return format!("#{rest}");
        }
        let (before, part) = match part.strip_prefix("INCREMENTAL.") {
            Some(relation) => ("INCREMENTAL.", relation),
            None => ("", part),
        };
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        match part.get(digits..) {
            Some(rest) if digits > 0 => {
                // The segment of a large relation, and its fork.
                let rest = rest.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
                format!("{before}#{}", if ["_fsm", "_vm", "_init"].contains(&rest) { "" } else { rest })
            }
            _ => format!("{before}{part}"),
        }
    });
    parts.collect::<Vec<_>>().join("/")
}

/// A text without times, positions, names of segments and process ids.
fn redacted(text: &str, positions: &mut Vec<Lsn>) -> String {
    let lines = text.split('\n').map(|line| match line.strip_prefix(TIME) {
        Some(_) => format!("{TIME}[time]"),
        None => redacted_line(line, positions),
    });
    lines.collect::<Vec<_>>().join("\\n")
}

fn redacted_line(text: &str, positions: &mut Vec<Lsn>) -> String {
    let mut out = String::new();
    for word in words(text) {
        if let Some(position) = position(word) {
            positions.push(position);
            out.push_str("[lsn]");
        } else if word.len() == 24 && word.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte)) {
            out.push_str("[segment]");
        } else if word.bytes().all(|byte| byte.is_ascii_digit())
            && (out.ends_with("PID ") || out.ends_with("pg_basebackup_"))
        {
            out.push_str("[pid]");
        } else {
            out.push_str(word);
        }
    }
    out
}

/// Splits a text into words and what stands between them.
fn words(text: &str) -> Vec<&str> {
    let in_word = |c: char| c.is_ascii_alphanumeric() || c == '/';
    let mut all = Vec::new();
    let mut begin = 0;
    let mut before = None;
    for (at, c) in text.char_indices() {
        if before.is_some_and(|before| before != in_word(c)) {
            all.push(text.get(begin..at).unwrap_or_default());
            begin = at;
        }
        before = Some(in_word(c));
    }
    all.push(text.get(begin..).unwrap_or_default());
    all
}

/// A position as PostgreSQL prints it: `0/2000028`.
fn position(word: &str) -> Option<Lsn> {
    let (high, low) = word.split_once('/')?;
    let half = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte));
        !text.is_empty() && text.len() <= 8 && digits
    };
    (half(high) && half(low)).then(|| word.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(message: &'static str, fields: &[(&str, &str)]) -> Said {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Said { direction: Direction::Sent, message, fields }
    }

    #[test]
    fn what_is_a_servers_own_is_taken_out_and_nothing_else() {
        let told = [
            said("DataRow", &[("systemid", "7650837982420673414"), ("timeline", "1"), ("xlogpos", "0/2000028")]),
            said("DataRow", &[("spcoid", "16400"), ("spclocation", "/srv/a"), ("size", "1024")]),
            said("ParameterStatus", &[("server_version", "15.18 (Debian 15.18-0+deb12u1)")]),
            said(
                "ErrorResponse",
                &[("C", "55006"), ("M", "slot \"s\" is active for PID 4711"), ("L", "567"), ("R", "f")],
            ),
            said("ErrorResponse", &[("M", "requested WAL segment 000000010000000000000002 has already been removed")]),
            said("ParameterStatus", &[("DateStyle", "ISO, MDY")]),
        ];
        let texts: Vec<_> = lines(&told).into_iter().map(|line| line.text).collect();
        insta::assert_snapshot!(texts.join("\n"), @r#"
        > DataRow systemid=[systemid], timeline=1, xlogpos=[lsn]
        > DataRow spcoid=16400, spclocation=/srv/a, size=[size]
        > ParameterStatus server_version=15
        > ErrorResponse C=55006, M=slot "s" is active for PID [pid], R=f
        > ErrorResponse M=requested WAL segment [segment] has already been removed
        > ParameterStatus DateStyle=ISO, MDY
        "#);
        assert_eq!(lines(&told)[0].positions, [Lsn(0x0200_0028)]);
    }

    #[test]
    fn a_stream_is_one_however_it_ends() {
        let wal = || said("CopyData", &[("of", "wal"), ("from", "0/2000000")]);
        let query = || Said { direction: Direction::Received, ..said("Query", &[("", "START_REPLICATION 0/2000000")]) };
        let told = [query(), wal(), said("CopyDone", &[]), wal(), query(), wal()];
        let texts: Vec<_> = lines(&told).into_iter().map(|line| line.text).collect();
        assert_eq!(texts.iter().filter(|text| text.contains("of=wal")).count(), 2, "{texts:?}");
    }

    #[test]
    fn an_archive_is_its_kinds_of_files() {
        let names = ["backup_label", "base/1/1255", "base/1/1255.1", "base/5/2619_fsm", "pg_wal/", "global/pg_control"];
        assert_eq!(kind_of_file("pg_wal/archive_status/000000010000000000000FF1.done"), "pg_wal/archive_status/#.done");
        assert_eq!(kind_of_file("base/5/INCREMENTAL.2600_vm"), "base/#/INCREMENTAL.#");
        assert_eq!(kind_of_file("global/INCREMENTAL.2600"), "global/INCREMENTAL.#");
        let mut fields: Vec<_> = names.iter().map(|name| ("member", *name)).collect();
        fields.push(("end", ""));
        let line = &lines(&[said("CopyData", &fields)])[0];
        assert_eq!(
            line.text,
            "> CopyData first backup_label, base/#/#, pg_wal/, last global/pg_control, two zero blocks"
        );
    }
}
