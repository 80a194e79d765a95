//! How fast the parts and the whole are.
//!
//! * Criterion benches of the parts (`parts`, `wal`), of whole backups (`backup`, and `proxy` through the fault proxy), of what is done
//!   with backups on disk (`files`) and of the scenario runner (`runner`): `cargo bench`.
//! * [`instructions`]: how many instructions the hot paths take, beside a baseline, `cargo run --release -p backstop-benches --bin
//!   instructions`.
//! * [`compare`]: our programs and PostgreSQL's in turn on the same data, `cargo run --release -p backstop-benches --bin compare`.
//!
//! A figure means something only beside another of the same run: each group puts ours next to a yardstick.

pub mod compare;
pub mod instructions;
