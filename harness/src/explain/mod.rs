//! A case in words: who, against what server, what goes wrong and where, what must hold, and which messages are expected. Nothing is run:
//! [`timeline`] knows what servers of a release and clients say when nothing goes wrong, and faults are pinned at their points.

mod story;
pub mod timeline;
mod words;

pub use self::story::story;

#[cfg(test)]
mod tests;
