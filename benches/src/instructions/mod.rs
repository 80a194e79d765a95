//! Instruction counts of the hot paths, which are the same in every run on every load: a regression shows in them that the clock hides.
//!
//! A path is run N and 2N times below `valgrind --tool=cachegrind`; the difference is what N times cost, without the program's start.
//! Counts follow from the machine code and from what the processor can do (libraries choose instructions when they run), so that a
//! [`Baseline`] names what it was measured with and is compared with nothing else.
//!
//! | what | see |
//! |---|---|
//! | the paths | [`PATHS`] |
//! | counting | [`Counter`] |
//! | what is compared with what | [`Baseline`], [`Environment`] |

mod baseline;
mod counter;
mod paths;

pub use baseline::{Baseline, BaselineError, Compared, Environment, TOLERANCE};
pub use counter::{CountError, Counter};
pub use paths::{PATHS, Path};
