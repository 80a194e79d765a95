//! Backups that nothing goes wrong with.

use std::sync::Arc;

use backstop_client::{ChecksumAlgorithm, Silent, SlotOption, Target, WalMethod, base_backup};

use super::postgres::{Postgres, server};

#[tokio::test]
async fn backups_of_every_kind_are_whole() {
    for major in [15, 16, 18] {
        let Some(source) = server(major, "sound backups", &[]).await else { continue };
        let mut taken = 0;
        for (wal, name) in [(WalMethod::None, "none"), (WalMethod::Fetch, "fetch"), (WalMethod::Stream, "stream")] {
            let connector = Arc::new(source.connector().await);
            let mut options = source.plain(name);
            options.wal = wal;
            options.manifest_checksums = ChecksumAlgorithm::Sha256;
            base_backup(connector, options, Arc::new(Silent)).await.expect("a whole backup");
            // Without WAL there is none to look at.
            source.verifies(name, if wal == WalMethod::None { &["-n"] } else { &[] }).await;

            let connector = Arc::new(source.connector().await);
            let directory = source.shared.path().join(format!("{name}-tar"));
            let mut options = Postgres::options(Target::Tar { directory: directory.clone() });
            options.wal = wal;
            options.slot = SlotOption::None;
            base_backup(connector, options, Arc::new(Silent)).await.expect("a whole backup");
            assert!(directory.join("base.tar").is_file() && directory.join("backup_manifest").is_file());
            assert_eq!(directory.join("pg_wal.tar").is_file(), wal == WalMethod::Stream);
            taken += 2;
        }
        // Nothing of them is left in the server.
        assert_eq!(source.query("SELECT count(*) FROM pg_replication_slots").await, "0");
        println!("{taken} backups of a server {major} in a container");
    }
}
