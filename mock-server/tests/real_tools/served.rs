//! A mock on a port, in this process, so that a test can ask it what it saw.

use std::process::{Command, Output};
use std::thread::{self, JoinHandle};

use backstop_mock::Server;
use backstop_mock::config::{Config, TablespaceConfig};
use backstop_protocol::version::ServerVersion;
use backstop_protocol::wal_file::WalSegmentSize;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// The tablespaces of [`small`], and where they are on the server.
pub(crate) const TABLESPACES: [(u32, &str); 2] = [(16400, "/srv/tablespaces/fast"), (16401, "/srv/tablespaces/large")];

/// A cluster that is quickly copied. Segments are small where `initdb` of the release can make them so.
pub(crate) fn small(version: ServerVersion, tablespaces: bool) -> Config {
    let tablespace =
        |(oid, location): (u32, &str)| TablespaceConfig { oid, location: location.to_owned(), size: 128 << 10 };
    let small_segments = version >= ServerVersion::V11;
    Config {
        version,
        size: 1 << 20,
        wal_segment_size: if small_segments { WalSegmentSize::new(1 << 20).unwrap() } else { WalSegmentSize::DEFAULT },
        tablespaces: if tablespaces { TABLESPACES.map(tablespace).to_vec() } else { Vec::new() },
        ..Config::default()
    }
}

/// A server whose sessions run on a thread of their own. Dropped, it is gone.
pub(crate) struct Served {
    pub(crate) server: Server,
    pub(crate) port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    pub(crate) fn start(config: Config) -> Self {
        let server = Server::new(config).unwrap();
        let runtime = runtime();
        let listener = {
            let _guard = runtime.enter();
            server.listen(([127, 0, 0, 1], 0).into()).unwrap()
        };
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    ended = listener.run() => ended.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self { server, port, stop: Some(stop), thread: Some(thread) }
    }

    /// Lets a tool connect here, as a user that may do everything.
    pub(crate) fn connect(&self, tool: &mut Command) {
        tool.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"]);
    }

    /// Waits until the last session has ended.
    pub(crate) fn idle(&self) {
        runtime().block_on(self.server.idle());
    }

    /// The commands that began with `word`, in the order of their arrival.
    pub(crate) fn commands(&self, word: &str) -> Vec<String> {
        self.server.state().commands.into_iter().filter(|command| command.starts_with(word)).collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the server panicked");
        }
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// What a tool said on standard error.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
