//! Our programs and PostgreSQL's in turn on the same data, in one run.
//!
//! A machine's speed drifts, and differs from the next machine's; the ratio of two programs that take turns does not, much. So
//! every round runs both, the first round is thrown away, and a ratio is taken within each round before the median is. Client and
//! server are pinned to cores of their own: on one shared core the server's last bytes are still in the cache of its reader, and the
//! figures mean something else. `busy` is the CPU time of both ends by the wall clock: near 1 one end waited for the other, near 2
//! both worked all the time.

mod bench;
pub mod discard;
mod error;
mod groups;
mod process;
mod programs;
pub mod report;
mod rounds;
mod servers;
mod workload;

pub use bench::Bench;
pub use error::CompareError;
pub use groups::{GROUPS, Group};
pub use programs::Programs;
pub use rounds::{Arm, Comparison, Measured, Metric, Outcome, Prepare, Target};
pub use servers::Serves;
