//! The manifests that the recorder uploaded. Of most only the beginning was kept: what is uploaded here is that of a backup from
//! the server at hand, spoilt in the same way.

use backstop_mock::Server;
use backstop_protocol::base_backup::manifest::Manifest;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;

use crate::peer::{Heard, Peer};
use crate::replay::PATIENCE;

/// Takes a full backup; its manifest.
pub(crate) async fn full_backup(server: &Server) -> Result<Vec<u8>, String> {
    let mut peer = Peer::start(server, "repl", false).await?;
    peer.send_message(b'Q', b"BASE_BACKUP (CHECKPOINT 'fast', WAIT false, MANIFEST 'yes')\0").await;
    let mut manifest = None;
    loop {
        match peer.hear(PATIENCE).await {
            Heard::Message(b'd', body) => match (body.split_first(), &mut manifest) {
                (Some((b'm', _)), _) => manifest = Some(Vec::new()),
                (Some((b'd', data)), Some(manifest)) => manifest.extend_from_slice(data),
                _ => {}
            },
            Heard::Message(b'Z', _) => break,
            Heard::Message(b'E', body) => return Err(String::from_utf8_lossy(&body).into_owned()),
            Heard::Message(..) => {}
            other => return Err(format!("the full backup: {other:?}")),
        }
    }
    peer.send_message(b'X', b"").await;
    manifest.ok_or_else(|| "the full backup has no manifest".to_owned())
}

/// What the recorder made of a manifest.
pub(crate) fn spoil(manifest: &[u8], what: &str) -> Result<Vec<u8>, String> {
    let mut parsed = Manifest::parse(manifest).map_err(|error| error.to_string())?;
    let range = parsed.wal_ranges.first_mut().ok_or("a manifest without WAL ranges")?;
    match what {
        "manifest of a full backup" | "manifest" => return Ok(manifest.to_vec()),
        "bad checksum" => {
            let text = String::from_utf8_lossy(manifest);
            let (body, last) = text.rsplit_once("\"Manifest-Checksum\": \"").ok_or("no checksum")?;
            let first = if last.starts_with('0') { '1' } else { '0' };
            return Ok(format!("{body}\"Manifest-Checksum\": \"{first}{}", &last[1..]).into_bytes());
        }
        "wrong system identifier" => parsed.system_identifier = Some(1),
        "version 9" => parsed.version = 9,
        "version 1" => (parsed.version, parsed.system_identifier) = (1, None),
        "no WAL ranges" => parsed.wal_ranges.clear(),
        "timeline 5 in WAL range" => range.timeline = TimelineId(5),
        "start LSN in the future" => (range.start, range.end) = (Lsn(0x7F_0000_0028), Lsn(0x7F_0000_0100)),
        other => return Err(format!("nobody knows what a manifest with \"{other}\" is")),
    }
    Ok(parsed.to_bytes(false))
}

/// The beginning of a manifest that was recorded, as one of another server.
pub(crate) fn adopt(recorded: &[u8], system_identifier: u64) -> Vec<u8> {
    const KEY: &str = "\"System-Identifier\": ";
    let text = String::from_utf8_lossy(recorded).into_owned();
    let Some((before, after)) = text.split_once(KEY) else { return recorded.to_vec() };
    let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{before}{KEY}{system_identifier}{rest}").into_bytes()
}
