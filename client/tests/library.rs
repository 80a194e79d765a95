//! The library in a program of somebody else's: the example is run, and what it keeps is a backup.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use backstop_client::{BackupOptions, ClientError, Silent, SlotOption, Target, WalMethod, base_backup};
use backstop_protocol::version::ServerVersion;
use backstop_scenarios::postgres::{Installation, PORT, Postgres, USER, succeed};

#[path = "../examples/blobs.rs"]
#[expect(dead_code, reason = "the example is a program of its own, too")]
mod blobs;

mod support;

use blobs::{Blobs, Entry, back_up, index};
use support::story::{LABEL, Peer, Plot, Story};

/// Puts a backup together from its blobs.
fn restore(store: &Path, name: &str, into: &Path) {
    fs::create_dir(into).unwrap();
    fs::set_permissions(into, fs::Permissions::from_mode(0o700)).unwrap();
    for (entry, path) in index(store, name).unwrap() {
        let place = into.join(path);
        match entry {
            Entry::Directory => fs::create_dir(place).unwrap(),
            Entry::File(blob) => drop(fs::copy(store.join(blob), place).unwrap()),
            Entry::Link(location) => std::os::unix::fs::symlink(location, place).unwrap(),
        }
    }
}

fn names(store: &Path) -> Vec<String> {
    fs::read_dir(store).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_sink_of_ones_own_keeps_a_backup_that_starts() {
    let Some(installation) = Installation::find("a sink of one's own") else { return };
    let scratch = installation.scratch();
    let server = Postgres::new(&installation, scratch.path(), &[]);
    server.sql("create table t as select generate_series(1, 10000) as i");
    let store = scratch.path().join("store");
    let conninfo = format!("host={} port={PORT} user={USER}", server.socket().display());

    let summary = back_up(&conninfo, &store, "monday").await.unwrap();
    assert!(summary.manifest && summary.bytes > 20 << 20, "{summary:?}");
    let monday = names(&store).len();
    server.sql("create table u as select 1 as i");
    back_up(&conninfo, &store, "tuesday").await.unwrap();
    let added = names(&store).len() - monday;
    assert!(added > 1 && added < monday / 4, "{added} beside {monday}: what did not change is shared");
    // A name that is taken is refused, and what is there stays.
    let before = names(&store);
    let refused = back_up(&conninfo, &store, "monday").await.unwrap_err();
    assert!(refused.to_string().starts_with("backup \"monday\" exists in "), "{refused}");
    // A server that refuses leaves nothing.
    let refused = back_up(&format!("{conninfo} dbname=x options=-cnosuch=1"), &store, "wednesday").await.unwrap_err();
    assert!(refused.to_string().contains("nosuch"), "{refused}");
    assert_eq!(names(&store), before);

    server.stop();
    for (name, tables) in [("monday", "t"), ("tuesday", "t, u")] {
        let data = scratch.path().join(name);
        restore(&store, name, &data);
        installation.give(&data);
        succeed(installation.tool("pg_verifybackup").arg(&data));
        let restored = Postgres::start(&installation, &data, &scratch.path().join(format!("s-{name}")));
        let found =
            restored.sql("select string_agg(relname, ', ' order by relname) from pg_class where relname in ('t', 'u')");
        assert_eq!(found, tables);
        assert_eq!(restored.sql("select count(*) from t"), "10000");
    }
}

fn into_blobs(store: &Path) -> BackupOptions {
    let mut options = BackupOptions::new("me", Target::Sink(Box::new(Blobs::create(store, "story").unwrap())));
    options.label = LABEL.into();
    options.wal = WalMethod::None;
    options
}

async fn play(story: Story, options: BackupOptions) -> Result<(), ClientError> {
    base_backup(Arc::new(Peer::new(story)), options, Arc::new(Silent)).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_dropped_unpublished_takes_away_what_it_made() {
    let scratch = tempfile::tempdir().unwrap();
    let store = scratch.path();
    for version in [ServerVersion::V14, ServerVersion::V18] {
        let whole = Story::new(Plot { map: true, ..Plot::plain(version) });
        for end in 0..whole.backup.len() {
            let backup = whole.backup[..end].to_vec();
            play(Story { backup, hang_up: true, ..whole.clone() }, into_blobs(store)).await.unwrap_err();
            assert_eq!(names(store), Vec::<String>::new(), "{version} cut before message {end}");
        }
        play(whole, into_blobs(store)).await.unwrap();
        let files = index(store, "story").unwrap();
        assert!(files.iter().any(|(_, path)| path.ends_with("backup_manifest")));
        for name in names(store) {
            fs::remove_file(store.join(name)).unwrap();
        }
    }
}

/// Takes what a runtime of several threads takes.
fn spawnable<T: Send + 'static>(work: T) -> T {
    work
}

#[tokio::test(start_paused = true)]
async fn a_backup_is_a_task_like_any_other() {
    let scratch = tempfile::tempdir().unwrap();
    let story = Story::new(Plot { map: true, ..Plot::plain(ServerVersion::V18) });
    let options = BackupOptions::new("me", Target::Tar { directory: scratch.path().join("x") });
    let options = BackupOptions { label: LABEL.into(), wal: WalMethod::None, ..options };
    let backup = spawnable(base_backup(Arc::new(Peer::new(story)), options, Arc::new(Silent)));
    let summary = tokio::spawn(backup).await.unwrap().unwrap();
    assert!(summary.manifest && scratch.path().join("x/backup_manifest").exists());
}

#[tokio::test(start_paused = true)]
async fn what_a_sink_does_not_take_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let story = || Story::new(Plot { map: true, ..Plot::plain(ServerVersion::V18) });
    let streamed = BackupOptions { wal: WalMethod::Stream, slot: SlotOption::None, ..into_blobs(scratch.path()) };
    let error = play(story(), streamed).await.unwrap_err();
    assert_eq!(error.to_string(), "this sink takes no streamed write-ahead log");
    // Its own errors end the backup in its own words.
    let options = into_blobs(scratch.path());
    fs::create_dir(scratch.path().join("story.tmp")).unwrap();
    let error = play(story(), options).await.unwrap_err();
    assert!(matches!(error, ClientError::Sink(_)) && error.to_string().contains("Is a directory"), "{error}");
}
