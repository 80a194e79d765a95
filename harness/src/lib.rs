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

pub mod event;
pub mod plan;
pub mod scenario;
pub mod verdict;
