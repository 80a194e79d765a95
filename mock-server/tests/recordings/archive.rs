//! A tar archive, member by member, and what of it must be as the recorded server had it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::compare::Correspondence;

const BLOCK: usize = 512;

/// What the session `odd-files` left in the data directory of the recorded server. They are there in that session at least:
/// it has others that come and go.
const LEFTOVERS: [&str; 9] = [
    "backup_label.old",
    "current_logfiles.tmp",
    "empty",
    "odddir/",
    "odddir/sub/",
    "odddir/sub/f",
    "oddfile",
    "pgsql_tmp_top",
    "recovery.signal.x",
];

/// A member as the recorder described it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) kind: char,
    mode: String,
    link: String,
    pub(crate) content: Vec<u8>,
    /// Header fields that are the same in all members, but for owner and group, who are the machine's own.
    fixed: String,
    size: u64,
    checksum_right: bool,
}

/// Reads an archive as it comes.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    input: Vec<u8>,
    /// Content and padding still to come.
    left: u64,
    padding: u64,
    pub(crate) members: Vec<Member>,
    zero_blocks: usize,
    after_zero: usize,
    dirty_padding: usize,
}

impl Archive {
    pub(crate) fn feed(&mut self, data: &[u8]) {
        /// What is kept of a member's content.
        const KEPT: usize = 8192;
        self.input.extend_from_slice(data);
        let mut at = 0;
        loop {
            let rest = &self.input[at..];
            if self.left > 0 {
                let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                if let Some(member) = self.members.last_mut() {
                    let keep = KEPT.saturating_sub(member.content.len()).min(taken);
                    member.content.extend_from_slice(&rest[..keep]);
                }
                self.left -= taken as u64;
                at += taken;
                if self.left > 0 {
                    break;
                }
                continue;
            }
            let padding = usize::try_from(self.padding).unwrap_or_default();
            if rest.len() < padding.max(1) {
                break;
            }
            if padding > 0 {
                self.dirty_padding += usize::from(rest[..padding].iter().any(|byte| *byte != 0));
                self.padding = 0;
                at += padding;
                continue;
            }
            let Some(block) = rest.get(..BLOCK) else { break };
            if block.iter().all(|byte| *byte == 0) {
                self.zero_blocks += 1;
            } else {
                self.after_zero += usize::from(self.zero_blocks > 0);
                let (member, size) = member(block);
                self.left = if ['2', '5'].contains(&member.kind) { 0 } else { size };
                self.padding = self.left.next_multiple_of(BLOCK as u64) - self.left;
                self.members.push(member);
            }
            at += BLOCK;
        }
        self.input.drain(..at);
    }

    /// Compares the archive with the summary of a recorded one.
    ///
    /// The order in which a server reads its directories is its file system's; relation files are the cluster's own. What is
    /// compared are the members that the server itself puts first and last, the set of all others with type, mode and link,
    /// the contents of `backup_label` and `tablespace_map`, the headers and the end.
    pub(crate) fn compare(&self, recorded: &Value, same: &mut Correspondence) -> Result<(), String> {
        let number = |key: &str| usize::try_from(recorded[key].as_u64().unwrap_or_default()).unwrap_or(usize::MAX);
        let count = |what: &str, expected: usize, got: usize| {
            if expected == got { Ok(()) } else { Err(format!("archive: {what}: {got} instead of {expected}")) }
        };
        count("members after a zero block", number("members_after_zero_block"), self.after_zero)?;
        count("members with padding that is not zero", number("members_with_nonzero_padding"), self.dirty_padding)?;
        let broken = self.members.iter().filter(|member| !member.checksum_right).count();
        count("headers with a wrong checksum", 0, broken)?;
        let fixed: BTreeSet<_> = self.members.iter().map(|member| member.fixed.clone()).collect();
        let wanted = recorded["fixed_header_fields"].as_array().cloned().unwrap_or_default();
        let wanted: BTreeSet<_> = wanted.iter().map(fixed_fields).collect();
        if fixed != wanted && !fixed.is_empty() {
            return Err(format!("archive: header fields {fixed:?} instead of {wanted:?}"));
        }
        let Some(recorded_members) = recorded["members"].as_array() else { return Ok(()) };
        let wanted: Vec<_> = recorded_members.iter().filter_map(recorded_member).collect();
        // A base directory begins with its label and ends with its control file.
        let has = |name: &str| wanted.iter().any(|member| member.name == name);
        let unfinished = recorded.get("incomplete").is_some() || has("backup_label") && !has("global/pg_control");
        let named = |member: &&Member| !is_relation_file(member);
        let got: Vec<_> = self.members.iter().filter(named).cloned().collect();
        let (first, others, last) = parts(&wanted);
        let (our_first, our_others, our_last) = parts(&got);
        let places = [("first", first, our_first), ("last", last, our_last)];
        for (place, wanted, got) in places {
            if unfinished && place == "last" {
                continue;
            }
            let names = |members: &[Member]| members.iter().map(|member| member.name.clone()).collect::<Vec<_>>();
            same.text(&names(wanted).join("\n"), &names(got).join("\n")).map_err(|problem| {
                format!(
                    "archive: {place} members: {problem}\n  expected {:?}\n  got      {:?}",
                    names(wanted),
                    names(got)
                )
            })?;
            for (wanted, got) in wanted.iter().zip(got) {
                attributes(wanted, got)?;
                if !wanted.content.is_empty() {
                    let text = |member: &Member| String::from_utf8_lossy(&member.content).into_owned();
                    let (wanted_text, text) = (text(wanted), text(got));
                    same.text(&wanted_text, &text).map_err(|problem| {
                        format!("archive: {}: {problem}\n  expected {wanted_text:?}\n  got      {text:?}", got.name)
                    })?;
                }
            }
        }
        if unfinished {
            return Ok(());
        }
        count("zero blocks at the end", number("zero_blocks_at_end"), self.zero_blocks)?;
        set(others, our_others)
    }
}

/// Compares members whose order is not the server's decision.
fn set(wanted: &[Member], got: &[Member]) -> Result<(), String> {
    let names = |members: &[Member]| members.iter().map(|member| general(&member.name)).collect::<BTreeSet<_>>();
    let (wanted_names, got_names) = (names(wanted), names(got));
    let forgotten = |name: &&String| LEFTOVERS.contains(&name.as_str());
    let missing: Vec<_> = wanted_names.difference(&got_names).filter(|name| !forgotten(name)).collect();
    let extra: Vec<_> = got_names.difference(&wanted_names).collect();
    if !missing.is_empty() || !extra.is_empty() {
        return Err(format!("archive: members missing {missing:?}, not recorded {extra:?}"));
    }
    for member in wanted {
        if let Some(other) = got.iter().find(|other| general(&other.name) == general(&member.name)) {
            attributes(member, other)?;
        }
    }
    Ok(())
}

fn attributes(wanted: &Member, got: &Member) -> Result<(), String> {
    // The recorder named ordinary members only, and made a standby with a file of its own.
    let described = wanted.kind != '?' && wanted.name != "standby.signal";
    if described && wanted.name == "global/pg_control" && wanted.size != got.size {
        return Err(format!("archive: {}: {} bytes instead of {}", got.name, got.size, wanted.size));
    }
    let of = |member: &Member| (member.kind, member.mode.clone(), member.link.clone());
    if described && of(wanted) != of(got) {
        return Err(format!("archive: {}: type, mode and link {:?} instead of {:?}", got.name, of(got), of(wanted)));
    }
    Ok(())
}

/// What the server puts first, what it finds in its directories, and what it puts last.
fn parts(members: &[Member]) -> (&[Member], &[Member], &[Member]) {
    let own = |member: &Member| ["backup_label", "tablespace_map"].contains(&member.name.as_str());
    let first = members.iter().take_while(|member| own(member)).count();
    let control = members.iter().position(|member| member.name == "global/pg_control");
    let last = control.unwrap_or(members.len()).max(first);
    (&members[..first], &members[first..last], &members[last..])
}

/// Databases other than template1 have had other OIDs before 15.
fn general(name: &str) -> String {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<_> = name.split('/').collect();
    let database = |index: usize, part: &str| {
        index > 0 && digits(part) && (parts[index - 1] == "base" || parts[index - 1].starts_with("PG_"))
    };
    let part = |(index, part): (usize, &&str)| {
        if database(index, part) { "<database>".to_owned() } else { (*part).to_owned() }
    };
    parts.iter().enumerate().map(part).collect::<Vec<_>>().join("/")
}

/// A file with the number of a relation in the directory of a database.
fn is_relation_file(member: &Member) -> bool {
    let Some((directory, file)) = member.name.rsplit_once('/') else { return false };
    let parent = general(directory);
    let in_database = parent.ends_with("<database>") || directory == "global";
    let file = file.strip_prefix("INCREMENTAL.").unwrap_or(file);
    let relation = file.strip_prefix('t').unwrap_or(file).starts_with(|c: char| c.is_ascii_digit());
    // The recorder left out small files of databases, which are there in every database.
    let in_every = in_database && ["PG_VERSION", "pg_filenode.map"].contains(&file);
    member.kind == '0' && in_database && (relation || in_every)
}

/// A member as the recorder wrote it; none for a group of relation files.
fn recorded_member(value: &Value) -> Option<Member> {
    if value.get("group").is_some() {
        return None;
    }
    if let Some(name) = value.as_str() {
        return Some(Member { name: name.to_owned(), kind: '?', ..Member::default() });
    }
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let member = Member {
        name: text("name"),
        kind: text("typeflag").chars().next().unwrap_or('?'),
        mode: text("mode"),
        link: text("linkname"),
        content: text("content").into_bytes(),
        size: value["size"].as_u64().unwrap_or_default(),
        ..Member::default()
    };
    (!is_relation_file(&member)).then_some(member)
}

fn fixed_fields(recorded: &Value) -> String {
    let text = |key: &str| recorded[key].as_str().unwrap_or_default().to_owned();
    let fields = ["magic", "version", "devmajor", "devminor"].map(text);
    [fields.join("|"), form(&text("uid")), form(&text("gid"))].join("|")
}

/// Numbers differ from machine to machine, their form does not.
fn form(number: &str) -> String {
    number.chars().map(|c| if c.is_digit(8) { '0' } else { c }).collect()
}

fn member(block: &[u8]) -> (Member, u64) {
    let text = |at: usize, length: usize| {
        let field = &block[at..at + length];
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(length);
        // As the recorder wrote names that are not text: `bad\xff`.
        let part = |part: std::str::Utf8Chunk<'_>| format!("{}{}", part.valid(), part.invalid().escape_ascii());
        field[..end].utf8_chunks().map(part).collect::<String>()
    };
    let octal = |at: usize, length: usize| u64::from_str_radix(text(at, length).trim(), 8).unwrap_or_default();
    let size = if block[124] & 0x80 == 0 {
        octal(124, 12)
    } else {
        block[125..136].iter().fold(u64::from(block[124] & 0x7F), |size, byte| size << 8 | u64::from(*byte))
    };
    let raw = |at: usize, length: usize| String::from_utf8_lossy(&block[at..at + length]).into_owned();
    let sum = block.iter().map(|byte| u64::from(*byte)).sum::<u64>() + 8 * u64::from(b' ')
        - block[148..156].iter().map(|byte| u64::from(*byte)).sum::<u64>();
    let member = Member {
        name: text(0, 100),
        kind: char::from(block[156]),
        mode: raw(100, 8).trim_end_matches('\0').to_owned(),
        link: text(157, 100),
        content: Vec::new(),
        fixed: [raw(257, 6), raw(263, 2), raw(329, 8), raw(337, 8), form(&raw(108, 8)), form(&raw(116, 8))].join("|"),
        size,
        checksum_right: sum == octal(148, 8),
    };
    (member, size)
}
