//! SHOW.

use backstop_protocol::backend::{Diagnostic, SqlState};

use super::output::{TEXT, column, row, value};
use super::{Session, Stop};

impl Session {
    /// A setting, under its canonical name.
    pub(super) async fn show(&mut self, name: &str) -> Result<(), Stop> {
        let Some((name, setting)) = self.setting(name) else {
            let message = format!("unrecognized configuration parameter \"{name}\"");
            return Err(Diagnostic::error(SqlState::UNDEFINED_OBJECT, message).into());
        };
        self.rows(vec![column(&name, TEXT, -1)], vec![row([value(setting)])]).await
    }
}
