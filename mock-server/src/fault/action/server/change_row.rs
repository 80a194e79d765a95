//! `change-row`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;

/// The result set at the point, or the first one of the command's answer, has another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct ChangeRow {
    /// The column's name, as the server gives it: `spclocation`.
    pub column: String,
    /// Which row, from 1; all of them without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<u32>,
    /// The value; NULL without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

impl Rules for ChangeRow {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        let answered = matches!(when, Point::Command { .. }) || when.columns().is_some();
        (!answered).then_some("a result set: command, start-position, tablespace-list or end-position")
    }

    fn check(&self, when: &Point) -> Result<(), String> {
        if self.row == Some(0) {
            return Err("row of change-row counts from 1".to_owned());
        }
        match when.columns() {
            Some(columns) if !columns.contains(&self.column.as_str()) => {
                let (point, column, columns) = (when.name(), &self.column, columns.join(", "));
                Err(format!("{point} has no column {column:?}: its columns are {columns}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::backend::BackendMessage;
    use backstop_protocol::version::ServerVersion;

    use crate::fault::testing::{refusal, sound, struck};
    use crate::testing::{Client, End, fault, server, tags};

    /// The rows of all result sets.
    fn rows(messages: &[BackendMessage]) -> Vec<Vec<Option<String>>> {
        let text = |value: &bytes::Bytes| String::from_utf8_lossy(value).into_owned();
        let rows = messages.iter().filter_map(|message| match message {
            BackendMessage::DataRow(row) => Some(row.iter().map(|value| value.as_ref().map(text)).collect()),
            _ => None,
        });
        rows.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_set_of_a_backup_has_another_value() {
        let sound = rows(&sound().await);
        for (when, action, row, column, value) in [
            (r#"{"start-position": {}}"#, r#"{"change-row": {"column": "tli", "to": "7"}}"#, 0, 1, Some("7")),
            (
                r#"{"tablespace-list": {}}"#,
                r#"{"change-row": {"column": "spclocation", "row": 1, "to": "/"}}"#,
                1,
                1,
                Some("/"),
            ),
            (r#"{"end-position": {}}"#, r#"{"change-row": {"column": "recptr"}}"#, 3, 0, None),
        ] {
            let (_, messages, end) = struck(when, action).await;
            let mut expected = sound.clone();
            expected[row][column] = value.map(str::to_owned);
            assert_eq!((rows(&messages), end), (expected, End::Ready), "{action}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_answer_to_a_command_has_another_value() {
        let when = r#"{"command": {"starts-with": "IDENTIFY_SYSTEM", "nth": 2}}"#;
        let server =
            server(ServerVersion::V18, vec![fault(when, r#"{"change-row": {"column": "systemid", "to": "4711"}}"#)]);
        let mut client = Client::start(&server, "test").await;
        let mut answers = Vec::new();
        for _ in 0..3 {
            let (messages, end) = client.query("IDENTIFY_SYSTEM").await;
            assert_eq!(end, End::Ready);
            answers.push(rows(&messages)[0][0].clone().unwrap());
        }
        assert_eq!(answers[1], "4711");
        assert!(answers[0] == answers[2] && answers[0] != "4711");
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_that_is_not_there_is_an_error() {
        let when = r#"{"command": {"starts-with": "SHOW"}}"#;
        let server = server(ServerVersion::V18, vec![fault(when, r#"{"change-row": {"column": "x", "to": "1"}}"#)]);
        let mut client = Client::start(&server, "test").await;
        let (messages, _) = client.query("SHOW wal_segment_size").await;
        assert_eq!(tags(&messages), "TDEZ");
        let (messages, _) = client.query("SHOW wal_segment_size").await;
        assert_eq!(tags(&messages), "TDCZ");
    }

    #[test]
    fn needs_a_result_set_with_such_a_value() {
        assert_eq!(
            refusal(r#"{"copy-done": {}}"#, r#"{"change-row": {"column": "x"}}"#),
            "change-row cannot strike at copy-done: it needs a result set: command, start-position, tablespace-list or end-position"
        );
        assert_eq!(
            refusal(r#"{"end-position": {}}"#, r#"{"change-row": {"column": "x"}}"#),
            "end-position has no column \"x\": its columns are recptr, tli"
        );
        assert_eq!(
            refusal(r#"{"end-position": {}}"#, r#"{"change-row": {"column": "tli", "row": 0}}"#),
            "row of change-row counts from 1"
        );
    }
}
