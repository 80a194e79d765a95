//! How a TCP socket finds out that its other end has gone.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

use crate::connector::unusable;
use crate::error::reason;

/// How the kernel finds out that nobody is there any more. Seconds, and milliseconds for the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keepalive {
    pub(crate) on: bool,
    pub(crate) idle: Option<u32>,
    pub(crate) interval: Option<u32>,
    pub(crate) count: Option<u32>,
    pub(crate) user_timeout: Option<u32>,
}

impl Keepalive {
    /// As libpq does it unless it is told otherwise.
    pub(crate) const DEFAULT: Self = Self { on: true, idle: None, interval: None, count: None, user_timeout: None };

    pub(crate) fn apply(self, stream: &TcpStream) -> io::Result<()> {
        let failed = |option: &'static str| {
            move |errno| unusable(format!("setsockopt({option}) failed: {}", reason(&io::Error::from(errno))))
        };
        #[cfg(target_os = "linux")]
        if let Some(milliseconds) = self.user_timeout {
            sockopt::set_tcp_user_timeout(stream, milliseconds).map_err(failed("TCP_USER_TIMEOUT"))?;
        }
        if !self.on {
            return Ok(());
        }
        sockopt::set_socket_keepalive(stream, true).map_err(failed("SO_KEEPALIVE"))?;
        if let Some(seconds) = self.idle {
            let idle = Duration::from_secs(seconds.into());
            sockopt::set_tcp_keepidle(stream, idle).map_err(failed("TCP_KEEPIDLE"))?;
        }
        if let Some(seconds) = self.interval {
            let interval = Duration::from_secs(seconds.into());
            sockopt::set_tcp_keepintvl(stream, interval).map_err(failed("TCP_KEEPINTVL"))?;
        }
        if let Some(count) = self.count {
            sockopt::set_tcp_keepcnt(stream, count).map_err(failed("TCP_KEEPCNT"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_is_told_when_to_ask_whether_anybody_is_there() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let stream = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let keepalive =
            Keepalive { on: true, idle: Some(31), interval: Some(7), count: Some(4), user_timeout: Some(4321) };
        keepalive.apply(&stream).expect("applied");
        assert_eq!(sockopt::socket_keepalive(&stream), Ok(true));
        assert_eq!(sockopt::tcp_keepidle(&stream), Ok(Duration::from_secs(31)));
        assert_eq!(sockopt::tcp_keepintvl(&stream), Ok(Duration::from_secs(7)));
        assert_eq!(sockopt::tcp_keepcnt(&stream), Ok(4));
        assert_eq!(sockopt::tcp_user_timeout(&stream), Ok(4321));
        let fresh = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        Keepalive { on: false, ..keepalive }.apply(&fresh).expect("applied");
        assert_eq!((sockopt::socket_keepalive(&fresh), sockopt::tcp_user_timeout(&fresh)), (Ok(false), Ok(4321)));
        let error = Keepalive { idle: Some(1 << 20), ..keepalive }.apply(&fresh).expect_err("too long");
        assert_eq!(error.to_string(), "setsockopt(TCP_KEEPIDLE) failed: Invalid argument");
    }
}
