//! Stand-ins for the mock's units and faults until those are in the tree.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! unit {
    ($($name:ident)*) => {$(
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub struct $name(pub String);
    )*};
}
unit!(ByteSize ByteRate Span Position);

impl ByteSize {
    pub fn mib(n: u64) -> Self {
        Self(format!("{n}MiB"))
    }
}

impl ByteRate {
    pub fn zero() -> Self {
        Self("0".to_owned())
    }
}

impl Span {
    pub fn seconds(n: u64) -> Self {
        Self(format!("{n}s"))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Fault {
    #[serde(default)]
    pub client: Option<String>,
    pub when: Point,
    pub r#do: Action,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Point {
    Member { path: String, at: Option<Position> },
    CopyDone {},
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    Close {},
    Delay { r#for: Span },
}
