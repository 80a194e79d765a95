//! The states of a postmaster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which connections the postmaster takes in, and what becomes of those it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The startup process has not begun to replay: connections are refused, "starting up".
    StartingUp,
    /// As the one before, but after a crash: "in recovery mode".
    RecoveryMode,
    /// WAL is replayed and there is no consistent state yet: "not yet accepting connections" since 14, "starting up" before.
    NotConsistent,
    /// Connections are taken in. A standby with `hot_standby = off` refuses them nevertheless.
    #[default]
    Running,
    /// A smart shutdown waits until ordinary sessions have gone; new ones are refused, "shutting down".
    SmartShutdown,
    /// Every session that does not stream WAL has been told to go. New ones are refused, "shutting down".
    Stopping,
    /// The shutdown checkpoint is written: what streams WAL sends the rest and goes. New ones are refused, "shutting down".
    EndingStreams,
    /// Nobody is there: a connection is reset, where a real server's host would refuse it.
    Stopped,
}

impl Phase {
    /// Whether a server can begin in this phase.
    pub fn begins(self) -> bool {
        matches!(self, Self::StartingUp | Self::RecoveryMode | Self::NotConsistent | Self::Running)
    }

    /// Whether a shutdown has got to the walsenders (`WalSndInitStopping`): those that stream nothing die.
    pub(crate) fn stops_walsenders(self) -> bool {
        matches!(self, Self::Stopping | Self::EndingStreams)
    }
}
