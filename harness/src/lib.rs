//! Runs base backup scenarios against any client and judges what it left behind.
//!
//! A run goes through four rooms, in this order:
//!
//! | to | see |
//! |---|---|
//! | read scenario files and choose cases | [`scenario`] |
//! | say what is to run, against which client and server | [`plan`] |
//! | hear what happens while it runs | [`event`] |
//! | judge a case, and a whole run | [`verdict`] |
//! | tell people and machines about it | [`report`] |
//! | do all this from the command line | [`cli`] |

pub mod cli;
pub mod event;
pub mod plan;
pub mod report;
pub mod scenario;
pub mod verdict;
