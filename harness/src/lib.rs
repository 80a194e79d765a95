//! Runs base backup scenarios against any client and judges what it left behind.
//!
//! A run goes through these rooms, in this order:
//!
//! | to | see |
//! |---|---|
//! | read scenario files and choose cases | [`scenario`] |
//! | say what is to run, against which client and server | [`plan`] |
//! | put up a server, and the clients under test | [`arena`], [`subject`] |
//! | tell one of them in words | [`explain`] |
//! | run them, and keep what they leave | [`runner`], [`record`] |
//! | hear what is said to a server that tells nothing of itself | [`witness`] |
//! | judge it | [`oracle`], [`verdict`] |
//! | take down what passed on the wire, and read it | [`capture`], [`decode`] |
//! | keep what was said as a file of kilobytes, and say it again | [`cassette`] |
//! | compare what was said with what was said before | [`golden`] |
//! | see how true the mock is | [`parity`] |
//! | set aside what a client is known to do wrong | [`known`] |
//! | hear what happens while it runs | [`event`] |
//! | tell people and machines about it | [`report`] |
//! | see whether it catches clients that are broken on purpose | `mutants`, with the feature of this name |
//! | do all this from the command line | [`cli`] |

pub mod arena;
pub mod capture;
pub mod cassette;
pub mod cli;
pub mod decode;
pub mod event;
pub mod explain;
pub mod golden;
pub mod known;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod oracle;
pub mod parity;
pub mod plan;
pub mod record;
pub mod report;
pub mod runner;
pub mod scenario;
pub mod subject;
mod survivor;
pub mod verdict;
pub mod witness;
