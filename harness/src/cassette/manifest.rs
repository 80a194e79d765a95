//! A manifest without the checksums of what is made up again, and with them.

use std::collections::BTreeMap;

use backstop_protocol::base_backup::manifest::ChecksumAlgorithm;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::format::{Event, Octets, hex, unhex};

/// Checksums of files by their path in the manifest.
pub(super) type Checksums = BTreeMap<Vec<u8>, Vec<u8>>;

/// Pieces of what is no line of a manifest are at most so long, in bytes.
const PIECE: usize = 32 << 10;

/// What stands before a file's checksum, and before the manifest's own.
const OF_FILE: &[u8] = b"\"Checksum\": \"";
const OF_MANIFEST: &[u8] = b"\"Manifest-Checksum\": \"";

/// A line about a file, as servers write it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: String,
}

/// Of which file, and by which algorithm, a line of the manifest gives the checksum.
fn file_of(line: &[u8]) -> Option<(Vec<u8>, ChecksumAlgorithm)> {
    let line = line.trim_ascii();
    let line: Line = serde_json::from_slice(line.strip_suffix(b",").unwrap_or(line)).ok()?;
    let path = match (line.path, line.encoded_path) {
        (Some(path), None) => path.into_bytes(),
        (None, Some(digits)) => unhex(&digits)?,
        _ => return None,
    };
    Some((path, line.algorithm.parse().ok()?))
}

/// The line without what stands in quotation marks behind `key`, which is returned between its two halves.
fn cut<'a>(line: &'a [u8], key: &[u8]) -> Option<(&'a [u8], &'a [u8], &'a [u8])> {
    let at = line.windows(key.len()).position(|window| window == key)? + key.len();
    let (before, rest) = line.split_at_checked(at)?;
    let length = rest.iter().position(|byte| *byte == b'"')?;
    let (value, after) = rest.split_at_checked(length)?;
    Some((before, value, after))
}

/// The manifest as a cassette keeps it, if files of these checksums were sent.
pub(super) fn take_down(text: &[u8], algorithm: ChecksumAlgorithm, checksums: &Checksums) -> Vec<Event> {
    let mut events = Vec::new();
    let mut sum = Sha256::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let octets = |bytes: &[u8]| Octets(bytes.to_vec());
        let file = || {
            let (before, value, after) = cut(line, OF_FILE)?;
            let (path, of) = file_of(line)?;
            let known = checksums.get(&path).filter(|_| of == algorithm)?;
            (value == hex(known).as_bytes()).then(|| Event::Summed(octets(before), octets(after)))
        };
        let whole = || {
            let (before, value, after) = cut(line, OF_MANIFEST)?;
            let right = value == hex(&sum.clone().finalize()).as_bytes();
            right.then(|| Event::Sealed(octets(before), octets(after)))
        };
        match whole().or_else(file) {
            Some(event) => events.push(event),
            None => events.extend(line.chunks(PIECE).map(|piece| Event::Text(octets(piece)))),
        }
        sum.update(line);
    }
    events
}

/// The file whose checksum was left out of a line.
pub(super) fn summed(before: &Octets, after: &Octets) -> Option<(Vec<u8>, ChecksumAlgorithm)> {
    file_of(&[before.0.as_slice(), &after.0].concat())
}

/// The manifest of files with these checksums.
pub(super) fn write(pieces: &[Event], checksums: &Checksums) -> Vec<u8> {
    let mut text = Vec::new();
    let mut begins = 0;
    for piece in pieces {
        let insert = |text: &mut Vec<u8>, before: &Octets, value: &str, after: &Octets| {
            text.extend_from_slice(&before.0);
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(&after.0);
        };
        match piece {
            Event::Summed(before, after) => {
                let path = summed(before, after).map(|(path, _)| path).unwrap_or_default();
                let value = checksums.get(&path).map(|sum| hex(sum)).unwrap_or_default();
                insert(&mut text, before, &value, after);
            }
            Event::Sealed(before, after) => {
                let value = hex(&Sha256::digest(text.get(..begins).unwrap_or_default()));
                insert(&mut text, before, &value, after);
            }
            Event::Text(piece) => text.extend_from_slice(&piece.0),
            _ => {}
        }
        // The manifest's own checksum is of the lines before its line.
        if text.last() == Some(&b'\n') {
            begins = text.len();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = concat!(
        "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n",
        "\"Files\": [\n",
        "{ \"Path\": \"PG_VERSION\", \"Size\": 3, \"Last-Modified\": \"2026-01-01 00:00:00 GMT\", \"Checksum-Algorithm\": \"CRC32C\", \
         \"Checksum\": \"01020304\" },\n",
        "{ \"Encoded-Path\": \"ff\", \"Size\": 3, \"Last-Modified\": \"2026-01-01 00:00:00 GMT\", \"Checksum-Algorithm\": \"CRC32C\", \
         \"Checksum\": \"05060708\" },\n",
        "{ \"Path\": \"other\", \"Size\": 3, \"Last-Modified\": \"2026-01-01 00:00:00 GMT\", \"Checksum-Algorithm\": \"CRC32C\", \
         \"Checksum\": \"090a0b0c\" }\n",
        "],\n",
    );

    fn sealed() -> String {
        let sum = hex(&Sha256::digest(MANIFEST.as_bytes()));
        format!("{MANIFEST}\"Manifest-Checksum\": \"{sum}\"}}\n")
    }

    fn sums(first: [u8; 4], second: [u8; 4]) -> Checksums {
        [(b"PG_VERSION".to_vec(), first.to_vec()), (vec![0xFF], second.to_vec())].into()
    }

    #[test]
    fn a_manifest_follows_what_is_sent() {
        let recorded = sums([1, 2, 3, 4], [5, 6, 7, 8]);
        let pieces = take_down(sealed().as_bytes(), ChecksumAlgorithm::Crc32c, &recorded);
        assert_eq!(write(&pieces, &recorded), sealed().as_bytes());
        let changed = String::from_utf8(write(&pieces, &sums([0xAA; 4], [0xBB; 4]))).expect("text");
        assert!(
            changed.contains("\"aaaaaaaa\"") && changed.contains("\"bbbbbbbb\"") && changed.contains("\"090a0b0c\"")
        );
        let (body, last) = changed.split_at(MANIFEST.len());
        assert!(last.contains(&hex(&Sha256::digest(body.as_bytes()))), "{last}");
    }

    #[test]
    fn what_did_not_fit_does_not_fit_again() {
        let pieces = take_down(sealed().as_bytes(), ChecksumAlgorithm::Crc32c, &sums([9; 4], [5, 6, 7, 8]));
        let again = String::from_utf8(write(&pieces, &sums([0xAA; 4], [0xBB; 4]))).expect("text");
        assert!(again.contains("\"01020304\"") && again.contains("\"bbbbbbbb\""), "{again}");
        let broken = sealed().replace("PG_VERSION", "PG_VERSIOn");
        let pieces = take_down(broken.as_bytes(), ChecksumAlgorithm::Crc32c, &sums([1, 2, 3, 4], [5, 6, 7, 8]));
        assert!(
            !pieces.iter().any(|piece| matches!(piece, Event::Sealed(..))),
            "a wrong checksum of the manifest stays wrong"
        );
    }

    #[test]
    fn anything_is_kept_as_it_is() {
        for text in ["", "{", "\"Checksum\": \"", "\"Manifest-Checksum\": \"x", "\0\n\n\"Checksum\": \"a\"\n"] {
            let pieces = take_down(text.as_bytes(), ChecksumAlgorithm::Crc32c, &Checksums::new());
            assert_eq!(write(&pieces, &Checksums::new()), text.as_bytes(), "{text:?}");
        }
    }
}
