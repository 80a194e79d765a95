//! Stand-in for `backstop_mock::fault` until that is in the tree.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod action;
pub mod point;
mod validate;
pub use self::action::{Action, Hex, MemberType, NoticeSeverity, ShutdownMode};
pub use self::point::Point;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Where it strikes.
    pub when: Point,
    /// What it does.
    pub r#do: Action,
}
