//! What a SELECT computes, and the functions that it calls.

use backstop_protocol::catalog::{Function, FunctionId, SqlType};
use backstop_protocol::diagnostic::{Diagnostic, SqlState};
use backstop_protocol::lsn::Lsn;
use backstop_protocol::wal_file::WalFileName;

use super::plan::{Plan, Rows, Step};
use super::value::Value;
use super::{Session, settings};
use crate::cluster::BackupEnd;

/// The arguments of a call. Those that were not given are [`Value::Void`], which is no type of any argument.
struct Arguments(Vec<Value>);

impl Arguments {
    fn text(&self, number: usize) -> String {
        self.0.get(number).and_then(Value::text).unwrap_or_default()
    }

    fn bool(&self, number: usize, default: bool) -> bool {
        match self.0.get(number) {
            Some(Value::Bool(value)) => *value,
            _ => default,
        }
    }

    /// A text that need not be one: a path.
    fn bytes(&self, number: usize) -> Vec<u8> {
        match self.0.get(number) {
            Some(Value::Bytes(bytes)) => bytes.to_vec(),
            other => other.and_then(Value::text).unwrap_or_default().into_bytes(),
        }
    }

    fn int(&self, number: usize) -> Option<i64> {
        match self.0.get(number) {
            Some(Value::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// A position, which is a text before 9.4.
    fn lsn(&self, number: usize) -> Result<Lsn, Diagnostic> {
        match self.0.get(number) {
            Some(Value::Lsn(lsn)) => Ok(*lsn),
            other => {
                let text = other.and_then(Value::text).unwrap_or_default();
                let message = format!("could not parse transaction log location \"{text}\"");
                text.parse().map_err(|_| Diagnostic::error(SqlState::INVALID_PARAMETER_VALUE, message))
            }
        }
    }
}

fn not_in_prerequisite_state(message: &str) -> Diagnostic {
    Diagnostic::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
}

impl Session {
    /// The rows of a SELECT.
    pub(super) fn select(&mut self, plan: &Plan, parameters: &[Value]) -> Result<Vec<Vec<Value>>, Diagnostic> {
        let sources = match &plan.rows {
            Rows::One => vec![Vec::new()],
            Rows::Slots => self.slot_rows(),
            Rows::Function(call) => match self.compute(call, &[], parameters)? {
                Value::Set(values) => values.into_iter().map(Self::columns_of).collect(),
                value => vec![Self::columns_of(value)],
            },
        };
        let mut rows = Vec::new();
        for source in sources {
            if let Some((left, right)) = &plan.filter {
                let (left, right) =
                    (self.compute(left, &source, parameters)?, self.compute(right, &source, parameters)?);
                if left == Value::Null || left != right {
                    continue;
                }
            }
            let mut row = Vec::new();
            for target in &plan.targets {
                row.push(self.compute(target, &source, parameters)?);
            }
            // A function that returns a set makes a row of each value.
            match row.iter().position(|value| matches!(value, Value::Set(_))) {
                Some(place) => {
                    let Value::Set(values) = row.remove(place) else { continue };
                    rows.extend(values.into_iter().map(|value| {
                        let mut row = row.clone();
                        row.insert(place, value);
                        row
                    }));
                }
                None => rows.push(row),
            }
        }
        Ok(rows)
    }

    /// What a function behind FROM returns, as columns.
    fn columns_of(value: Value) -> Vec<Value> {
        match value {
            Value::Record(fields) => fields.into_iter().map(|(_, value)| value).collect(),
            value => vec![value],
        }
    }

    fn compute(&mut self, step: &Step, row: &[Value], parameters: &[Value]) -> Result<Value, Diagnostic> {
        Ok(match step {
            Step::Constant(value) => value.clone(),
            Step::Parameter(number) => parameters.get(*number).cloned().unwrap_or(Value::Null),
            Step::Column(number) => row.get(*number).cloned().unwrap_or(Value::Null),
            Step::Cast(value, ty) => self.compute(value, row, parameters)?.cast(*ty)?,
            Step::Field(record, number) => match self.compute(record, row, parameters)? {
                Value::Record(fields) => fields.into_iter().nth(*number).map_or(Value::Null, |(_, value)| value),
                _ => Value::Null,
            },
            Step::Call(function, arguments) => {
                let mut values = Vec::new();
                for argument in arguments {
                    values.push(self.compute(argument, row, parameters)?);
                }
                if function.is_strict() && values.contains(&Value::Null) {
                    return Ok(Value::Null);
                }
                self.call(function, &Arguments(values))?
            }
        })
    }

    fn call(&mut self, function: &Function, arguments: &Arguments) -> Result<Value, Diagnostic> {
        let cluster = self.shared.cluster.clone();
        Ok(match function.id {
            FunctionId::StartBackup => {
                let (label, fast) = (arguments.text(0), arguments.bool(1, false));
                let exclusive = self.version.has_exclusive_backup() && arguments.bool(2, true);
                Value::Lsn(self.start_sql_backup(&label, fast, exclusive)?)
            }
            FunctionId::StopExclusiveBackup => Value::Lsn(self.stop_exclusive_backup(true)?.end),
            FunctionId::StopBackup if self.version.has_exclusive_backup() => {
                self.stop_sql_backup(arguments.bool(0, true), arguments.bool(1, true))?
            }
            FunctionId::StopBackup => self.stop_sql_backup(false, arguments.bool(0, true))?,
            FunctionId::IsInBackup => Value::Bool(cluster.exclusive_backup().is_some()),
            FunctionId::BackupStartTime => match cluster.exclusive_backup() {
                Some(_) => Value::Time(cluster.epoch()),
                None => Value::Null,
            },
            FunctionId::SwitchWal => {
                self.refuse_in_recovery("WAL control functions")?;
                Value::Lsn(cluster.switch_wal_record())
            }
            FunctionId::CurrentWal => {
                self.refuse_in_recovery("WAL control functions")?;
                Value::Lsn(cluster.flush_position())
            }
            FunctionId::LastReceivedWal | FunctionId::LastReplayedWal => {
                if cluster.in_recovery() {
                    Value::Lsn(cluster.flush_position())
                } else {
                    Value::Null
                }
            }
            FunctionId::WalFileName => {
                self.refuse_in_recovery(&format!("{}()", function.name))?;
                Value::Text(self.wal_file(arguments.lsn(0)?).to_string())
            }
            FunctionId::WalFileNameOffset => {
                self.refuse_in_recovery(&format!("{}()", function.name))?;
                let position = arguments.lsn(0)?;
                let offset = i64::try_from(cluster.segment_size().offset_of(position)).unwrap_or(i64::MAX);
                Self::record(function, [Value::Text(self.wal_file(position).to_string()), Value::Int(offset)])
            }
            FunctionId::IsInRecovery => Value::Bool(cluster.in_recovery()),
            FunctionId::Promote => {
                cluster.promote()?;
                Value::Bool(true)
            }
            FunctionId::CreateSlot => {
                let (name, reserve, temporary) =
                    (arguments.text(0), arguments.bool(1, false), arguments.bool(2, false));
                cluster.create_slot(&name, temporary, reserve, self.seat.pid)?;
                let reserved = cluster.read_slot(&name).and_then(|slot| slot.restart_lsn);
                Self::record(function, [Value::Text(name), reserved.map_or(Value::Null, Value::Lsn)])
            }
            FunctionId::DropSlot => {
                cluster.drop_idle_slot(&arguments.text(0), self.seat.pid)?;
                Value::Void
            }
            FunctionId::Version => Value::Text(format!(
                "PostgreSQL {} on x86_64-pc-linux-gnu, 64-bit",
                self.shared.config.flavour.announced(self.version)
            )),
            FunctionId::CurrentSetting => {
                let name = arguments.text(0);
                match self.setting(&name) {
                    Some((_, value)) => Value::Text(value),
                    None if arguments.bool(1, false) => Value::Null,
                    None => return Err(settings::unknown(&name)),
                }
            }
            FunctionId::SetConfig => {
                let (name, value) = (arguments.text(0), arguments.0.get(1).and_then(Value::text));
                // Until the end of the transaction: without a block that is now.
                if !arguments.bool(2, false) {
                    self.set(&name, value.as_deref())?;
                }
                Value::Text(value.unwrap_or_default())
            }
            FunctionId::Now => Value::Time(self.shared.clock.unix_seconds()),
            FunctionId::BackendPid => Value::Int(self.seat.pid.into()),
            FunctionId::PostmasterStartTime => Value::Time(self.postmaster_start()),
            FunctionId::ReadBinaryFile => {
                let (offset, length) = (arguments.int(1), arguments.int(2));
                self.read_binary_file(&arguments.bytes(0), offset, length, arguments.bool(3, false))?
            }
            FunctionId::ListDirectory => {
                self.list_directory(&arguments.bytes(0), arguments.bool(1, false), arguments.bool(2, false))?
            }
            FunctionId::StatFile => self.stat_file(&arguments.bytes(0), arguments.bool(1, false))?,
            FunctionId::ListWalDirectory => self.list_wal_directory()?,
            FunctionId::TablespaceLocation => {
                let oid = arguments.int(0).unwrap_or_default();
                let found = cluster.tablespaces().into_iter().find(|tablespace| i64::from(tablespace.oid) == oid);
                Value::Text(found.map_or_else(String::new, |tablespace| tablespace.location))
            }
        })
    }

    fn record<const N: usize>(function: &Function, values: [Value; N]) -> Value {
        Value::Record(function.columns.iter().map(|(_, ty)| *ty).zip(values).collect())
    }

    fn refuse_in_recovery(&self, what: &str) -> Result<(), Diagnostic> {
        if !self.shared.cluster.in_recovery() {
            return Ok(());
        }
        let hint = format!("{what} cannot be executed during recovery.");
        Err(not_in_prerequisite_state("recovery is in progress").with_hint(hint))
    }

    /// The segment file of a position. One between two segments belongs to the earlier of them up to 16.
    fn wal_file(&self, position: Lsn) -> WalFileName {
        let cluster = &self.shared.cluster;
        let size = cluster.segment_size();
        let segment = if self.version.names_segment_behind_boundary() {
            size.segment_of(position)
        } else {
            size.segment_before(position)
        };
        WalFileName::new(cluster.timeline(), segment, size)
    }

    /// `pg_start_backup`, `pg_backup_start`
    fn start_sql_backup(&mut self, label: &str, fast: bool, exclusive: bool) -> Result<Lsn, Diagnostic> {
        self.refuse_without_right_to_back_up(self.version.backup_start_function())?;
        if self.sql.backup_runs() {
            return Err(not_in_prerequisite_state("a backup is already in progress in this session"));
        }
        if exclusive {
            let start = self.shared.cluster.start_exclusive_backup(label, fast)?;
            let label = self.shared.cluster.label_files().map(|files| files.label).unwrap_or_default();
            self.open_sql_record(start, self.shared.cluster.timeline(), label, true)?;
            return Ok(start);
        }
        let backup = self.shared.cluster.start_backup(label, fast)?;
        let start = backup.start;
        self.open_sql_record(start, backup.timeline, backup.label_text.clone(), false)?;
        self.sql.backup = Some(backup);
        Ok(start)
    }

    fn stop_exclusive_backup(&mut self, wait: bool) -> Result<BackupEnd, Diagnostic> {
        if self.sql.backup_runs() {
            return Err(not_in_prerequisite_state("non-exclusive backup in progress")
                .with_hint("Did you mean to use pg_stop_backup('f')?"));
        }
        self.refuse_without_right_to_back_up(self.version.backup_stop_function())?;
        let end = self.shared.cluster.stop_exclusive_backup()?;
        self.end_sql_record(end, true);
        // A smart shutdown waits for this.
        self.shared.advance_shutdown();
        if wait {
            self.sql.waits_for_archiving = Some(false);
        }
        Ok(end)
    }

    /// `pg_stop_backup` and `pg_backup_stop`, with the files of a backup that is not exclusive.
    fn stop_sql_backup(&mut self, exclusive: bool, wait: bool) -> Result<Value, Diagnostic> {
        let record = |lsn, label, map| {
            Value::Record(vec![(SqlType::Lsn, Value::Lsn(lsn)), (SqlType::Text, label), (SqlType::Text, map)])
        };
        if exclusive {
            return Ok(record(self.stop_exclusive_backup(wait)?.end, Value::Null, Value::Null));
        }
        let Some(backup) = self.sql.backup.take() else {
            let (message, hint) = if self.version.has_exclusive_backup() {
                ("non-exclusive backup is not in progress", "Did you mean to use pg_stop_backup('t')?")
            } else {
                ("backup is not in progress", "Did you call pg_backup_start()?")
            };
            return Err(not_in_prerequisite_state(message).with_hint(hint));
        };
        let (label, standby) = (backup.label_text.clone(), self.shared.cluster.in_recovery());
        let end = match self.shared.cluster.stop_backup(backup) {
            Ok(end) => end,
            Err(error) => {
                self.fail_sql_record(&error.message);
                return Err(error);
            }
        };
        self.end_sql_record(end, false);
        if wait {
            self.sql.waits_for_archiving = Some(standby);
        }
        let end = end.end;
        let map = String::from_utf8_lossy(&self.shared.cluster.tablespace_map()).into_owned();
        Ok(record(end, Value::Text(label), Value::Text(map)))
    }
}
