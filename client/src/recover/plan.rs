//! Where each file of the output comes from.

use backstop_protocol::lsn::Lsn;
use backstop_protocol::page::BLOCK_SIZE;

use super::input::{Input, is_wal, no_inputs};
use crate::error::{ClientError, shown};

/// Where the last input has its tablespaces: a server that starts makes links to what this says. The output has links of its own.
const TABLESPACE_MAP: &[u8] = b"tablespace_map";

/// A file of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedFile {
    /// Below the data directory.
    pub(super) path: Vec<u8>,
    /// The number of the input that has it.
    pub(super) input: usize,
    /// How much of it is taken: all, or the beginning.
    pub(super) size: u64,
    pub(super) whole: bool,
    /// What the highest LSN of its pages must be, if it was not sent.
    pub(super) lsn: Option<Lsn>,
}

/// All files of the output but `backup_label`, `tablespace_map`, the profile, the manifest and WAL.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) files: Vec<PlannedFile>,
    pub(super) bytes: u64,
}

impl Plan {
    pub(super) fn new(inputs: &[Input]) -> Result<Self, ClientError> {
        let number = inputs.len().checked_sub(1).ok_or_else(no_inputs)?;
        let last = inputs.last().ok_or_else(no_inputs)?;
        let listed = last.profile.as_ref().map(|profile| profile.files.as_slice()).unwrap_or_default();
        let mut files = Vec::with_capacity(listed.len());
        for file in listed {
            let path = file.path_in_data_directory();
            if path == b"backup_label" || path == TABLESPACE_MAP || is_wal(&path) {
                continue;
            }
            if file.sent {
                // What may be changed later is taken as it is.
                let size = last.tree.files.get(&path).copied().unwrap_or(file.size);
                files.push(PlannedFile { path, input: number, size, whole: true, lsn: None });
            } else {
                let (input, there) = source(inputs, number, &path)?;
                check_size(inputs.get(input), &path, there, file.size)?;
                files.push(PlannedFile { path, input, size: file.size, whole: there == file.size, lsn: file.lsn });
            }
        }
        // Recovery settings, and the like, that came after the profile.
        for (path, size) in &last.tree.files {
            let known = crate::combine::walk::relied_on(path) || path == TABLESPACE_MAP;
            if !known && last.file(path).is_none() {
                files.push(PlannedFile { path: path.clone(), input: number, size: *size, whole: true, lsn: None });
            }
        }
        let bytes = files.iter().map(|file| file.size).sum();
        Ok(Self { files, bytes })
    }
}

/// The last input before number `last` that has the file at `path`, and how large it is there.
fn source(inputs: &[Input], last: usize, path: &[u8]) -> Result<(usize, u64), ClientError> {
    for (number, input) in inputs.iter().enumerate().take(last).rev() {
        let sent = match (&input.profile, input.file(path)) {
            (Some(_), Some(file)) => file.sent,
            (Some(_), None) => break,
            (None, _) => true,
        };
        if sent {
            return match input.tree.files.get(path) {
                Some(size) => Ok((number, *size)),
                None => break,
            };
        }
    }
    let name = shown(path);
    let backup = inputs.get(last).map(|input| input.directory.display().to_string()).unwrap_or_default();
    Err(ClientError::Unusable(format!(
        "\"{name}\" is in no backup before \"{backup}\", which left it out: a database or tablespace was copied file by file, or \
         this is not its base; take a full backup"
    )))
}

fn check_size(input: Option<&Input>, path: &[u8], there: u64, wanted: u64) -> Result<(), ClientError> {
    let whole_pages = wanted.is_multiple_of(BLOCK_SIZE as u64) && wanted > 0;
    if wanted == there || (wanted < there && whole_pages) {
        return Ok(());
    }
    let name = shown(path);
    let backup = input.map(|input| input.directory.display().to_string()).unwrap_or_default();
    Err(ClientError::Unusable(format!(
        "\"{name}\" has size {there} in the backup at \"{backup}\", but size {wanted} in the profile of the one that left it out"
    )))
}
