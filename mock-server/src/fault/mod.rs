//! The fault engine: a fault is a point of the protocol and an action there.
//!
//! There is one [`Plan`] for a server. Sessions ask it at each [`Moment`] with what is about to be sent, and it answers with the
//! actions to take; `session::faults` takes them. [`Fault::validate`] refuses combinations that cannot happen, so that
//! every fault a plan holds works.
//!
//! | what | see |
//! |---|---|
//! | where a fault strikes | [`Point`] |
//! | what it does | [`Action`], one file each in [`action`] |
//! | which actions go with which points | [`Fault::validate`] |
//! | what it says of a tar header | [`member`] |
//! | changing tar headers | [`header`] |

pub mod action;
pub(crate) mod header;
mod hex;
pub mod member;
mod plan;
pub mod point;
mod validate;

#[cfg(test)]
mod everywhere;
#[cfg(test)]
mod testing;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::action::client::Signal;
pub use self::action::server::{NoticeSeverity, ShutdownMode};
pub use self::action::{Action, archive, client, cluster, server, wire};
pub use self::hex::Hex;
pub use self::member::{HeaderField, MemberType, Mode};
pub(crate) use self::plan::{Identity, Plan, Role, Stop};
pub(crate) use self::point::Moment;
pub use self::point::Point;

/// One fault: `when.member = { path = "base/5/1259", at = "50%" }`, `do.close = {}`. It strikes once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Where it strikes.
    pub when: Point,
    /// What it does.
    pub r#do: Action,
}
