//! What tests of several kinds need. Each test uses a part of it.
#![allow(dead_code, unreachable_pub, reason = "every test file compiles its own copy and uses a part")]

pub mod authority;
pub mod failing_disk;
pub mod parallel;
pub mod story;
pub mod terminal;
