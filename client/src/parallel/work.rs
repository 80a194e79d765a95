//! The work that connections share: pieces of files.
//!
//! Whoever is free takes the next piece. A large file is so fetched by all at once, and a connection that fails gives back what
//! it had.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::fetched::Fetched;
use super::files::CHUNK;

/// A piece of a file.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) file: Arc<Fetched>,
    /// In bytes.
    pub(super) offset: u64,
    /// At most [`CHUNK`]; a file that is not a relation's may have become longer.
    pub(super) length: u64,
}

#[derive(Debug, Default)]
struct State {
    /// The first to fetch first.
    files: VecDeque<Arc<Fetched>>,
    /// Where the next piece of the first file begins.
    offset: u64,
    returned: Vec<Piece>,
    /// Pieces that were taken and are not done.
    under_way: usize,
}

/// All pieces.
#[derive(Debug)]
pub(super) struct Work {
    state: Mutex<State>,
    changed: Notify,
}

impl Work {
    /// The pieces of `files`, in this order.
    pub(super) fn new(files: Vec<Arc<Fetched>>) -> Self {
        let state = State { files: files.into(), ..State::default() };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next piece; nothing when all are done. Waits while others may give one back.
    pub(super) async fn next(&self) -> Option<Piece> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state();
                let piece = state.returned.pop().or_else(|| state.cut());
                if piece.is_some() {
                    state.under_way += 1;
                    return piece;
                }
                if state.under_way == 0 {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// A piece is done.
    pub(super) fn done(&self) {
        self.state().under_way -= 1;
        self.changed.notify_waiters();
    }

    /// A piece was not done.
    pub(super) fn give_back(&self, piece: Piece) {
        let mut state = self.state();
        state.under_way -= 1;
        state.returned.push(piece);
        drop(state);
        self.changed.notify_waiters();
    }
}

impl State {
    fn cut(&mut self) -> Option<Piece> {
        let file = Arc::clone(self.files.front()?);
        let offset = self.offset;
        let length = (file.entry.size - offset).min(CHUNK);
        self.offset += length;
        if self.offset >= file.entry.size {
            self.files.pop_front();
            self.offset = 0;
        }
        Some(Piece { file, offset, length })
    }
}

#[cfg(test)]
mod tests {
    use super::super::listing::Entry;
    use super::*;

    fn file(name: &str, size: u64) -> Arc<Fetched> {
        let name = name.as_bytes().to_vec();
        let entry = Entry { tablespace: None, path: name.clone(), name, size, changed: 0, unlogged: false };
        Arc::new(Fetched::new(entry))
    }

    fn told(piece: &Piece) -> (String, u64, u64) {
        (String::from_utf8_lossy(&piece.file.entry.name).into_owned(), piece.offset, piece.length)
    }

    #[tokio::test]
    async fn files_are_cut_into_pieces() {
        let work = Work::new(vec![file("large", CHUNK + 1), file("small", 5), file("empty", 0)]);
        let mut pieces = Vec::new();
        while let Some(piece) = work.next().await {
            pieces.push(told(&piece));
            work.done();
        }
        let expected = [("large", 0, CHUNK), ("large", CHUNK, 1), ("small", 0, 5), ("empty", 0, 0)];
        assert_eq!(pieces, expected.map(|(name, offset, length)| (name.to_owned(), offset, length)));
    }

    #[tokio::test]
    async fn what_is_given_back_is_taken_by_another() {
        let work = Work::new(vec![file("only", 5)]);
        let piece = work.next().await.expect("a piece");
        let waiting = work.next();
        tokio::pin!(waiting);
        let pending = tokio::select! { biased; _ = &mut waiting => false, () = tokio::task::yield_now() => true };
        assert!(pending, "it may come back");
        work.give_back(piece);
        assert_eq!(waiting.await.map(|piece| told(&piece)), Some(("only".to_owned(), 0, 5)));
        work.done();
        assert!(work.next().await.is_none());
    }
}
