//! What a fault does, in the words of what the peer observes.
//!
//! Each action has a file of its own, by who does it: its doc sentence, which the schema and `backstop explain` repeat, its
//! fields, where it may strike, and a test of what the peer observes.

pub mod archive;
pub mod client;
pub mod cluster;
pub mod server;
pub mod wire;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Point;

/// What an action knows of itself besides its fields. What a server does by itself may strike anywhere, so that is the default.
trait Rules {
    /// What `when` lacks for the action to strike there.
    fn needs(&self, _when: &Point) -> Option<&'static str> {
        None
    }

    /// Refuses values that cannot be, with a text that says why.
    fn check(&self, _when: &Point) -> Result<(), String> {
        Ok(())
    }
}

/// Declares [`Action`]: each action by the name that scenario files give it.
macro_rules! actions {
    ($($(#[$attribute:meta])* $name:literal $action:ident($room:ident),)*) => {
        /// What happens at a [`Point`](super::Point).
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[schemars(transform = describe)]
        #[expect(missing_docs, reason = "each action says it in its own file")]
        pub enum Action {
            $(#[serde(rename = $name)] $(#[$attribute])* $action($room::$action),)*
        }

        impl Action {
            /// The action's name, as scenario files spell it.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$action(_) => $name,)* }
            }

            fn rules(&self) -> &dyn Rules {
                match self { $(Self::$action(action) => action,)* }
            }
        }
    };
}

actions! {
    "delay" Delay(wire),
    "stall" Stall(wire),
    "throttle" Throttle(wire),
    "chop" Chop(wire),
    "close" Close(wire),
    "reset" Reset(wire),
    "garble" Garble(wire),
    "drop" Drop(wire),
    "repeat" Repeat(wire),
    "swap" Swap(wire),
    "insert" Insert(wire),
    "truncate" Truncate(wire),

    "error" Error(server),
    "notice" Notice(server),
    "change-row" ChangeRow(server),
    "change-parameter" ChangeParameter(server),
    "terminate" Terminate(server),
    "shutdown" Shutdown(server),
    "crash" Crash(server),
    "promote" Promote(server),
    "recycle-wal" RecycleWal(server),
    "switch-wal" SwitchWal(server),
    "drop-slot" DropSlot(server),
    "start-backup" StartBackup(server),
    "stop-backup" StopBackup(server),
    "abort-backup" AbortBackup(server),

    "kill-client" KillClient(client),
    "fill-disk" FillDisk(client),
    "fail-fsync" FailFsync(client),
    "protect-disk" ProtectDisk(client),
    #[serde(skip)]
    "start-client" StartClient(client),

    "remove-file" RemoveFile(cluster),
    "shrink-file" ShrinkFile(cluster),
    "grow-file" GrowFile(cluster),
    "change-file" ChangeFile(cluster),
    "add-file" AddFile(cluster),

    "rename-member" RenameMember(archive),
    "retype-member" RetypeMember(archive),
    "relink-member" RelinkMember(archive),
    "resize-header" ResizeHeader(archive),
    "remode-member" RemodeMember(archive),
    "write-header" WriteHeader(archive),
    "rewrite-member" RewriteMember(archive),
    "change-control" ChangeControl(archive),
    "break-header" BreakHeader(archive),
    "omit-member" OmitMember(archive),
    "omit-archive" OmitArchive(archive),
    "omit-trailer" OmitTrailer(archive),
    "extra-member" ExtraMember(archive),
}

/// Puts each action's doc sentence where that of a variant stands.
fn describe(schema: &mut Schema) {
    let variants = schema.get_mut("oneOf").and_then(Value::as_array_mut);
    for variant in variants.into_iter().flatten().filter_map(Value::as_object_mut) {
        let action = variant.get_mut("properties").and_then(Value::as_object_mut);
        let fields = action.and_then(|action| action.values_mut().next()).and_then(Value::as_object_mut);
        if let Some(description) = fields.and_then(|fields| fields.remove("description")) {
            variant.insert("description".to_owned(), description);
        }
    }
}

impl Action {
    /// Whose machine it is about, if it is about a client's machine: `Some(None)` is that of the connection at the point.
    pub fn client_machine(&self) -> Option<Option<&str>> {
        let client = match self {
            Self::KillClient(action) => action.client.as_deref(),
            Self::FillDisk(action) => action.client.as_deref(),
            Self::FailFsync(action) => action.client.as_deref(),
            Self::ProtectDisk(action) => action.client.as_deref(),
            Self::StartClient(action) => Some(action.client.as_str()),
            _ => return None,
        };
        Some(client)
    }

    /// What `when` lacks for the action to strike there.
    pub(super) fn needs(&self, when: &Point) -> Option<&'static str> {
        self.rules().needs(when)
    }

    /// Refuses values that cannot be.
    pub(super) fn check(&self, when: &Point) -> Result<(), String> {
        self.rules().check(when)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_is_described_once() {
        let schema = schemars::schema_for!(Action).to_value();
        for variant in schema["oneOf"].as_array().unwrap() {
            let (name, fields) = variant["properties"].as_object().unwrap().iter().next().unwrap();
            assert!(variant["description"].as_str().is_some_and(|text| text.ends_with('.')), "{name}");
            assert_eq!(fields.get("description"), None, "{name}");
        }
    }
}
