//! A client that takes its backup with SQL, over ordinary connections: the built-in one as options of the library.

use std::num::NonZero;
use std::path::{Path, PathBuf};

use backstop_client::parallel::{DEFAULT_DELAY, ParallelOptions};
use backstop_protocol::lsn::Lsn;

use super::builtin::{deadlines, start_of, tablespaces, wants_sync};
use crate::scenario::Case;
use crate::scenario::model::{Checkpoint, Client, WalMethod};

/// The database that sessions are connected to, which every server has.
const DATABASE: &str = "postgres";

/// What the library is told. `base` is where the manifest would lie of the backup on which this one builds.
///
/// # Errors
/// There is no such backup.
pub fn options(
    case: &Case,
    client: &Client,
    target: PathBuf,
    base: Option<&Path>,
    tablespace: impl Fn(u32) -> PathBuf,
) -> Result<ParallelOptions, String> {
    let since: Option<Lsn> = base.map(start_of).transpose()?;
    let mut options = ParallelOptions::new(&*case.credentials.user, target);
    options.login.password.clone_from(&case.credentials.password);
    options.login.application_name.clone_from(&client.name);
    DATABASE.clone_into(&mut options.login.database);
    options.fast_checkpoint = client.checkpoint == Checkpoint::Fast;
    options.wal = (client.wal != WalMethod::None).then_some(DEFAULT_DELAY);
    options.jobs = client.jobs.unwrap_or(NonZero::<usize>::MIN);
    options.incremental_from = since;
    options.tablespace_mapping = tablespaces(case, tablespace);
    // One in place has no location of its own.
    options.tablespace_mapping.retain(|(location, _)| location.is_absolute());
    options.sync = wants_sync(case);
    options.deadlines = deadlines(client.timeout.0);
    Ok(options)
}
