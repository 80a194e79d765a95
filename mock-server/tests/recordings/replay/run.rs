//! Consecutive CopyData with bytes of an archive or of a manifest.

use crate::compare::Correspondence;
use crate::recording;

/// Consecutive CopyData.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) messages: u64,
    largest: u64,
    last: u64,
    content: Vec<u8>,
    /// Whether a `p` message came last.
    pub(super) progress: bool,
}

impl Run {
    pub(super) fn add(&mut self, payload: &[u8]) {
        /// No manifest of these clusters is larger.
        const KEPT: usize = 4 << 20;
        self.messages += 1;
        self.progress = false;
        self.last = payload.len() as u64;
        self.largest = self.largest.max(self.last);
        if self.content.len() < KEPT {
            self.content.extend_from_slice(payload);
        }
    }

    pub(super) fn compare(
        &self,
        recorded: &recording::Run,
        limited: bool,
        same: &mut Correspondence,
    ) -> Result<(), String> {
        let recording::Run { content, messages, largest, last, head, tail, progress } = recorded;
        let (messages, largest, last) = (*messages, *largest, *last);
        if *progress && !self.progress {
            return Err(format!("{content}: no message tells the progress at its end"));
        }
        // How large messages get shows only where there is enough to say; a file is sent in pieces of 32 kB.
        let most = match content.as_str() {
            "manifest" => largest,
            "tar" => 32_768,
            // One block of LZ4, however well its content compresses: `LZ4F_compressBound` of 32 kB.
            _ if head.starts_with("04224d18") => 270_336,
            _ if messages >= 10 => largest,
            _ => u64::MAX,
        };
        if self.largest > most || (content == "tar" && self.messages > 200 && self.largest != most) {
            return Err(format!("{content}: messages of {} bytes instead of {most}", self.largest));
        }
        // The two zero blocks at the end of an archive.
        if content == "tar" && !limited && last == 1024 && self.last != last {
            return Err(format!("the archive ends with {} bytes instead of {last}", self.last));
        }
        if content == "other" {
            compressed(head, &self.content)?;
        }
        if content == "manifest" {
            return manifest(head, tail, &String::from_utf8_lossy(&self.content), same);
        }
        Ok(())
    }
}

/// Compares the header of a compressed stream: gzip's member header, an LZ4 frame descriptor, and of a Zstandard frame header
/// as much as says which fields there are and how large the window is.
fn compressed(head: &str, got: &[u8]) -> Result<(), String> {
    let header = match head {
        gzip if gzip.starts_with("1f8b") => 10,
        lz4 if lz4.starts_with("04224d18") => 7,
        zstd if zstd.starts_with("28b52ffd") => 6,
        // In the middle of a stream.
        _ => return Ok(()),
    };
    let got: String = got.iter().take(header).map(|byte| format!("{byte:02x}")).collect();
    if head.starts_with(&got) && got.len() == 2 * header {
        Ok(())
    } else {
        Err(format!("a compressed archive begins with {got} instead of {}", &head[..2 * header]))
    }
}

/// Compares the first and the last lines of a manifest: everything but the list of files, of which the first shows the form.
fn manifest(head: &str, tail: &str, got: &str, same: &mut Correspondence) -> Result<(), String> {
    let form = |entry: &str| {
        let keys = entry.split('"').skip(1).step_by(2).map(str::to_owned);
        let known = ["Path", "Encoded-Path", "Size", "Last-Modified", "Checksum-Algorithm", "Checksum"];
        keys.filter(|key| known.contains(&key.as_str())).collect::<Vec<_>>()
    };
    let before_files = |text: &str| text.split("{ \"").take(2).collect::<Vec<_>>().join("{ \"");
    let begin = before_files(head);
    let ours = before_files(&got[..got.len().min(head.len().max(900))]);
    same.text(&begin, &ours)
        .map_err(|problem| format!("manifest: {problem}\n  expected {begin:?}\n  got      {ours:?}"))?;
    let entry = |text: &str| text.split("{ \"").nth(2).map(|entry| form(&format!("\"{entry}"))).unwrap_or_default();
    // The recorder cut it off somewhere.
    if !entry(got).starts_with(&entry(head)) {
        return Err(format!("manifest: keys of an entry {:?} instead of {:?}", entry(got), entry(head)));
    }
    let end = |text: &str| text.rfind("],\n\"WAL-Ranges\"").map(|at| text[at..].to_owned()).unwrap_or_default();
    let masked = |text: String| match text.rsplit_once("\"Manifest-Checksum\": \"") {
        Some((ranges, checksum)) => format!("{ranges}\"Manifest-Checksum\": \"{}", "*".repeat(checksum.len())),
        None => text,
    };
    let (wanted, ours) = (masked(end(tail)), masked(end(got)));
    same.text(&wanted, &ours)
        .map_err(|problem| format!("manifest: {problem}\n  expected {wanted:?}\n  got      {ours:?}"))
}
