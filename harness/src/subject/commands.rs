//! A client that speaks given commands: in process only, since its stories are about the server.

use std::fmt::Write;
use std::sync::Arc;

use backstop_client::commands::{Answer, run_commands};
use backstop_client::{ClientError, Connector, Login, Observer, Replication};

use crate::scenario::Case;
use crate::scenario::model::Client;

/// Who logs in.
pub fn login(case: &Case, client: &Client) -> Login {
    let mut login = Login::new(&*case.credentials.user, &client.name);
    login.password.clone_from(&case.credentials.password);
    if let Some(database) = &client.database {
        login.replication = Replication::Database;
        login.database.clone_from(database);
    }
    login
}

/// Sends the client's commands. What each was answered with is a line; the client fails if one of them was refused.
///
/// # Errors
/// All lines, or why there is no session any more.
pub async fn speak(
    connector: &dyn Connector,
    client: &Client,
    login: &Login,
    observer: Arc<dyn Observer>,
) -> Result<String, String> {
    let answers = run_commands(connector, login, &client.commands, observer).await;
    let answers = answers.map_err(|error: ClientError| error.to_string())?;
    let mut told = String::new();
    let mut refused = false;
    for (command, answer) in client.commands.iter().zip(answers) {
        let _ = match answer {
            Answer::Completed { tags, rows, copied } => {
                writeln!(told, "{command}: {} ({rows} rows, {copied} bytes)", tags.join(", "))
            }
            Answer::Refused(diagnostic) => {
                refused = true;
                writeln!(told, "{command}: {diagnostic}")
            }
        };
    }
    if refused { Err(told) } else { Ok(told) }
}
