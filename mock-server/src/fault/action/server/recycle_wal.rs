//! `recycle-wal`.

use backstop_protocol::wal_file::WalFileName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;

/// A checkpoint removes WAL up to and with this segment, needed or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct RecycleWal {
    /// The last segment to go.
    pub through: String,
}

impl Rules for RecycleWal {
    fn check(&self, _when: &Point) -> Result<(), String> {
        self.through.parse::<WalFileName>().map(drop).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{refusal, struck};
    use crate::testing::{Client, End, diagnostics, tags};

    #[tokio::test(start_paused = true)]
    async fn recycled_wal_cannot_be_streamed() {
        let action = r#"{"recycle-wal": {"through": "000000010000000000000002"}}"#;
        let (server, _, end) = struck(r#"{"ready": {"nth": 2}}"#, action).await;
        assert_eq!(end, End::Ready);
        let mut client = Client::start(&server, "wal").await;
        let (messages, end) = client.query("START_REPLICATION 0/2000000 TIMELINE 1").await;
        assert_eq!((tags(&messages).as_str(), end), ("WEZ", End::Ready));
        let removed = "ERROR 58P01: requested WAL segment 000000010000000000000002 has already been removed";
        assert_eq!(diagnostics(&messages), [removed]);
    }

    #[test]
    fn needs_the_name_of_a_segment() {
        assert_eq!(
            refusal(r#"{"ready": {}}"#, r#"{"recycle-wal": {"through": "x"}}"#),
            "invalid WAL file name \"x\": expected 24 upper-case hexadecimal digits such as \"000000010000000000000003\""
        );
    }
}
