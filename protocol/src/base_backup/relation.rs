//! Which files are those of relations: `parse_filename_for_nontemp_relation`.

/// A file of a relation that is not temporary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationFile {
    /// Which of the relation's forks.
    pub fork: Fork,
    /// The number of the file, each of 131072 blocks but for the last.
    pub segment: u32,
}

/// A fork of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Fork {
    Main,
    FreeSpaceMap,
    VisibilityMap,
    Init,
}

impl RelationFile {
    /// What the file at `path` below the data directory is, if it is a relation's.
    pub fn parse(path: &[u8]) -> Option<Self> {
        let path = str::from_utf8(path).ok()?;
        let (directory, name) = path.rsplit_once('/')?;
        let holds_relations = ["base/", "global", "pg_tblspc/"].iter().any(|start| directory.starts_with(start));
        if !holds_relations {
            return None;
        }
        let (relation, segment) = match name.split_once('.') {
            Some((relation, segment)) => (relation, segment.parse::<u32>().ok()?),
            None => (name, 0),
        };
        let (number, fork) = match relation.split_once('_') {
            None => (relation, Fork::Main),
            Some((number, "fsm")) => (number, Fork::FreeSpaceMap),
            Some((number, "vm")) => (number, Fork::VisibilityMap),
            Some((number, "init")) => (number, Fork::Init),
            Some(_) => return None,
        };
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then_some(Self { fork, segment })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_files_of_relations() {
        let known = |path: &str| RelationFile::parse(path.as_bytes()).map(|file| (file.fork, file.segment));
        assert_eq!(known("base/5/1259"), Some((Fork::Main, 0)));
        assert_eq!(known("base/5/2396_vm"), Some((Fork::VisibilityMap, 0)));
        assert_eq!(known("global/1260_fsm"), Some((Fork::FreeSpaceMap, 0)));
        assert_eq!(known("base/5/16397_init"), Some((Fork::Init, 0)));
        assert_eq!(known("pg_tblspc/16400/PG_18_202506291/5/16401.3"), Some((Fork::Main, 3)));
        for path in ["base/5/PG_VERSION", "global/pg_control", "global/pg_filenode.map", "pg_xact/0000", "base/5/x1"] {
            assert_eq!(known(path), None, "{path}");
        }
    }
}
