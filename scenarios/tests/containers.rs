//! A real server in a container, backed up by the built-in client.

use std::sync::Arc;
use std::time::Duration;

use backstop_client::{Address, BackupOptions, NetConnector, Silent, Target, WalMethod, base_backup};
use testcontainers::core::{IntoContainerPort as _, WaitFor};
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{GenericImage, ImageExt as _};

/// The image whose server is backed up: any tag of the official one. It is not pulled here: a test must not depend on a
/// registry being reachable.
fn image() -> (String, String) {
    let image = std::env::var("BACKSTOP_PG_IMAGE").unwrap_or_else(|_| "postgres:18".to_owned());
    image
        .split_once(':')
        .map_or_else(|| (image.clone(), "latest".to_owned()), |(name, tag)| (name.to_owned(), tag.to_owned()))
}

/// The image's own rules let nobody replicate from outside.
const ALLOW_REPLICATION: &str = "echo 'host replication all all trust' >> \"$PGDATA/pg_hba.conf\"\n";

/// Why there can be no container, if there can be none.
async fn missing(name: &str, tag: &str) -> Option<String> {
    let docker = match testcontainers::core::client::docker_client_instance().await {
        Ok(docker) => docker,
        Err(error) => return Some(format!("no container engine: {error}")),
    };
    docker.inspect_image(&format!("{name}:{tag}")).await.err().map(|_| format!("no image {name}:{tag} on this machine"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_client_backs_up_a_server_in_a_container() {
    let (name, tag) = image();
    if let Some(reason) = missing(&name, &tag).await {
        let required = std::env::var_os("BACKSTOP_REQUIRE_DOCKER").is_some();
        assert!(!required, "PostgreSQL in a container: {reason}, and BACKSTOP_REQUIRE_DOCKER asks for it");
        println!(
            "skipped: PostgreSQL in a container: {reason}; `docker pull {name}:{tag}` or scenarios/images/build makes this test run"
        );
        return;
    }
    // A new cluster is started twice: first for the entry point alone, and pg_ctl puts that server's log on standard output.
    let ready = WaitFor::message_on_stderr("database system is ready to accept connections");
    let container = GenericImage::new(name, tag)
        .with_exposed_port(5432.tcp())
        .with_wait_for(ready)
        .with_env_var("POSTGRES_HOST_AUTH_METHOD", "trust")
        .with_copy_to("/docker-entrypoint-initdb.d/replication.sh", ALLOW_REPLICATION.as_bytes().to_vec())
        .with_startup_timeout(Duration::from_secs(120))
        .start()
        .await
        .expect("a container");

    let port = container.get_host_port_ipv4(5432.tcp()).await.expect("a port");
    let directory = tempfile::tempdir().expect("a directory");
    let target = Target::Plain { directory: directory.path().join("backup"), waldir: None };
    let mut options = BackupOptions::new("postgres", target);
    options.fast_checkpoint = true;
    options.wal = WalMethod::Stream;
    let connector = NetConnector::new(vec![Address::new("127.0.0.1", port)]);
    let summary = base_backup(Arc::new(connector), options, Arc::new(Silent)).await.expect("a whole backup");
    assert!(summary.end >= summary.start);
    assert!(directory.path().join("backup/backup_manifest").is_file());
}
