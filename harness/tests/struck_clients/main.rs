//! The client's binary is struck at points drawn by chance: by signals, full disks, and system calls that fail. Whatever it was
//! doing, nothing is left that passes for a backup and is none, and nothing changes outside of the target.
//!
//! | struck | in |
//! |---|---|
//! | at points of the conversation, by signals and a full disk | [`conversation`] |
//! | at its system calls, by errors and signals | [`basebackup`], [`receivewal`], [`combinebackup`] |
//!
//! System calls are struck by `strace`. `BACKSTOP_STRIKES=10` makes ten times as many strikes, `BACKSTOP_STRIKES_SEED` others.

mod basebackup;
mod chance;
mod combinebackup;
mod conversation;
mod receivewal;
mod site;
mod strike;
#[path = "../support/mod.rs"]
mod support;
