//! Criterion benches of the parts (`parts`) and of whole backups (`backup`). Run them with `cargo bench`.
//!
//! A figure means something only beside another of the same run: each group puts ours next to a yardstick.
