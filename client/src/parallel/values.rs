//! Values of rows, in binary. Whoever sent them may be anybody: what has not the form of its type is nothing.

use backstop_protocol::lsn::Lsn;
use backstop_protocol::version::ServerVersion;
use bytes::{Buf, Bytes};
use flate2::{Decompress, FlushDecompress, Status};

use super::files::Found;
use crate::receive::Tablespace;

/// How much more memory is asked for at a time while data is inflated, in bytes.
const STEP: usize = 256 << 10;

/// `bool`
pub(super) fn boolean(value: &Bytes) -> Option<bool> {
    match **value {
        [0] => Some(false),
        [1] => Some(true),
        _ => None,
    }
}

/// `int8`
pub(super) fn integer(value: &Bytes) -> Option<i64> {
    (value.len() == 8).then(|| (&**value).get_i64())
}

/// `oid`
fn oid(value: &Bytes) -> Option<u32> {
    (value.len() == 4).then(|| (&**value).get_u32())
}

/// `pg_lsn`, or a text before there was such a type. Never 0/0.
pub(super) fn position(value: &Bytes, version: ServerVersion) -> Option<Lsn> {
    let lsn = if version.has_lsn_type() {
        (value.len() == 8).then(|| Lsn((&**value).get_u64()))?
    } else {
        str::from_utf8(value).ok()?.parse().ok()?
    };
    (!lsn.is_invalid()).then_some(lsn)
}

/// What lies at `path`: whether it is a directory, its size, its change time.
pub(super) fn found(path: Vec<u8>, status: &[Option<Bytes>]) -> Option<Found> {
    let [Some(directory), Some(size), Some(changed)] = status else { return None };
    let (directory, size, changed) = (boolean(directory)?, integer(size)?, integer(changed)?);
    Some(Found { path, directory, size: u64::try_from(size).ok()?, changed })
}

/// OID and location. One that is no absolute path is in place, below `pg_tblspc`.
pub(super) fn tablespace(row: &[Option<Bytes>]) -> Option<Tablespace> {
    let [Some(number), Some(location)] = row else { return None };
    let number = oid(number)?;
    let in_place = !location.starts_with(b"/");
    if location.contains(&0) || (in_place && **location != *format!("pg_tblspc/{number}").as_bytes()) {
        return None;
    }
    Some(Tablespace { oid: Some(number), location: location.to_vec(), size: None })
}

/// What zlib has compressed: one stream, whole, with nothing behind it, of at most `limit` bytes. A reader would take what was cut off
/// for the end.
pub(super) fn inflate(value: &[u8], limit: u64) -> Option<Bytes> {
    let mut inflater = Decompress::new(true);
    let mut content = Vec::new();
    loop {
        content.reserve(STEP);
        let before = (inflater.total_in(), inflater.total_out());
        let rest = value.get(usize::try_from(before.0).ok()?..)?;
        let status = inflater.decompress_vec(rest, &mut content, FlushDecompress::None).ok()?;
        let now = (inflater.total_in(), inflater.total_out());
        match status {
            _ if now.1 > limit => return None,
            Status::StreamEnd => return (now.0 == value.len() as u64).then(|| content.into()),
            Status::Ok | Status::BufError if now == before => return None,
            Status::Ok | Status::BufError => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..24).prop_map(Bytes::from)
    }

    fn compressed(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).expect("memory");
        encoder.finish().expect("memory")
    }

    proptest! {
        #[test]
        fn any_values_are_read_or_refused(row in vec(proptest::option::of(bytes()), 0..5), path in vec(any::<u8>(), 0..24)) {
            if let Some(found) = found(path.clone(), &row) {
                let size = i64::from_be_bytes(row[1].as_ref().unwrap()[..].try_into().unwrap());
                prop_assert_eq!((found.path, found.size), (path, u64::try_from(size).unwrap()));
            }
            if let Some(tablespace) = tablespace(&row) {
                prop_assert!(row.len() == 2 && !tablespace.location.contains(&0));
                prop_assert!(tablespace.in_place() || tablespace.location.starts_with(b"/"));
            }
            for value in row.iter().flatten() {
                for version in [ServerVersion::V9_1, ServerVersion::V18] {
                    prop_assert!(position(value, version).is_none_or(|lsn| !lsn.is_invalid()));
                }
            }
        }

        #[test]
        fn values_of_a_server_are_read(directory: bool, size in 0..=i64::MAX, changed: i64, number: u32, at in 1..=u64::MAX) {
            let be = |value: i64| Some(Bytes::copy_from_slice(&value.to_be_bytes()));
            let row = [Some(Bytes::copy_from_slice(&[directory.into()])), be(size), be(changed)];
            let expected = Found { path: b"./x".to_vec(), directory, size: size.try_into().unwrap(), changed };
            prop_assert_eq!(found(b"./x".to_vec(), &row), Some(expected));
            for location in ["/srv/x".to_owned(), format!("pg_tblspc/{number}")] {
                let row = [Some(Bytes::copy_from_slice(&number.to_be_bytes())), Some(Bytes::from(location.clone()))];
                let read = tablespace(&row).unwrap();
                prop_assert_eq!((read.oid, read.location), (Some(number), location.into_bytes()));
            }
            let binary = Bytes::copy_from_slice(&at.to_be_bytes());
            prop_assert_eq!(position(&binary, ServerVersion::V9_4), Some(Lsn(at)));
            prop_assert_eq!(position(&Lsn(at).to_string().into(), ServerVersion::V9_3), Some(Lsn(at)));
        }

        #[test]
        fn compressed_data_is_read_and_what_was_cut_or_changed_is_not_taken_for_it(
            content in vec(any::<u8>(), 1..4096), cut: proptest::sample::Index, noise in vec(any::<u8>(), 0..64)
        ) {
            let whole = compressed(&content);
            prop_assert_eq!(inflate(&whole, 4096), Some(Bytes::from(content.clone())));
            prop_assert_eq!(inflate(&whole, content.len() as u64 - 1), None);
            prop_assert_eq!(inflate(&whole[..cut.index(whole.len())], 4096), None);
            prop_assert_eq!(inflate(&[&whole[..], &[0]].concat(), 4096), None);
            prop_assert!(inflate(&noise, 16).is_none_or(|all| all.len() <= 16));
        }
    }

    #[test]
    fn what_becomes_too_long_is_refused() {
        let bomb = compressed(&vec![0; 64 << 20]);
        assert_eq!(inflate(&bomb, 8 << 20), None);
    }
}
