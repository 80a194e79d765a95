//! A file that is being fetched, in pieces that come in any order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::files::CHUNK;
use super::listing::Entry;
use backstop_protocol::lsn::Lsn;

use crate::disk::File;
use crate::error::ClientError;
use crate::tree::Tree;

/// What became of a file when its last piece was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is there, with so many bytes.
    Kept(u64),
    /// It is not there, since the backup before has it: so many bytes, last changed at this position.
    LeftOut(u64, Lsn),
    /// The server removed it meanwhile.
    Gone,
}

#[derive(Debug)]
struct State {
    file: Option<Arc<File>>,
    /// Pieces that are not done.
    pieces: u64,
    /// The end of what was written, in bytes.
    end: u64,
    gone: bool,
    lsns: Lsns,
}

/// What is known of the LSNs of the pages that were read.
#[derive(Clone, Copy, Debug, Default)]
struct Lsns {
    highest: Option<Lsn>,
    /// A piece proves nothing.
    unknown: bool,
}

/// A file of the backup under way.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) entry: Entry,
    state: Mutex<State>,
}

impl Fetched {
    pub(super) fn new(entry: Entry) -> Self {
        // One piece at least: that a file is empty is only what the list said.
        let pieces = entry.size.div_ceil(CHUNK).max(1);
        Self { entry, state: Mutex::new(State { file: None, pieces, end: 0, gone: false, lsns: Lsns::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the highest LSN of a piece; none if it proves nothing.
    pub(super) fn note_lsn(&self, highest: Option<Lsn>) {
        let lsns = &mut self.state().lsns;
        lsns.unknown |= highest.is_none();
        lsns.highest = lsns.highest.max(highest);
    }

    /// The highest LSN of its pages, if every piece told one.
    pub(super) fn highest_lsn(&self) -> Option<Lsn> {
        let lsns = self.state().lsns;
        lsns.highest.filter(|_| !lsns.unknown)
    }

    /// Writes what was read at `offset`. None: the server has no such file any more.
    pub(super) fn write(&self, tree: &mut Tree, offset: u64, content: Option<&[u8]>) -> Result<(), ClientError> {
        let mut state = self.state();
        let Some(content) = content else {
            state.gone = true;
            return Ok(());
        };
        let file = match &state.file {
            Some(file) => Arc::clone(file),
            None => Arc::clone(state.file.insert(Arc::new(tree.create_file(&self.entry.name)?))),
        };
        state.end = state.end.max(offset + content.len() as u64);
        drop(state);
        file.write_all_at(content, offset).map_err(ClientError::local("write to file", tree.full(&self.entry.name)))
    }

    /// A piece is done. Of the last one, what became of the file: one of a relation is as long as it was when the backup began, as
    /// BASE_BACKUP sends it, with zeros for what was cut off; any other is as it was read. Nothing of a file that is gone stays:
    /// what WAL says of it, WAL also says that it was removed. Nor of one whose pages are all older than `since`.
    pub(super) fn piece_done(&self, tree: &mut Tree, since: Option<Lsn>) -> Result<Option<Outcome>, ClientError> {
        let highest = self.highest_lsn();
        let mut state = self.state();
        state.pieces -= 1;
        if state.pieces > 0 {
            return Ok(None);
        }
        let (file, name) = (state.file.take(), &self.entry.name);
        if state.gone {
            if file.is_some() {
                tree.remove_file(name)?;
            }
            return Ok(Some(Outcome::Gone));
        }
        let size = self.entry.size;
        if let Some(lsn) = highest.filter(|lsn| since.is_some_and(|since| *lsn < since)) {
            if file.is_some() {
                tree.remove_file(name)?;
            }
            return Ok(Some(Outcome::LeftOut(size, lsn)));
        }
        if let Some(file) = file.filter(|_| self.entry.relation().is_some() && state.end < size) {
            file.set_len(size).map_err(ClientError::local("write to file", tree.full(name)))?;
            state.end = size;
        }
        Ok(Some(Outcome::Kept(state.end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, RealDisk};
    use crate::tree::Modes;

    fn fetched(path: &str, size: u64) -> Fetched {
        let name = path.as_bytes().to_vec();
        Fetched::new(Entry { tablespace: None, path: name.clone(), name, size, changed: 0, unlogged: false })
    }

    fn tree(path: &std::path::Path) -> Tree {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let mut tree = Tree::create(path, Modes::new(false), &disk).expect("a tree");
        for directory in ["base", "base/5"] {
            tree.create_directory(directory.as_bytes()).expect("a directory");
        }
        tree
    }

    #[test]
    fn a_relation_keeps_the_size_that_was_listed() {
        let scratch = tempfile::tempdir().expect("a directory");
        let mut tree = tree(&scratch.path().join("x"));
        let file = fetched("base/5/1", CHUNK + 16);
        file.write(&mut tree, CHUNK, Some(b"")).expect("written");
        assert_eq!(file.piece_done(&mut tree, None).expect("done"), None);
        file.write(&mut tree, 0, Some(b"first")).expect("written");
        assert_eq!(file.piece_done(&mut tree, None).expect("done"), Some(Outcome::Kept(CHUNK + 16)));
        let content = std::fs::read(tree.full(b"base/5/1")).expect("a file");
        assert_eq!((content.len() as u64, content.get(..6)), (CHUNK + 16, Some(&b"first\0"[..])));
    }

    #[test]
    fn a_file_is_left_out_if_every_piece_says_that_it_is_old() {
        let scratch = tempfile::tempdir().expect("a directory");
        let mut tree = tree(&scratch.path().join("x"));
        let since = Some(Lsn(100));
        for (name, lsns, left_out) in [
            ("base/5/1", [Some(Lsn(7)), Some(Lsn(99))], true),
            ("base/5/2", [Some(Lsn(100)), Some(Lsn(7))], false),
            ("base/5/3", [Some(Lsn(7)), None], false),
        ] {
            let file = fetched(name, CHUNK + 5);
            for (offset, lsn) in [(0, lsns[0]), (CHUNK, lsns[1])] {
                file.note_lsn(lsn);
                file.write(&mut tree, offset, Some(b"first")).expect("written");
                let outcome = file.piece_done(&mut tree, since).expect("done");
                let expected = if left_out { Outcome::LeftOut(CHUNK + 5, Lsn(99)) } else { Outcome::Kept(CHUNK + 5) };
                assert_eq!(outcome, (offset > 0).then_some(expected));
            }
            assert_eq!(tree.full(name.as_bytes()).exists(), !left_out);
        }
    }

    #[test]
    fn any_other_file_is_as_it_was_read() {
        let scratch = tempfile::tempdir().expect("a directory");
        let mut tree = tree(&scratch.path().join("x"));
        for (name, content) in [("shrunk", &b"ab"[..]), ("grown", b"abcdef")] {
            let file = fetched(name, 4);
            file.write(&mut tree, 0, Some(content)).expect("written");
            let outcome = file.piece_done(&mut tree, None).expect("done");
            assert_eq!(outcome, Some(Outcome::Kept(content.len() as u64)));
            assert_eq!(std::fs::read(tree.full(name.as_bytes())).expect("a file"), content);
        }
    }

    #[test]
    fn nothing_stays_of_a_file_that_is_gone() {
        let scratch = tempfile::tempdir().expect("a directory");
        let mut tree = tree(&scratch.path().join("x"));
        let file = fetched("base/5/1", CHUNK + 1);
        file.write(&mut tree, 0, Some(b"first")).expect("written");
        assert_eq!(file.piece_done(&mut tree, None).expect("done"), None);
        file.write(&mut tree, CHUNK, None).expect("noted");
        assert_eq!(file.piece_done(&mut tree, None).expect("done"), Some(Outcome::Gone));
        assert!(!tree.full(b"base/5/1").exists());
    }
}
