//! Answers that faults change.

use std::collections::BTreeMap;

use backstop_protocol::backend::{BackendMessage, Diagnostic, SqlState};
use bytes::Bytes;

/// What is to be changed of the messages that come.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    rows: Vec<RowChange>,
    /// Settings and what is reported of them.
    parameters: BTreeMap<String, String>,
    /// Of the result set on its way.
    columns: Vec<String>,
    rows_seen: u32,
}

/// Another value in the next result set.
#[derive(Debug)]
struct RowChange {
    column: String,
    row: Option<u32>,
    to: Option<String>,
    done: bool,
}

impl Changes {
    /// Whether there may be something to change.
    pub(crate) fn wait(&self) -> bool {
        !self.rows.is_empty() || !self.parameters.is_empty()
    }

    pub(crate) fn change_row(&mut self, column: String, row: Option<u32>, to: Option<String>) {
        self.rows.push(RowChange { column, row, to, done: false });
    }

    pub(crate) fn change_parameter(&mut self, name: String, to: String) {
        self.parameters.insert(name, to);
    }

    /// The message as it is to be said. A change that finds no place is an ERROR, so that no fault strikes in vain unnoticed.
    pub(crate) fn apply(&mut self, mut message: BackendMessage) -> Result<BackendMessage, Diagnostic> {
        match &mut message {
            BackendMessage::ParameterStatus { name, value } => {
                if let Some(to) = self.parameters.get(name) {
                    value.clone_from(to);
                }
            }
            // In the extended protocol it comes before the command runs, and so before the point at which a change is asked for.
            BackendMessage::RowDescription(columns) => {
                self.columns = columns.iter().map(|column| column.name.clone()).collect();
                self.rows_seen = 0;
            }
            BackendMessage::DataRow(values) if !self.rows.is_empty() => {
                self.rows_seen = self.rows_seen.saturating_add(1);
                for change in self.rows.iter_mut().filter(|change| change.row.is_none_or(|row| row == self.rows_seen)) {
                    let place = self.columns.iter().position(|column| *column == change.column);
                    if let Some(value) = place.and_then(|place| values.get_mut(place)) {
                        *value = change.to.clone().map(Bytes::from);
                        change.done = true;
                    }
                }
            }
            BackendMessage::CommandComplete(_) => {
                let changes = std::mem::take(&mut self.rows);
                if let Some(RowChange { column, row, .. }) = changes.iter().find(|change| !change.done) {
                    let row = row.map(|row| format!(" in row {row}")).unwrap_or_default();
                    let problem = format!("change-row has found no column \"{column}\"{row}");
                    return Err(Diagnostic::error(SqlState::INTERNAL_ERROR, problem));
                }
            }
            // The answer ends before its rows.
            BackendMessage::ErrorResponse(_) => self.rows.clear(),
            _ => {}
        }
        Ok(message)
    }
}
