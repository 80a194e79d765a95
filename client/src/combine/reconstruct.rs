//! A whole file out of an incremental one and what came before it.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use backstop_protocol::base_backup::incremental;
use backstop_protocol::base_backup::manifest::{ChecksumAlgorithm, ChecksumHasher};
use backstop_protocol::page::BLOCK_SIZE;

use super::chain::Chain;
use super::copy::{Checksum, Whole};
use super::incremental::Source;
use super::output::Place;
use super::steps::Job;
use super::walk::{join, relied_on};
use super::{CombineObserver, CombineOptions, CopyMethod};
use crate::error::{ClientError, reason, shown};

const BLOCK: u64 = BLOCK_SIZE as u64;

/// How many blocks are read at once.
const RUN: u32 = 32;

/// Where a block comes from: the number of the source, and the offset in it.
type Origin = Option<(usize, u64)>;

/// The sources of one file, newest first, and what comes from where.
struct Plan {
    /// With the number of the backup.
    sources: Vec<(usize, Source)>,
    /// For every block of the file; nothing where zeros stand.
    origins: Vec<Origin>,
    /// The source that is the whole file as it has to be.
    copy: Option<usize>,
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Plan {
    /// Finds every block, newest backup first, until a backup holds the whole file.
    fn make(chain: &Chain, input: &Path, path: &[u8]) -> Result<Self, ClientError> {
        let newest = Source::incremental(input)?;
        let Some(header) = newest.header.clone() else {
            return Err(ClientError::Unusable(format!("file \"{}\" is not incremental", input.display())));
        };
        let truncated = header.truncation_block_length();
        let blocks = header.blocks().last().map_or(0, |last| last + 1).max(truncated);
        let mut plan = Self { sources: Vec::new(), origins: vec![None; index(blocks)], copy: None };
        let last = chain.inputs.len().saturating_sub(1);
        plan.sources.push((last, newest));
        plan.take_incremental(0, blocks);
        let mut untouched = header.blocks().is_empty();
        for (number, backup) in chain.inputs.iter().enumerate().take(last).rev() {
            let full = join(&backup.directory, path);
            let source = match Source::whole(&full)? {
                Some(source) => source,
                None => Source::incremental(&join(&backup.directory, &incremental::name(path)))?,
            };
            let is_whole = source.header.is_none();
            let length = source.length;
            plan.sources.push((number, source));
            let place = plan.sources.len() - 1;
            if is_whole {
                // Blocks that are nowhere were never written to: the server extended the file and logged nothing of them.
                for (block, origin) in plan.origins.iter_mut().enumerate().take(index(truncated)) {
                    let offset = block as u64 * BLOCK;
                    if origin.is_none() && offset + BLOCK <= length {
                        *origin = Some((place, offset));
                    }
                }
                plan.copy = (untouched && length == u64::from(truncated) * BLOCK).then_some(place);
                return Ok(plan);
            }
            untouched &= !plan.take_incremental(place, truncated);
        }
        let oldest = plan.sources.last().map(|(_, source)| source.path.display().to_string()).unwrap_or_default();
        Err(ClientError::Unusable(format!("full backup contains unexpected incremental file \"{oldest}\"")))
    }

    /// Takes the blocks below `limit` that are not known yet from the source: whether there were any.
    fn take_incremental(&mut self, place: usize, limit: u32) -> bool {
        let header = self.sources.get(place).and_then(|(_, source)| source.header.as_ref());
        let Some(header) = header else { return false };
        let mut any = false;
        let start = header.size() as u64;
        for (number, block) in (0_u64..).zip(header.blocks()) {
            if *block < limit
                && let Some(origin @ None) = self.origins.get_mut(index(*block))
            {
                *origin = Some((place, start + number * BLOCK));
                any = true;
            }
        }
        any
    }

    /// Counts what is read from where.
    fn count(&mut self) {
        for (place, offset) in self.origins.iter().flatten() {
            if let Some((_, source)) = self.sources.get_mut(*place) {
                source.blocks_read += 1;
                source.highest = source.highest.max(offset + BLOCK);
            }
        }
    }

    /// The blocks in runs that are read at once: origin, first block, how many.
    fn runs(&self) -> impl Iterator<Item = (Origin, usize, u32)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let origin = *self.origins.get(at)?;
            let (first, mut count) = (at, 1);
            at += 1;
            while count < RUN && self.origins.get(at) == Some(&next(origin, u64::from(count))) {
                at += 1;
                count += 1;
            }
            Some((origin, first, count))
        })
    }

    /// As `--debug` shows it, in lines of about a kilobyte.
    fn describe(&self, observer: &mut dyn CombineObserver) {
        let mut line = String::new();
        let mut start = 0;
        for (block, origin) in self.origins.iter().enumerate() {
            let following = self.origins.get(block + 1);
            let place = |origin: &Origin| origin.map(|(place, _)| place);
            if following.is_some_and(|following| place(following) == place(origin)) {
                continue;
            }
            let _ = if start == block { write!(line, " {block}") } else { write!(line, " {start}-{block}") };
            let source = origin.and_then(|(place, offset)| Some((self.sources.get(place)?, offset)));
            let _ = match source {
                None => write!(line, ":zero"),
                Some(((_, source), offset)) => write!(line, ":{}@{offset}", source.path.display()),
            };
            start = block + 1;
            if following.is_none() || line.len() > 1024 {
                observer.debug(&format!("reconstruction plan:{line}"));
                line.clear();
            }
        }
    }
}

/// The origin that would follow in the same run.
fn next(origin: Origin, blocks: u64) -> Origin {
    origin.map(|(place, offset)| (place, offset + blocks * BLOCK))
}

/// Makes the file at `place` out of the incremental file `input`. `path` is what manifests call it, without the prefix.
pub(super) fn reconstruct(
    input: &Path,
    path: &[u8],
    place: &Place,
    algorithm: ChecksumAlgorithm,
    job: &Job<'_>,
    observer: &mut dyn CombineObserver,
) -> Result<Option<Checksum>, ClientError> {
    let (chain, options) = (job.chain, job.options);
    let mut plan = Plan::make(chain, input, path)?;
    if let Some((number, source)) = plan.copy.and_then(|place| plan.sources.get(place)) {
        let listed = chain.inputs.get(*number).and_then(|backup| {
            let listed = backup.listed(path);
            if listed.is_none() && backup.manifest().is_some() && algorithm != ChecksumAlgorithm::None {
                let (manifest, file) = (backup.manifest_path(), shown(path));
                let manifest = manifest.display();
                observer.warning(&format!("manifest file \"{manifest}\" contains no entry for file \"{file}\""), None);
            }
            listed.map(|(_, file)| file)
        });
        let whole = Whole { source: &source.path, listed: listed.filter(|file| relied_on(&file.path)), algorithm };
        return whole.copy(place, job, observer);
    }
    plan.count();
    if observer.debugging() {
        let doing = if options.dry_run { "would reconstruct" } else { "reconstructing" };
        let (full, blocks) = (place.full.display(), plan.origins.len());
        observer.debug(&format!("{doing} \"{full}\" ({blocks} blocks, checksum {algorithm})"));
        plan.describe(observer);
    }
    for (number, source) in &plan.sources {
        source.check_length(options.dry_run)?;
        check_listed(chain, *number, path, source)?;
    }
    let checksum = write(&plan, place, algorithm, job)?;
    if observer.debugging() {
        say_what_was_read(&plan, options, observer);
    }
    Ok(checksum)
}

/// A source must have the size that its backup's manifest says.
fn check_listed(chain: &Chain, number: usize, path: &[u8], source: &Source) -> Result<(), ClientError> {
    let name = if source.header.is_some() { incremental::name(path) } else { path.to_vec() };
    let Some((_, listed)) = chain.inputs.get(number).and_then(|backup| backup.listed(&name)) else { return Ok(()) };
    if listed.size == source.length {
        return Ok(());
    }
    let (path, found, expected) = (source.path.display(), source.length, listed.size);
    Err(ClientError::Unusable(format!("\"{path}\" has size {found} on disk but size {expected} in the manifest")))
}

fn write(
    plan: &Plan,
    place: &Place,
    algorithm: ChecksumAlgorithm,
    job: &Job<'_>,
) -> Result<Option<Checksum>, ClientError> {
    let Some(mut file) = job.output().create_file(place)? else { return Ok(None) };
    let mut hasher = ChecksumHasher::new(algorithm);
    let mut buffer = vec![0; index(RUN) * BLOCK_SIZE];
    for (origin, _, count) in plan.runs() {
        job.check_canceled()?;
        let bytes = buffer.get_mut(..index(count) * BLOCK_SIZE).unwrap_or_default();
        let source = origin.and_then(|(place, offset)| Some((&plan.sources.get(place)?.1, offset)));
        let by_range = job.options.copy_method == CopyMethod::CopyFileRange;
        match source {
            None => bytes.fill(0),
            Some((source, offset)) if by_range => {
                copy_range(source, offset, bytes.len(), &file, place, job)?;
                if algorithm != ChecksumAlgorithm::None {
                    source.read_blocks(offset, bytes)?;
                    hasher.update(bytes);
                }
                continue;
            }
            Some((source, offset)) => source.read_blocks(offset, bytes)?,
        }
        hasher.update(bytes);
        file.write_all(bytes).map_err(ClientError::local("write file", &place.full))?;
    }
    Ok((algorithm != ChecksumAlgorithm::None).then(|| (algorithm, hasher.finish())))
}

fn copy_range(
    source: &Source,
    mut offset: u64,
    mut left: usize,
    file: &crate::disk::File,
    place: &Place,
    job: &Job<'_>,
) -> Result<(), ClientError> {
    let (from, to) = (source.path.display(), place.full.display());
    while left > 0 {
        job.check_canceled()?;
        let copied = file.append_range(&source.file, Some(&mut offset), left).map_err(|error| {
            let reason = reason(&error);
            ClientError::Unusable(format!("error while copying file range from \"{from}\" to \"{to}\": {reason}"))
        })?;
        if copied == 0 {
            let text = format!("unexpected end of file while copying file range from \"{from}\" to \"{to}\"");
            return Err(ClientError::Unusable(text));
        }
        left = left.saturating_sub(copied);
    }
    Ok(())
}

fn say_what_was_read(plan: &Plan, options: &CombineOptions, observer: &mut dyn CombineObserver) {
    let would = options.dry_run;
    let zeros = plan.origins.iter().filter(|origin| origin.is_none()).count();
    if zeros > 0 {
        observer.debug(&format!("{} {zeros} blocks", if would { "would have zero-filled" } else { "zero-filled" }));
    }
    for (_, source) in plan.sources.iter().rev().filter(|(_, source)| source.blocks_read > 0) {
        let (count, path) = (source.blocks_read, source.path.display());
        observer.debug(&format!("{} {count} blocks from \"{path}\"", if would { "would have read" } else { "read" }));
    }
}
