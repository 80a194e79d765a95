//! BASE_BACKUP in each of its grammars, with everything that the release knows, and what comes back.

use backstop_protocol::version::ServerVersion;

use super::backup::{tiny, transcript};

/// What each generation added stands at the end of its command.
const GENERATIONS: [(ServerVersion, &str); 8] = [
    (ServerVersion::V9_1, "BASE_BACKUP LABEL 'l' PROGRESS FAST WAL NOWAIT"),
    (ServerVersion::V9_3, "BASE_BACKUP LABEL 'l' PROGRESS FAST"),
    (ServerVersion::V9_4, "BASE_BACKUP LABEL 'l' FAST NOWAIT MAX_RATE 1048576"),
    (ServerVersion::V9_5, "BASE_BACKUP FAST NOWAIT TABLESPACE_MAP"),
    (ServerVersion::V11, "BASE_BACKUP FAST NOWAIT NOVERIFY_CHECKSUMS"),
    (ServerVersion::V13, "BASE_BACKUP FAST NOWAIT MANIFEST 'yes' MANIFEST_CHECKSUMS 'SHA256'"),
    (
        ServerVersion::V15,
        "BASE_BACKUP (LABEL 'l', PROGRESS, CHECKPOINT 'fast', WAIT 0, MANIFEST 'yes', MANIFEST_CHECKSUMS 'none', \
         COMPRESSION 'gzip', COMPRESSION_DETAIL 'level=1', TARGET 'client', VERIFY_CHECKSUMS false)",
    ),
    (ServerVersion::V17, "BASE_BACKUP (CHECKPOINT fast, WAIT off, MANIFEST 'force-encode', MAX_RATE 1048576, WAL 1)"),
];

async fn generation(version: ServerVersion) -> String {
    let (_, command) = GENERATIONS.into_iter().find(|(candidate, _)| *candidate == version).unwrap();
    transcript(tiny(version), command).await
}

#[tokio::test(start_paused = true)]
async fn generation_of_9_1() {
    insta::assert_snapshot!(generation(ServerVersion::V9_1).await, @r#"
    0.000 #1 < Query BASE_BACKUP LABEL 'l' PROGRESS FAST WAL NOWAIT
    0.000 #1 > RowDescription recptr
    0.000 #1 > DataRow 0/2000028
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > RowDescription spcoid, spclocation, size
    0.000 #1 > DataRow 16400, /srv/ts1, 40
    0.000 #1 > DataRow NULL, NULL, …
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CopyOutResponse
    0.000 #1 > CopyData … members
    0.000 #1 > CopyDone
    0.000 #1 > CopyOutResponse
    0.000 #1 > CopyData backup_label (3 messages, 1024 bytes)
    0.000 #1 > CopyData … members
    0.000 #1 > CopyData global/pg_control (2 messages, 8704 bytes)
    0.000 #1 > CopyData pg_xlog/000000010000000000000002 (513 messages, 16777728 bytes)
    0.000 #1 > CopyData pg_xlog/archive_status/000000010000000000000002.done (2 messages, 512 bytes)
    0.000 #1 > CopyDone
    0.000 #1 > RowDescription recptr
    0.000 #1 > DataRow 0/2000100
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > ReadyForQuery I
    0.000 #1 < Terminate
    0.000 #1 ! connection closed by the client
    "#);
}

#[tokio::test(start_paused = true)]
async fn generation_of_9_3() {
    insta::assert_snapshot!(generation(ServerVersion::V9_3).await, @r#"
    0.000 #1 < Query BASE_BACKUP LABEL 'l' PROGRESS FAST
    0.000 #1 > RowDescription recptr, tli
    0.000 #1 > DataRow 0/2000028, 1
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > RowDescription spcoid, spclocation, size
    0.000 #1 > DataRow 16400, /srv/ts1, 40
    0.000 #1 > DataRow NULL, NULL, …
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CopyOutResponse
    0.000 #1 > CopyData … members
    0.000 #1 > CopyDone
    0.000 #1 > CopyOutResponse
    0.000 #1 > CopyData backup_label (3 messages, 1024 bytes)
    0.000 #1 > CopyData … members
    0.000 #1 > CopyData global/pg_control (2 messages, 8704 bytes)
    0.000 #1 > CopyDone
    0.000 #1 > NoticeResponse NOTICE 00000 WAL archiving is not enabled; you must ensure that all required WAL segments are copied through other means to complete the backup
    0.000 #1 > RowDescription recptr, tli
    0.000 #1 > DataRow 0/2000100, 1
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > ReadyForQuery I
    0.000 #1 < Terminate
    0.000 #1 ! connection closed by the client
    "#);
}

#[tokio::test(start_paused = true)]
async fn generation_of_9_4() {
    insta::assert_snapshot!(generation(ServerVersion::V9_4).await, @r#"
    0.000 #1 < Query BASE_BACKUP LABEL 'l' FAST NOWAIT MAX_RATE 1048576
    0.000 #1 > RowDescription recptr, tli
    0.000 #1 > DataRow 0/2000028, 1
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > RowDescription spcoid, spclocation, size
    0.000 #1 > DataRow 16400, /srv/ts1, NULL
    0.000 #1 > DataRow NULL, NULL, …
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CopyOutResponse
    0.000 #1 > CopyData … members
    0.000 #1 > CopyDone
    0.000 #1 > CopyOutResponse
    0.000 #1 > CopyData backup_label (3 messages, 1024 bytes)
    0.000 #1 > CopyData … members
    0.000 #1 > CopyData global/pg_control (2 messages, 8704 bytes)
    0.000 #1 > CopyDone
    0.000 #1 > RowDescription recptr, tli
    0.000 #1 > DataRow 0/2000100, 1
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > ReadyForQuery I
    0.000 #1 < Terminate
    0.000 #1 ! connection closed by the client
    "#);
}

#[tokio::test(start_paused = true)]
async fn generation_of_9_5() {
    insta::assert_snapshot!(generation(ServerVersion::V9_5).await, @r#"
    0.000 #1 < Query BASE_BACKUP FAST NOWAIT TABLESPACE_MAP
    0.000 #1 > RowDescription recptr, tli
    0.000 #1 > DataRow 0/2000028, 1
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > RowDescription spcoid, spclocation, size
    0.000 #1 > DataRow 16400, /srv/ts1, NULL
    0.000 #1 > DataRow NULL, NULL, …
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CopyOutResponse
    0.000 #1 > CopyData … members
    0.000 #1 > CopyDone
    0.000 #1 > CopyOutResponse
    0.000 #1 > CopyData backup_label (3 messages, 1024 bytes)
    0.000 #1 > CopyData tablespace_map (3 messages, 1024 bytes)
    0.000 #1 > CopyData … members
    0.000 #1 > CopyData global/pg_control (2 messages, 8704 bytes)
    0.000 #1 > CopyDone
    0.000 #1 > RowDescription recptr, tli
    0.000 #1 > DataRow 0/2000100, 1
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > ReadyForQuery I
    0.000 #1 < Terminate
    0.000 #1 ! connection closed by the client
    "#);
}

#[tokio::test(start_paused = true)]
async fn generation_of_11() {
    insta::assert_snapshot!(generation(ServerVersion::V11).await, @r#"
    0.000 #1 < Query BASE_BACKUP FAST NOWAIT NOVERIFY_CHECKSUMS
    0.000 #1 > RowDescription recptr, tli
    0.000 #1 > DataRow 0/2000028, 1
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > RowDescription spcoid, spclocation, size
    0.000 #1 > DataRow 16400, /srv/ts1, NULL
    0.000 #1 > DataRow NULL, NULL, …
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CopyOutResponse
    0.000 #1 > CopyData … members
    0.000 #1 > CopyDone
    0.000 #1 > CopyOutResponse
    0.000 #1 > CopyData backup_label (3 messages, 1024 bytes)
    0.000 #1 > CopyData … members
    0.000 #1 > CopyData global/pg_control (2 messages, 8704 bytes)
    0.000 #1 > CopyDone
    0.000 #1 > RowDescription recptr, tli
    0.000 #1 > DataRow 0/2000100, 1
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > ReadyForQuery I
    0.000 #1 < Terminate
    0.000 #1 ! connection closed by the client
    "#);
}

#[tokio::test(start_paused = true)]
async fn generation_of_13() {
    insta::assert_snapshot!(generation(ServerVersion::V13).await, @r#"
    0.000 #1 < Query BASE_BACKUP FAST NOWAIT MANIFEST 'yes' MANIFEST_CHECKSUMS 'SHA256'
    0.000 #1 > RowDescription recptr, tli
    0.000 #1 > DataRow 0/2000028, 1
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > RowDescription spcoid, spclocation, size
    0.000 #1 > DataRow 16400, /srv/ts1, NULL
    0.000 #1 > DataRow NULL, NULL, …
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CopyOutResponse
    0.000 #1 > CopyData … members
    0.000 #1 > CopyDone
    0.000 #1 > CopyOutResponse
    0.000 #1 > CopyData backup_label (3 messages, 1024 bytes)
    0.000 #1 > CopyData … members
    0.000 #1 > CopyData global/pg_control (2 messages, 8704 bytes)
    0.000 #1 > CopyDone
    0.000 #1 > CopyOutResponse
    0.000 #1 > CopyData manifest
    0.000 #1 > CopyDone
    0.000 #1 > RowDescription recptr, tli
    0.000 #1 > DataRow 0/2000100, 1
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CommandComplete BASE_BACKUP
    0.000 #1 > ReadyForQuery I
    0.000 #1 < Terminate
    0.000 #1 ! connection closed by the client
    "#);
}

#[tokio::test(start_paused = true)]
async fn generation_of_15() {
    insta::assert_snapshot!(generation(ServerVersion::V15).await, @r#"
    0.000 #1 < Query BASE_BACKUP (LABEL 'l', PROGRESS, CHECKPOINT 'fast', WAIT 0, MANIFEST 'yes', MANIFEST_CHECKSUMS 'none', COMPRESSION 'gzip', COMPRESSION_DETAIL 'level=1', TARGET 'client', VERIFY_CHECKSUMS false)
    0.000 #1 > RowDescription recptr, tli
    0.000 #1 > DataRow 0/2000028, 1
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > RowDescription spcoid, spclocation, size
    0.000 #1 > DataRow 16400, /srv/ts1, 40
    0.000 #1 > DataRow NULL, NULL, …
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CopyOutResponse
    0.000 #1 > CopyData n 16400.tar.gz /srv/ts1
    0.000 #1 > CopyData … members
    0.000 #1 > CopyData p …
    0.000 #1 > CopyData n base.tar.gz
    0.000 #1 > CopyData … members
    0.000 #1 > CopyData p …
    0.000 #1 > CopyData m
    0.000 #1 > CopyData manifest
    0.000 #1 > CopyDone
    0.000 #1 > RowDescription recptr, tli
    0.000 #1 > DataRow 0/2000100, 1
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CommandComplete BASE_BACKUP
    0.000 #1 > ReadyForQuery I
    0.000 #1 < Terminate
    0.000 #1 ! connection closed by the client
    "#);
}

#[tokio::test(start_paused = true)]
async fn generation_of_17() {
    insta::assert_snapshot!(generation(ServerVersion::V17).await, @r#"
    0.000 #1 < Query BASE_BACKUP (CHECKPOINT fast, WAIT off, MANIFEST 'force-encode', MAX_RATE 1048576, WAL 1)
    0.000 #1 > RowDescription recptr, tli
    0.000 #1 > DataRow 0/2000028, 1
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > RowDescription spcoid, spclocation, size
    0.000 #1 > DataRow 16400, /srv/ts1, NULL
    0.000 #1 > DataRow NULL, NULL, …
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CopyOutResponse
    0.000 #1 > CopyData n 16400.tar /srv/ts1
    0.000 #1 > CopyData … members
    0.000 #1 > CopyData end of archive (1024 bytes)
    0.000 #1 > CopyData p …
    0.000 #1 > CopyData n base.tar
    0.000 #1 > CopyData backup_label (3 messages, 1024 bytes)
    0.000 #1 > CopyData … members
    0.000 #1 > CopyData global/pg_control (2 messages, 8704 bytes)
    0.000 #1 > CopyData pg_wal/000000010000000000000002 (513 messages, 16777728 bytes)
    0.000 #1 > CopyData pg_wal/archive_status/000000010000000000000002.done (512 bytes)
    0.000 #1 > CopyData end of archive (1024 bytes)
    0.000 #1 > CopyData p …
    0.000 #1 > CopyData m
    0.000 #1 > CopyData manifest
    0.000 #1 > CopyDone
    0.000 #1 > RowDescription recptr, tli
    0.000 #1 > DataRow 0/2000120, 1
    0.000 #1 > CommandComplete SELECT
    0.000 #1 > CommandComplete BASE_BACKUP
    0.000 #1 > ReadyForQuery I
    0.000 #1 < Terminate
    0.000 #1 ! connection closed by the client
    "#);
}
