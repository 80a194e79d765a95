//! Helpers of a backup that somebody else starts and stops (`--slave`).

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::fetch::Crew;
use super::fetched::Fetched;
use super::files::Found;
use super::listing::Entry;
use super::place::lock;
use super::session::{Opener, Server};
use super::wal::{End, WalLoop};
use super::{FetchSummary, FollowSummary, ParallelOptions};
use crate::archive_check::clean_name;
use crate::connector::{Connector, Purpose};
use crate::error::{ClientError, shown};
use crate::observer::{Observer, Phase};
use crate::tree::{Modes, Tree};

/// A directory in which others may work, too.
fn shared(options: &ParallelOptions, server: &Server) -> Result<Tree, ClientError> {
    Tree::share(&options.directory, Modes::new(server.group_access), &options.disk)
}

async fn keep(tree: &Mutex<Tree>, options: &ParallelOptions, observer: &dyn Observer) -> Result<(), ClientError> {
    if options.sync {
        observer.phase(&Phase::Syncing);
        while !lock(tree).sync_some(options.sync_method)? {
            tokio::task::yield_now().await;
        }
    }
    lock(tree).keep();
    Ok(())
}

/// Fetches the files that `names` names, and nothing else: paths below the data directory. One that is not there is no error. None
/// that is in the directory already is overwritten. That a backup runs meanwhile is the caller's business.
///
/// # Errors
/// Whatever keeps one of the files from being fetched. What was made is then removed.
pub async fn fetch_files(
    connector: &dyn Connector,
    options: &ParallelOptions,
    names: &[Vec<u8>],
    observer: Arc<dyn Observer>,
) -> Result<FetchSummary, ClientError> {
    let opener = Opener { connector, options, observer: &observer };
    for name in names {
        clean_name(name, false)
            .map_err(|problem| ClientError::Refused(format!("file \"{}\": {problem}", shown(name))))?;
    }
    let (mut session, server) = opener.open(Purpose::Backup, "list").await?;
    let found = session.tree(b".", &[]).await?;
    session.terminate().await;
    let found: BTreeMap<&[u8], &Found> =
        found.iter().filter_map(|found| Some((found.path.strip_prefix(b"./")?, found))).collect();
    let tree = Mutex::new(shared(options, &server)?);
    let mut files = BTreeMap::new();
    let mut absent = 0;
    for name in names {
        let name = clean_name(name, false).unwrap_or_default();
        match found.get(&*name) {
            None => {
                absent += 1;
                observer.detail(&format!("file \"{}\" is not there", shown(&name)));
            }
            Some(found) if found.directory => {
                return Err(ClientError::Refused(format!("\"{}\" is a directory", shown(&name))));
            }
            Some(found) => {
                if let Some(slash) = name.iter().rposition(|byte| *byte == b'/') {
                    lock(&tree).share_directory(name.get(..slash).unwrap_or_default())?;
                }
                let (size, changed) = (found.size, found.changed);
                let path = name.clone();
                let entry = Entry { tablespace: None, name: path.clone(), path, size, changed, unlogged: false };
                files.insert(name, Arc::new(Fetched::new(entry)));
            }
        }
    }
    observer.phase(&Phase::Receiving);
    let crew = Crew::new(opener, &server, &tree, files.into_values().collect(), None, 0);
    crew.run().await?;
    let totals = *lock(&crew.totals);
    keep(&tree, options, observer.as_ref()).await?;
    Ok(FetchSummary { files: totals.files, bytes: totals.bytes, gone: totals.gone + absent })
}

/// Fetches WAL into `pg_wal` of the directory, from the last checkpoint's redo position on, until `enough` ends, and then once more.
///
/// # Errors
/// Whatever makes a hole in it. What was made is then removed.
pub async fn follow_wal(
    connector: &dyn Connector,
    options: &ParallelOptions,
    observer: Arc<dyn Observer>,
    enough: impl Future<Output = ()> + Send,
) -> Result<FollowSummary, ClientError> {
    let opener = Opener { connector, options, observer: &observer };
    let (session, server) = opener.open(Purpose::Backup, "backup").await?;
    session.terminate().await;
    let Some(control) = &server.control else {
        let text = format!("where WAL is needed from is not known of release {}", server.version);
        return Err(ClientError::Refused(text));
    };
    let (start, timeline) = (control.checkpoint_copy.redo, control.checkpoint_copy.timeline);
    let tree = Mutex::new(shared(options, &server)?);
    lock(&tree).share_directory(format!("{}/archive_status", server.version.wal_directory()).as_bytes())?;
    let (announce, end) = watch::channel(None);
    let delay = options.wal.unwrap_or(super::DEFAULT_DELAY);
    let follow = WalLoop::new(opener, &server, &tree, start, timeline).run(delay, end);
    tokio::pin!(follow);
    let totals = tokio::select! {
        biased;
        totals = &mut follow => totals?,
        () = enough => {
            announce.send_replace(Some(End::Now));
            follow.await?
        }
    };
    keep(&tree, options, observer.as_ref()).await?;
    let valid_to = totals.valid_to;
    Ok(FollowSummary { start, timeline, end: valid_to, segments: totals.segments, bytes: totals.bytes })
}
