//! `tablespace_map`: which links in `pg_tblspc` recovery has to make (since 9.5).

use std::collections::BTreeSet;

use crate::version::ServerVersion;

/// The longest location that is read, in bytes: `MAXPGPATH` without its terminator.
pub const MAX_LOCATION: usize = 1023;

/// The content of `tablespace_map`, one line `<oid> <location>` for each tablespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TablespaceMap {
    /// OID and location on the server, in the order of the file.
    pub entries: Vec<(u32, Vec<u8>)>,
}

/// A `tablespace_map` that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid data in file \"tablespace_map\", line {line}: {problem}")]
pub struct MapError {
    /// From 1. A newline inside a location does not count.
    pub line: usize,
    /// What is wrong with it.
    pub problem: MapProblem,
}

/// What is wrong with a line of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapProblem {
    /// No OID in front of the blank.
    #[error("expected a tablespace OID")]
    Oid,
    /// Nothing after the OID.
    #[error("expected a location")]
    Location,
    /// More than [`MAX_LOCATION`] bytes.
    #[error("location is too long")]
    TooLong,
    /// A NUL byte.
    #[error("location contains a NUL byte")]
    NulByte,
    /// An OID that an earlier line has.
    #[error("tablespace {0} occurs twice")]
    Duplicate(u32),
    /// The last line does not end.
    #[error("last line not newline-terminated")]
    Unterminated,
}

impl TablespaceMap {
    /// Reads a map as servers since 14 do (`read_tablespace_map`): a backslash takes any special meaning from the byte
    /// behind it; `\n` and `\r` end a line; empty lines are skipped. Stricter in two things: no OID may occur twice, and
    /// no location is cut to fit.
    pub fn parse(bytes: &[u8]) -> Result<Self, MapError> {
        Self::parse_as(bytes, ServerVersion::NEWEST)
    }

    /// Reads a map as a server of `version` does: before 14 a backslash is special in front of a line end only.
    pub fn parse_as(bytes: &[u8], version: ServerVersion) -> Result<Self, MapError> {
        let (mut map, mut seen, mut line) = (Self::default(), BTreeSet::new(), 1);
        let mut text = Vec::new();
        let mut rest = bytes.iter().copied().peekable();
        while let Some(byte) = rest.next() {
            let literal = match byte {
                b'\\' if version.map_escapes_backslash() => {
                    Some(rest.next().ok_or(MapError { line, problem: MapProblem::Unterminated })?)
                }
                b'\\' => Some(rest.next_if(|next| matches!(next, b'\n' | b'\r')).unwrap_or(byte)),
                b'\n' | b'\r' => None,
                other => Some(other),
            };
            if let Some(literal) = literal {
                // An OID and a blank take eleven bytes at most.
                if text.len() > MAX_LOCATION + 11 {
                    return Err(MapError { line, problem: MapProblem::TooLong });
                }
                text.push(literal);
                continue;
            }
            if !text.is_empty() {
                let (oid, location) = entry(&text).map_err(|problem| MapError { line, problem })?;
                if !seen.insert(oid) {
                    return Err(MapError { line, problem: MapProblem::Duplicate(oid) });
                }
                map.entries.push((oid, location.to_vec()));
                text.clear();
            }
            // The two bytes of one line end count once.
            line += usize::from(byte == b'\n' || rest.peek() != Some(&b'\n'));
        }
        if text.is_empty() { Ok(map) } else { Err(MapError { line, problem: MapProblem::Unterminated }) }
    }

    /// The file as a server of `version` writes it: a backslash in front of `\n`, since 14 of `\r` and `\` too.
    pub fn to_bytes(&self, version: ServerVersion) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (oid, location) in &self.entries {
            bytes.extend(oid.to_string().into_bytes());
            bytes.push(b' ');
            for &byte in location {
                if byte == b'\n' || (matches!(byte, b'\r' | b'\\') && version.map_escapes_backslash()) {
                    bytes.push(b'\\');
                }
                bytes.push(byte);
            }
            bytes.push(b'\n');
        }
        bytes
    }

    /// Where the tablespace lies on the server.
    pub fn location(&self, oid: u32) -> Option<&[u8]> {
        self.entries.iter().find(|entry| entry.0 == oid).map(|entry| entry.1.as_slice())
    }
}

/// Takes a line apart, without its escapes.
fn entry(text: &[u8]) -> Result<(u32, &[u8]), MapProblem> {
    let blank = text.iter().position(|&byte| byte == b' ').unwrap_or(text.len());
    let (digits, rest) = text.split_at(blank);
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let oid = digits.and_then(|digits| digits.parse().ok()).filter(|&oid| oid != 0).ok_or(MapProblem::Oid)?;
    match rest {
        [] | [_] => Err(MapProblem::Location),
        [_, location @ ..] if location.len() > MAX_LOCATION => Err(MapProblem::TooLong),
        [_, location @ ..] if location.contains(&0) => Err(MapProblem::NulByte),
        [_, location @ ..] => Ok((oid, location)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_and_writes_a_recorded_map() {
        let recorded = b"16391 /srv/cap/pg/ts1\n";
        let map = TablespaceMap::parse(recorded).unwrap();
        assert_eq!(map.entries, [(16391, b"/srv/cap/pg/ts1".to_vec())]);
        assert_eq!(map.location(16391), Some(&b"/srv/cap/pg/ts1"[..]));
        for version in ServerVersion::ALL {
            assert_eq!(map.to_bytes(version), recorded);
        }
        assert_eq!(TablespaceMap::parse(b""), Ok(TablespaceMap::default()));
    }

    #[test]
    fn escapes_as_each_release_does() {
        let map = TablespaceMap { entries: vec![(1, b"/a b\n\\c\r\xff".to_vec())] };
        assert_eq!(map.to_bytes(ServerVersion::V14), b"1 /a b\\\n\\\\c\\\r\xff\n");
        assert_eq!(map.to_bytes(ServerVersion::V13), b"1 /a b\\\n\\c\r\xff\n");
        assert_eq!(TablespaceMap::parse(&map.to_bytes(ServerVersion::V18)).as_ref(), Ok(&map));
        let windows = TablespaceMap { entries: vec![(1, b"D:\\ts\n1".to_vec())] };
        let old = windows.to_bytes(ServerVersion::V12);
        assert_eq!(TablespaceMap::parse_as(&old, ServerVersion::V12), Ok(windows));
    }

    #[test]
    fn a_very_large_map_survives() {
        let entries = (1..=300).map(|oid| (oid, vec![b'x'; MAX_LOCATION])).collect();
        let map = TablespaceMap { entries };
        assert_eq!(TablespaceMap::parse(&map.to_bytes(ServerVersion::V18)), Ok(map));
    }

    #[test]
    fn names_the_bad_line() {
        let long = format!("1 {}\n", "x".repeat(MAX_LOCATION + 1));
        let endless = "x".repeat(5000);
        let maps = [
            "/srv\n",
            "16391\n",
            "16391 \n",
            "0 /srv\n",
            "+1 /srv\n",
            " 1 /srv\n",
            "4294967296 /srv\n",
            "1 /a\r\n\n2 /b\0\n",
            "1 /a\n1 /b\n",
            "1 /a\n2 /b",
            "1 /a\n2 /b\\",
            "1 /a\n2 /b\\\n",
            &long,
            &endless,
        ];
        let refusals = maps.map(|map| TablespaceMap::parse(map.as_bytes()).unwrap_err().to_string());
        insta::assert_snapshot!(refusals.join("\n"), @r#"
        invalid data in file "tablespace_map", line 1: expected a tablespace OID
        invalid data in file "tablespace_map", line 1: expected a location
        invalid data in file "tablespace_map", line 1: expected a location
        invalid data in file "tablespace_map", line 1: expected a tablespace OID
        invalid data in file "tablespace_map", line 1: expected a tablespace OID
        invalid data in file "tablespace_map", line 1: expected a tablespace OID
        invalid data in file "tablespace_map", line 1: expected a tablespace OID
        invalid data in file "tablespace_map", line 3: location contains a NUL byte
        invalid data in file "tablespace_map", line 2: tablespace 1 occurs twice
        invalid data in file "tablespace_map", line 2: last line not newline-terminated
        invalid data in file "tablespace_map", line 2: last line not newline-terminated
        invalid data in file "tablespace_map", line 2: last line not newline-terminated
        invalid data in file "tablespace_map", line 1: location is too long
        invalid data in file "tablespace_map", line 1: location is too long
        "#);
    }

    proptest! {
        #[test]
        fn round_trips(entries in proptest::collection::btree_map(1_u32.., "[^\\x00]{1,30}", 0..5)) {
            let entries = entries.into_iter().map(|(oid, location)| (oid, location.into_bytes())).collect();
            let map = TablespaceMap { entries };
            prop_assert_eq!(TablespaceMap::parse(&map.to_bytes(ServerVersion::V18)), Ok(map));
        }

        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>, old: bool) {
            let version = if old { ServerVersion::V12 } else { ServerVersion::V18 };
            if let Ok(map) = TablespaceMap::parse_as(&bytes, version) {
                prop_assert!(map.entries.len() <= bytes.len());
            }
        }
    }
}
