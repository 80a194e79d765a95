//! Backups of real servers, spoilt, and two tools that are given the same one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use backstop_protocol::base_backup::manifest::{ChecksumAlgorithm, ChecksumHasher};
use backstop_scenarios::postgres::{Installation, reachable};

/// Copies a directory with all that is in it; links stay links, files become second names of the same files.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&source, &target);
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source).unwrap(), &target).unwrap();
        } else {
            fs::hard_link(&source, &target).unwrap();
        }
    }
}

/// Replaces a file; other names of the old one keep their content.
pub(crate) fn replace(path: &Path, content: impl AsRef<[u8]>) {
    fs::remove_file(path).unwrap();
    fs::write(path, content).unwrap();
}

/// Changes the content of a file.
pub(crate) fn change(path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    let mut content = fs::read(path).unwrap();
    edit(&mut content);
    replace(path, content);
}

/// The text of a manifest with the checksum that it should have.
pub(crate) fn sealed(text: &str) -> String {
    let start = text.rfind("\"Manifest-Checksum\"").unwrap();
    let mut hasher = ChecksumHasher::new(ChecksumAlgorithm::Sha256);
    hasher.update(&text.as_bytes()[..start]);
    let checksum: String = hasher.finish().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}\"Manifest-Checksum\": \"{checksum}\"}}\n", &text[..start])
}

/// The checksum of `content` as a manifest prints it.
pub(crate) fn crc32c(content: &[u8]) -> String {
    let mut hasher = ChecksumHasher::new(ChecksumAlgorithm::Crc32c);
    hasher.update(content);
    hasher.finish().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Our program under PostgreSQL's name.
pub(crate) fn named(tool: &str, scratch: &Path) -> PathBuf {
    let program = scratch.join("backstop-client");
    if !program.exists() {
        reachable(Path::new(env!("CARGO_BIN_EXE_backstop-client")), scratch);
    }
    let link = scratch.join(tool);
    if !link.exists() {
        symlink(&program, &link).unwrap();
    }
    link
}

/// What a tool said and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { status: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

/// Runs a program as the user that servers run as.
pub(crate) fn run(installation: &Installation, program: &Path, directory: &Path, arguments: &[String]) -> Said {
    let mut command: Command = installation.command(program);
    command.current_dir(directory).args(arguments);
    command.output().unwrap().into()
}
