//! A server in a container.

use std::env;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use backstop_client::{Address, BackupOptions, NetConnector, Target};
use testcontainers::core::{CmdWaitFor, ExecCommand, IntoContainerPort as _, Mount, WaitFor};
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt as _};

/// The role that everything here is done as.
const USER: &str = "postgres";

/// Where containers see the directory that they share with the test.
pub(crate) const SHARED: &str = "/shared";

/// Rows of the table that every server holds.
pub(crate) const ROWS: u32 = 200_000;

/// The image's own rules let nobody replicate from outside. The table makes a backup larger than what the buffers of sockets
/// hold, so that a client that stops reading stops the server.
const INIT: &str = r#"
echo 'host replication all all trust' >> "$PGDATA/pg_hba.conf"
psql -v ON_ERROR_STOP=1 -U postgres -c "CREATE TABLE kept AS SELECT n, repeat('x', 150) AS t FROM generate_series(1, 200000) n"
"#;

/// The image of a release: `BACKSTOP_PG_IMAGE` names another than the official one, `{major}` in it stands for the release.
fn image(major: u16) -> (String, String) {
    let template = env::var("BACKSTOP_PG_IMAGE").unwrap_or_else(|_| "postgres:{major}".to_owned());
    let image = template.replace("{major}", &major.to_string());
    // A registry may have a port: `localhost:5000/postgres`.
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), tag.to_owned()),
        _ => (image, "latest".to_owned()),
    }
}

/// Why there can be no container, if there can be none.
async fn missing(name: &str, tag: &str) -> Option<String> {
    let docker = match testcontainers::core::client::docker_client_instance().await {
        Ok(docker) => docker,
        Err(error) => return Some(format!("no container engine: {error}")),
    };
    // Nothing is pulled here: a test must not depend on a registry being reachable.
    docker.inspect_image(&format!("{name}:{tag}")).await.err().map(|_| format!("no image {name}:{tag} on this machine"))
}

/// A server of a release with `settings` on its command line, or a word why the test of `what` is skipped.
///
/// # Panics
/// If there is none and `BACKSTOP_REQUIRE_DOCKER` asks for it, or if it does not start.
pub(crate) async fn server(major: u16, what: &str, settings: &[&str]) -> Option<Postgres> {
    let (name, tag) = image(major);
    if let Some(reason) = missing(&name, &tag).await {
        let required = env::var("BACKSTOP_REQUIRE_DOCKER").unwrap_or_default();
        let required = required == "1" || required.split_ascii_whitespace().any(|word| word == major.to_string());
        assert!(!required, "{what}: {reason}, and BACKSTOP_REQUIRE_DOCKER asks for it");
        println!("skipped: {what}: {reason}; `docker pull {name}:{tag}` or scenarios/images/build makes this test run");
        return None;
    }
    let shared = tempfile::tempdir().expect("a directory");
    let arguments =
        ["postgres", "-c", "wal_level=replica", "-c", "max_wal_senders=5", "-c", "fsync=off"].map(str::to_owned);
    let more = settings.iter().flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()]);
    let request = request(major, shared.path())
        .with_copy_to("/docker-entrypoint-initdb.d/init.sh", INIT.as_bytes().to_vec())
        .with_cmd(arguments.into_iter().chain(more));
    Some(Postgres::start(major, request, shared).await)
}

/// What every container of a release has.
fn request(major: u16, shared: &Path) -> ContainerRequest<GenericImage> {
    let (name, tag) = image(major);
    // A new cluster is started twice: first for the entry point alone, and pg_ctl puts that server's log on standard output.
    let ready = WaitFor::message_on_stderr("database system is ready to accept");
    GenericImage::new(name, tag)
        .with_exposed_port(5432.tcp())
        .with_wait_for(ready)
        .with_env_var("POSTGRES_HOST_AUTH_METHOD", "trust")
        .with_mount(Mount::bind_mount(shared.display().to_string(), SHARED))
        .with_startup_timeout(Duration::from_secs(180))
}

/// A running server. Dropped, it is removed with its container and the directory that it shares with the test.
pub(crate) struct Postgres {
    pub(crate) major: u16,
    pub(crate) container: ContainerAsync<GenericImage>,
    /// [`SHARED`], as the test sees it.
    pub(crate) shared: tempfile::TempDir,
}

impl Postgres {
    async fn start(major: u16, request: ContainerRequest<GenericImage>, shared: tempfile::TempDir) -> Self {
        let container = request.start().await.expect("a container that starts");
        Self { major, container, shared }
    }

    /// A server on a copy of the plain backup `name` in the directory shared by `self`.
    pub(crate) async fn on_backup(&self, name: &str) -> Self {
        let shared = tempfile::tempdir().expect("a directory");
        let copy = format!("mkdir -p \"$PGDATA\" && cp -a {SHARED}/{name}/. \"$PGDATA\"");
        let script = format!("{copy}\nexec docker-entrypoint.sh postgres -c fsync=off");
        let request = request(self.major, self.shared.path()).with_cmd(["bash", "-ec", &script]);
        Self::start(self.major, request, shared).await
    }

    /// A standby that follows this server, reached by its address on the engine's network.
    pub(crate) async fn standby(&self) -> Self {
        let shared = tempfile::tempdir().expect("a directory");
        // The engine writes a container's own address last.
        let (_, primary) = self.exec(&["sed", "-n", "$s/[[:space:]].*//p", "/etc/hosts"]).await;
        let script = format!(
            r#"mkdir -p "$PGDATA" && chmod 700 "$PGDATA" && pg_basebackup -h {primary} -U {USER} -D "$PGDATA" -R -cfast
               echo 'host replication all all trust' >> "$PGDATA/pg_hba.conf"
               exec docker-entrypoint.sh postgres -c fsync=off"#
        );
        let request = request(self.major, shared.path()).with_cmd(["bash", "-ec", &script]);
        Self::start(self.major, request, shared).await
    }

    /// Runs a program inside as root: its exit status and what it said.
    pub(crate) async fn exec(&self, words: &[&str]) -> (i64, String) {
        let command = ExecCommand::new(words.iter().copied()).with_cmd_ready_condition(CmdWaitFor::exit());
        let mut result = self.container.exec(command).await.expect("a program inside");
        let mut said = result.stdout_to_vec().await.expect("its output");
        said.extend(result.stderr_to_vec().await.expect("its output"));
        let status = result.exit_code().await.expect("its status").expect("its status");
        (status, String::from_utf8_lossy(&said).trim().to_owned())
    }

    /// What a query gives, in psql's unaligned form.
    pub(crate) async fn query(&self, sql: &str) -> String {
        let (status, said) = self.exec(&["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", USER, "-c", sql]).await;
        assert_eq!(status, 0, "{sql}: {said}");
        said
    }

    /// Where it can be reached from the test.
    pub(crate) async fn connector(&self) -> NetConnector {
        let port = self.container.get_host_port_ipv4(5432.tcp()).await.expect("a port");
        NetConnector::new(vec![Address::new(&Ipv4Addr::LOCALHOST.to_string(), port)])
    }

    /// The options of a backup in plain format, into `name` of the shared directory.
    pub(crate) fn plain(&self, name: &str) -> BackupOptions {
        Self::options(Target::Plain { directory: self.shared.path().join(name), waldir: None })
    }

    /// The options of a backup.
    pub(crate) fn options(target: Target) -> BackupOptions {
        let mut options = BackupOptions::new(USER, target);
        options.fast_checkpoint = true;
        options
    }

    /// Requires that the release's own pg_verifybackup accepts a plain backup.
    pub(crate) async fn verifies(&self, name: &str, options: &[&str]) {
        let directory = format!("{SHARED}/{name}");
        let words: Vec<_> = ["pg_verifybackup"].iter().chain(options).copied().chain([directory.as_str()]).collect();
        let (status, said) = self.exec(&words).await;
        assert_eq!(status, 0, "{said}");
    }
}
