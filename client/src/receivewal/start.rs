//! Where to go on, from what lies in the archive.

use std::io::Read;

use backstop_protocol::base_backup::options::CompressionAlgorithm;
use backstop_protocol::lsn::Lsn;
use backstop_protocol::timeline::TimelineId;
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal::page::{LONG_HEADER_SIZE, WalPageHeader};
use backstop_protocol::wal_archive::ArchivedSegment;
use backstop_protocol::wal_file::WalSegmentSize;

use super::archive::Archive;
use super::{WalEvent, form};
use crate::error::ClientError;

/// Whose WAL the archive is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) version: ServerVersion,
    pub(crate) system_identifier: u64,
    pub(crate) segment_size: WalSegmentSize,
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) position: Lsn,
    pub(crate) timeline: TimelineId,
}

/// The end of the last segment that is complete, or the beginning of the one after it that is not; nothing if there is none.
/// A segment that is not what its name says does not count, and is told.
pub(crate) fn find(
    archive: &Archive,
    owner: Owner,
    tell: &mut dyn FnMut(WalEvent),
) -> Result<Option<Start>, ClientError> {
    let size = owner.segment_size;
    let mut candidates = Vec::new();
    for name in archive.names()? {
        let Ok(archived) = name.parse::<ArchivedSegment>() else { continue };
        match archived.file.segment(size) {
            Some(segment) => candidates.push((segment, archived.file.timeline, !archived.partial, archived, name)),
            None => tell(WalEvent::NoSegment { file: name }),
        }
    }
    candidates.sort_by(|one, other| (other.0, other.1, other.2, &other.4).cmp(&(one.0, one.1, one.2, &one.4)));
    for (segment, timeline, complete, archived, name) in candidates {
        let next = if complete {
            if let Some(problem) = problem(archive, archived, &name, owner)? {
                tell(problem);
                continue;
            }
            segment + 1
        } else {
            segment
        };
        return Ok(Some(Start { position: size.start_of(next), timeline }));
    }
    Ok(None)
}

/// Why a segment that is called complete does not count.
fn problem(
    archive: &Archive,
    archived: ArchivedSegment,
    name: &str,
    owner: Owner,
) -> Result<Option<WalEvent>, ClientError> {
    let size = owner.segment_size.bytes();
    let unreadable = |problem: String| Some(WalEvent::Unreadable { file: name.to_owned(), problem });
    let wrong = |bytes| {
        let compressed = archived.compression != CompressionAlgorithm::None;
        (bytes != size).then(|| WalEvent::WrongSize { file: name.to_owned(), bytes, compressed })
    };
    let file = match archive.read(name) {
        Ok(file) => file,
        Err(error) => return Ok(unreadable(error.to_string())),
    };
    let known = match file.metadata() {
        Ok(metadata) => (archived.compression == CompressionAlgorithm::None).then_some(metadata.len()),
        Err(error) => return Ok(unreadable(error.to_string())),
    };
    if let Some(event) = known.and_then(wrong) {
        return Ok(Some(event));
    }
    let mut reader = match form::reader(file, archived.compression) {
        Ok(reader) => reader,
        Err(error) => return Ok(unreadable(error.to_string())),
    };
    let mut head = [0; LONG_HEADER_SIZE];
    if let Err(error) = reader.read_exact(&mut head) {
        return Ok(if error.kind() == std::io::ErrorKind::UnexpectedEof {
            wrong(0).or_else(|| unreadable(error.to_string()))
        } else {
            unreadable(error.to_string())
        });
    }
    of_this_cluster(&head, name, owner)?;
    if known.is_none() {
        let rest = size - LONG_HEADER_SIZE as u64;
        let (bytes, ended) = form::count(&mut *reader, rest + 1);
        if let Err(error) = ended {
            return Ok(unreadable(error.to_string()));
        }
        return Ok(wrong(bytes + LONG_HEADER_SIZE as u64));
    }
    Ok(None)
}

/// Another cluster's WAL must not be continued with this one's.
fn of_this_cluster(head: &[u8], name: &str, owner: Owner) -> Result<(), ClientError> {
    let Some(header) = WalPageHeader::decode(head).filter(|header| header.magic == owner.version.wal_page_magic())
    else {
        return Ok(());
    };
    let found = header.long.map(|long| long.system_identifier);
    match found.filter(|found| *found != owner.system_identifier) {
        None => Ok(()),
        Some(found) => Err(ClientError::Refused(format!(
            "WAL file \"{name}\" is from different database system: WAL file database system identifier is {found}, \
             the server's is {}",
            owner.system_identifier
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use backstop_protocol::base_backup::options::Compression;
    use backstop_protocol::wal::page::LongHeader;
    use tempfile::TempDir;

    use super::*;
    use std::sync::Arc;

    use crate::disk::{File, RealDisk};

    const SIZE: u32 = 1 << 20;

    fn owner() -> Owner {
        let segment_size = WalSegmentSize::new(SIZE.into()).expect("a valid size");
        Owner { version: ServerVersion::V18, system_identifier: 42, segment_size }
    }

    /// The first `bytes` bytes of a segment of a cluster.
    fn segment(system_identifier: u64, bytes: usize) -> Vec<u8> {
        let long = LongHeader { system_identifier, segment_size: SIZE, page_size: 8192 };
        let magic = ServerVersion::V18.wal_page_magic();
        let address = Lsn(0);
        let header =
            WalPageHeader { magic, info: 0, timeline: TimelineId::FIRST, address, remaining: 0, long: Some(long) };
        let mut content = header.encode();
        content.resize(bytes, 5);
        content
    }

    fn pack(algorithm: CompressionAlgorithm, content: &[u8]) -> Vec<u8> {
        let file = tempfile::tempfile().expect("a file");
        if algorithm == CompressionAlgorithm::Zstd {
            return zstd::encode_all(content, 1).expect("compressed");
        }
        let copy = file.try_clone().expect("a handle");
        let file = File::new(file, "packed".into(), Arc::new(RealDisk));
        let mut writer = form::Writer::new(file, &Compression::plain(algorithm)).expect("a writer");
        writer.write_all(content).expect("written");
        writer.finish().expect("finished").flush().expect("flushed");
        let mut packed = Vec::new();
        let mut copy = copy;
        std::io::Seek::rewind(&mut copy).expect("rewound");
        copy.read_to_end(&mut packed).expect("read");
        packed
    }

    /// Where a stream begins over these files, and what is told.
    fn found(files: &[(&str, &[u8])]) -> Result<(String, String), String> {
        let directory = TempDir::new().expect("a directory");
        for (name, content) in files {
            std::fs::write(directory.path().join(name), content).expect("written");
        }
        let archive =
            Archive::open(directory.path(), &Compression::default(), false, Arc::new(RealDisk)).expect("an archive");
        let mut told = Vec::new();
        let start = find(&archive, owner(), &mut |event| told.push(event.to_string()));
        let start = start.map_err(|error| error.to_string())?;
        let start = start.map_or("nowhere".to_owned(), |start| format!("{} on {}", start.position, start.timeline));
        Ok((start, told.join("\n")))
    }

    #[test]
    fn goes_on_behind_the_last_complete_segment_in_every_form() {
        let whole = segment(42, SIZE as usize);
        for algorithm in CompressionAlgorithm::ALL {
            let name = format!("000000010000000000000003{}", algorithm.suffix());
            let packed = pack(algorithm, &whole);
            assert_eq!(found(&[(&name, &packed)]), Ok(("0/400000 on 1".to_owned(), String::new())), "{algorithm}");
        }
    }

    #[test]
    fn goes_on_at_the_beginning_of_a_partial_segment() {
        let whole = segment(42, SIZE as usize);
        for partial in ["", ".gz", ".lz4", ".zst"] {
            let partial = format!("000000010000000000000004{partial}.partial");
            let files = [("000000010000000000000003", &whole[..]), (&partial, b"anything"), ("other", b"")];
            assert_eq!(found(&files), Ok(("0/400000 on 1".to_owned(), String::new())), "{partial}");
        }
        // Both forms: what is complete counts.
        let both = [("000000010000000000000003", &whole[..]), ("000000010000000000000003.gz.partial", b"")];
        assert_eq!(found(&both), Ok(("0/400000 on 1".to_owned(), String::new())));
        // The higher timeline counts, then.
        let two = [("000000020000000000000003.partial", &b""[..]), ("000000010000000000000003", &whole)];
        assert_eq!(found(&two), Ok(("0/300000 on 2".to_owned(), String::new())));
        assert_eq!(found(&[]), Ok(("nowhere".to_owned(), String::new())));
    }

    #[test]
    fn a_segment_that_is_not_what_its_name_says_is_told_and_passed_over() {
        let whole = segment(42, SIZE as usize);
        let short = segment(42, 1234);
        let long = segment(42, SIZE as usize + 1);
        let gzip = pack(CompressionAlgorithm::Gzip, &whole);
        let files: [(&str, &[u8]); 8] = [
            ("000000010000000000000003", &whole),
            ("000000010000000000000004", &short),
            ("000000010000000000000005.gz", &pack(CompressionAlgorithm::Gzip, &short)),
            ("000000010000000000000006.lz4", &pack(CompressionAlgorithm::Lz4, &long)),
            ("000000010000000000000007.gz", &gzip[..gzip.len() / 2]),
            ("000000010000000000000008.zst", b"no frame"),
            ("000000010000000000000009", b""),
            ("0000000100000000FFFFFFFF", &whole),
        ];
        let (start, told) = found(&files).expect("a start");
        assert_eq!(start, "0/400000 on 1");
        insta::assert_snapshot!(told, @r#"
        file "0000000100000000FFFFFFFF" is no segment of the server's segment size, skipping
        segment file "000000010000000000000009" has incorrect size 0, skipping
        segment file "000000010000000000000008.zst" could not be read: Unknown frame descriptor, skipping
        segment file "000000010000000000000007.gz" could not be read: incomplete deflate stream, skipping
        compressed segment file "000000010000000000000006.lz4" has incorrect uncompressed size 1048577, skipping
        compressed segment file "000000010000000000000005.gz" has incorrect uncompressed size 1234, skipping
        segment file "000000010000000000000004" has incorrect size 1234, skipping
        "#);
    }

    #[test]
    fn the_wal_of_another_cluster_is_refused() {
        let problem = found(&[("000000010000000000000003", &segment(43, SIZE as usize))]).expect_err("another cluster");
        insta::assert_snapshot!(problem, @r#"WAL file "000000010000000000000003" is from different database system: WAL file database system identifier is 43, the server's is 42"#);
    }
}
