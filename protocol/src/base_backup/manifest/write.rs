//! Writing a manifest as it goes: `backup_manifest.c`.

use std::fmt::{self, Write};

use bytes::BufMut;
use sha2::{Digest, Sha256};

use super::{ChecksumAlgorithm, ManifestFile, WalRange, hex};

/// Writes a manifest piece by piece, byte for byte as servers do. Nothing is kept but the running checksum.
///
/// ```
/// use backstop_protocol::base_backup::manifest::{Manifest, ManifestFile, ManifestWriter};
///
/// let mut out = Vec::new();
/// let mut writer = ManifestWriter::new(2, Some(7_710_436_557_014_478_270), false);
/// let last_modified = "2026-11-21 01:38:44 GMT".to_owned();
/// writer.add_file(&ManifestFile { path: b"PG_VERSION".into(), size: 3, last_modified, checksum: None }, &mut out);
/// writer.finish(&[], &mut out);
/// assert_eq!(Manifest::parse(&out)?.files[0].path, b"PG_VERSION");
/// # Ok::<(), backstop_protocol::base_backup::manifest::ManifestError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ManifestWriter {
    /// What stands before the first file; empty once it is written.
    preamble: String,
    first: bool,
    force_encode: bool,
    checksum: Sha256,
}

impl ManifestWriter {
    /// A manifest of `version` (see [`ServerVersion::manifest_version`](crate::version::ServerVersion::manifest_version)),
    /// with a system identifier if there is one (version 2). With `force_encode` every path is written in hexadecimal.
    pub fn new(version: u64, system_identifier: Option<u64>, force_encode: bool) -> Self {
        let mut preamble = format!("{{ \"PostgreSQL-Backup-Manifest-Version\": {version},\n");
        if let Some(identifier) = system_identifier {
            push(&mut preamble, format_args!("\"System-Identifier\": {identifier},\n"));
        }
        preamble += "\"Files\": [";
        Self { preamble, first: true, force_encode, checksum: Sha256::new() }
    }

    /// Appends the entry of one file, and what comes before the first one.
    pub fn add_file(&mut self, file: &ManifestFile, out: &mut impl BufMut) {
        let mut text = std::mem::take(&mut self.preamble);
        text += if self.first { "\n" } else { ",\n" };
        self.first = false;
        match std::str::from_utf8(&file.path) {
            Ok(path) if !self.force_encode && !path.contains('\0') => {
                text += "{ \"Path\": ";
                push_json_string(&mut text, path);
            }
            _ => push(&mut text, format_args!("{{ \"Encoded-Path\": \"{}\"", hex::encode(&file.path))),
        }
        push(&mut text, format_args!(", \"Size\": {}, \"Last-Modified\": ", file.size));
        push_json_string(&mut text, &file.last_modified);
        if let Some((algorithm, checksum)) = &file.checksum
            && *algorithm != ChecksumAlgorithm::None
        {
            let checksum = hex::encode(checksum);
            push(&mut text, format_args!(", \"Checksum-Algorithm\": \"{algorithm}\", \"Checksum\": \"{checksum}\""));
        }
        text += " }";
        self.append(&text, out);
    }

    /// Appends the WAL ranges, newest timeline first, and the manifest's own checksum.
    pub fn finish(mut self, ranges: &[WalRange], out: &mut impl BufMut) {
        let mut text = std::mem::take(&mut self.preamble);
        text += "\n],\n\"WAL-Ranges\": [\n";
        for (index, WalRange { timeline, start, end }) in ranges.iter().enumerate() {
            text += if index == 0 { "" } else { ",\n" };
            push(
                &mut text,
                format_args!("{{ \"Timeline\": {timeline}, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{end}\" }}"),
            );
        }
        text += "\n],\n";
        self.append(&text, out);
        let checksum = hex::encode(&self.checksum.finalize());
        out.put_slice(format!("\"Manifest-Checksum\": \"{checksum}\"}}\n").as_bytes());
    }

    fn append(&mut self, text: &str, out: &mut impl BufMut) {
        self.checksum.update(text);
        out.put_slice(text.as_bytes());
    }
}

/// Appends to a string, which cannot fail.
fn push(text: &mut String, piece: fmt::Arguments<'_>) {
    let _ = text.write_fmt(piece);
}

/// `escape_json`: everything but quotes, backslashes and the first 32 characters stands for itself.
fn push_json_string(text: &mut String, value: &str) {
    text.push('"');
    for character in value.chars() {
        match character {
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            control @ '\0'..' ' => push(text, format_args!("\\u{:04x}", u32::from(control))),
            plain => text.push(plain),
        }
    }
    text.push('"');
}
