//! What lies in an archive of WAL before its client starts.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use backstop_mock::cluster::Cluster;
use backstop_protocol::base_backup::options::CompressionAlgorithm;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::wal_archive::ArchivedSegment;
use flate2::write::GzEncoder;
use lz4_flex::frame::FrameEncoder;

use crate::scenario::model::ArchivedFile;

/// Makes the directory of an archive and the files in it: segments as the server has them, in the form that their names say.
///
/// # Errors
/// The name of the file and why it cannot be made.
pub fn furnish(cluster: &Cluster, files: &[ArchivedFile], directory: &Path) -> Result<(), String> {
    let failed = |name: &str| {
        let name = name.to_owned();
        move |error: io::Error| format!("archive file \"{name}\": {error}")
    };
    fs::create_dir_all(directory).map_err(failed("."))?;
    for file in files {
        let content = content(cluster, file)?;
        fs::write(directory.join(&file.name), content).map_err(failed(&file.name))?;
    }
    Ok(())
}

fn content(cluster: &Cluster, file: &ArchivedFile) -> Result<Vec<u8>, String> {
    let refused = |problem: String| format!("archive file \"{}\": {problem}", file.name);
    let Ok(segment) = file.name.parse::<ArchivedSegment>() else {
        let timeline = file.name.strip_suffix(".history").and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let history = timeline.and_then(|timeline| cluster.history(TimelineId(timeline)));
        let history = history.ok_or_else(|| refused("the server has no such file".to_owned()))?;
        return Ok(history.to_string().into_bytes());
    };
    let size = usize::try_from(cluster.segment_size().bytes()).map_err(|error| refused(error.to_string()))?;
    let mut content = vec![0; size];
    cluster.read_wal_file(segment.file, 0, &mut content).map_err(|error| refused(error.to_string()))?;
    if let Some(size) = file.size {
        content.resize(usize::try_from(size.0).map_err(|error| refused(error.to_string()))?, 0);
    }
    pack(segment.compression, &content).map_err(|error| refused(error.to_string()))
}

fn pack(compression: CompressionAlgorithm, content: &[u8]) -> io::Result<Vec<u8>> {
    match compression {
        CompressionAlgorithm::None => Ok(content.to_vec()),
        CompressionAlgorithm::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(content)?;
            encoder.finish()
        }
        CompressionAlgorithm::Lz4 => {
            let mut encoder = FrameEncoder::new(Vec::new());
            encoder.write_all(content)?;
            encoder.finish().map_err(io::Error::other)
        }
        CompressionAlgorithm::Zstd => zstd::encode_all(content, 1),
    }
}
