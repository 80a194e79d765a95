//! What the options of slots mean: `parseCreateReplSlotOptions` and `ParseAlterReplSlotOptions` of `walsender.c`.

use super::{CommandOption, CreateSlot, OptionError, SlotKind};
use crate::version::ServerVersion;

/// What to do with the snapshot of a new logical slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SnapshotAction {
    /// Export it for other sessions, and name it in the result.
    #[default]
    Export,
    /// Forget it.
    Nothing,
    /// Use it for the current transaction.
    Use,
}

/// The options of CREATE_REPLICATION_SLOT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotOptions {
    /// Whether a physical slot keeps WAL from now on, not from its first use.
    pub reserve_wal: bool,
    /// For logical slots.
    pub snapshot: SnapshotAction,
    /// Whether prepared transactions are decoded when they are prepared (14).
    pub two_phase: bool,
    /// Whether a logical slot is synchronised to standbys (17).
    pub failover: bool,
}

impl SlotOptions {
    /// Reads the options as a server of `version` does.
    ///
    /// # Errors
    /// `conflicting or redundant options` for an option that is repeated or meant for the other kind of slot,
    /// `unrecognized option: x` (XX000), or what is wrong with a value.
    pub fn from_command(create: &CreateSlot, version: ServerVersion) -> Result<Self, OptionError> {
        let logical = matches!(create.kind, SlotKind::Logical { .. });
        let mut options = Self::default();
        let mut seen = Seen::default();
        for option in &create.options {
            match option.name.as_str() {
                "snapshot" => {
                    seen.once(option, logical)?;
                    options.snapshot = snapshot(option)?;
                }
                "reserve_wal" => {
                    seen.once(option, !logical)?;
                    options.reserve_wal = option.as_boolean()?;
                }
                "two_phase" => {
                    seen.once(option, logical)?;
                    options.two_phase = option.as_boolean()?;
                }
                "failover" if version.has_failover_slots() => {
                    seen.once(option, logical)?;
                    options.failover = option.as_boolean()?;
                }
                _ => return Err(unrecognized(option)),
            }
        }
        Ok(options)
    }
}

/// The options of ALTER_REPLICATION_SLOT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlterSlotOptions {
    /// Whether the slot is synchronised to standbys, if that changes.
    pub failover: Option<bool>,
    /// Whether prepared transactions are decoded when they are prepared, if that changes (18).
    pub two_phase: Option<bool>,
}

impl AlterSlotOptions {
    /// Reads the options as a server of `version` does.
    ///
    /// # Errors
    /// `conflicting or redundant options`, `unrecognized option: x` (XX000), or what is wrong with a value.
    pub fn from_options(given: &[CommandOption], version: ServerVersion) -> Result<Self, OptionError> {
        let mut options = Self::default();
        let mut seen = Seen::default();
        for option in given {
            match option.name.as_str() {
                "failover" => {
                    seen.once(option, true)?;
                    options.failover = Some(option.as_boolean()?);
                }
                "two_phase" if version.alters_two_phase() => {
                    seen.once(option, true)?;
                    options.two_phase = Some(option.as_boolean()?);
                }
                _ => return Err(unrecognized(option)),
            }
        }
        Ok(options)
    }
}

/// The names that were given already.
#[derive(Default)]
struct Seen<'a>(Vec<&'a str>);

impl<'a> Seen<'a> {
    fn once(&mut self, option: &'a CommandOption, fits: bool) -> Result<(), OptionError> {
        if !fits || self.0.contains(&option.name.as_str()) {
            return Err(OptionError::syntax("conflicting or redundant options"));
        }
        self.0.push(&option.name);
        Ok(())
    }
}

fn snapshot(option: &CommandOption) -> Result<SnapshotAction, OptionError> {
    match option.as_text()?.as_str() {
        "export" => Ok(SnapshotAction::Export),
        "nothing" => Ok(SnapshotAction::Nothing),
        "use" => Ok(SnapshotAction::Use),
        action => {
            let name = "CREATE_REPLICATION_SLOT";
            let message = format!("unrecognized value for {name} option \"{}\": \"{action}\"", option.name);
            Err(OptionError::new("22023", message))
        }
    }
}

fn unrecognized(option: &CommandOption) -> OptionError {
    OptionError::new("XX000", format!("unrecognized option: {}", option.name))
}
