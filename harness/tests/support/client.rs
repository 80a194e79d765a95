//! The client's own binary.

use std::path::PathBuf;

/// `backstop-client`, as the whole workspace's tests build it. It belongs to another package, which does not tell where it is.
pub fn client_program() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let target = test.ancestors().nth(2).expect("the target directory");
    let program = target.join("backstop-client");
    assert!(program.is_file(), "{} was not built: cargo build --workspace --bins", program.display());
    program
}
