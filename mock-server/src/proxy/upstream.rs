//! The real server, as the proxy sees it.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::fault::Action;

/// What bytes travel over.
pub trait Link: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Link for T {}

/// An answer that takes its time.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connection on which nothing of PostgreSQL's protocol has been said yet.
pub struct Opened {
    /// The connection.
    pub link: Box<dyn Link>,
    /// Whether TLS is spoken on it: the server then offers to bind the channel.
    pub encrypted: bool,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("encrypted", &self.encrypted).finish_non_exhaustive()
    }
}

/// The server behind a proxy: how it is reached, and what can be done to it besides talking.
pub trait Upstream: Send + Sync + fmt::Debug {
    /// Opens a connection.
    ///
    /// # Errors
    /// One text that says where to, and why not.
    fn connect(&self) -> Later<'_, io::Result<Opened>>;

    /// Why a fault cannot do `action` to this server; nothing if it can. This is asked before the proxy listens.
    fn refuses(&self, action: &Action) -> Option<String> {
        let _ = action;
        Some("nobody here has more than connections to the server".to_owned())
    }

    /// Does `action` to the server. `backends` are the process ids of the sessions that it is about, if it is about sessions.
    ///
    /// # Errors
    /// What the server says, or why it cannot be asked.
    fn act<'a>(&'a self, action: &'a Action, backends: &'a [i32]) -> Later<'a, Result<(), String>> {
        let _ = backends;
        let problem = self.refuses(action).unwrap_or_default();
        Box::pin(async move { Err(problem) })
    }
}
