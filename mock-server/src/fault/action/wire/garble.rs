//! `garble`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;

fn all_bits() -> u8 {
    8
}

/// The byte at the point arrives with its lowest bits flipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct Garble {
    /// How many, 1 to 8.
    #[serde(default = "all_bits")]
    pub bits: u8,
}

impl Rules for Garble {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        let byte = when.is_archived_byte() || matches!(when, Point::WalData { .. });
        (!byte).then_some("a byte: archive-data, member with at, manifest-data or wal-data")
    }

    fn check(&self, _when: &Point) -> Result<(), String> {
        if (1..=8).contains(&self.bits) { Ok(()) } else { Err("bits of garble must be 1 to 8".to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::backend::BackendMessage;
    use backstop_protocol::frontend::FrontendMessage;
    use backstop_protocol::version::ServerVersion;

    use crate::fault::testing::{COMMAND, archive, refusal, sound, struck};
    use crate::testing::{Client, End, fault, payloads, server};

    #[tokio::test(start_paused = true)]
    async fn garble_flips_bits_of_one_byte() {
        let when = r#"{"member": {"path": "PG_VERSION", "at": "1B"}}"#;
        let (_, messages, end) = struck(when, r#"{"garble": {"bits": 1}}"#).await;
        assert_eq!(end, End::Ready);
        let (struck, sound) = (archive(&messages, "base.tar"), archive(&sound().await, "base.tar"));
        let differs: Vec<_> = struck.iter().zip(&sound).filter(|(struck, sound)| struck != sound).collect();
        assert_eq!(differs, [(&b'9', &b'8')]);
        assert_eq!(struck.len(), sound.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_of_streamed_wal_is_garbled_at_its_position() {
        let lsn = "0/2000010";
        let when = format!(r#"{{"wal-data": {{"lsn": "{lsn}"}}}}"#);
        let server = server(ServerVersion::V18, vec![fault(&when, r#"{"garble": {"bits": 8}}"#)]);
        let mut client = Client::start(&server, "test").await;
        client.query(COMMAND).await;
        client.send(&FrontendMessage::Query("START_REPLICATION 0/2000000 TIMELINE 1".into())).await;
        client.read_until(|message| matches!(message, BackendMessage::CopyBothResponse)).await;
        let first = client.next().await.unwrap();
        let second = client.next().await.unwrap();
        let wal = payloads(&[first, second]);
        assert_eq!(wal[0].len(), 25 + 16);
        let mut truth = [0];
        server.cluster().read_wal(server.cluster().timeline(), lsn.parse().unwrap(), &mut truth).unwrap();
        assert_eq!(wal[1][25], !truth[0]);
    }

    #[test]
    fn needs_a_byte_and_its_bits() {
        assert_eq!(
            refusal(r#"{"ready": {}}"#, r#"{"garble": {}}"#),
            "garble cannot strike at ready: it needs a byte: archive-data, member with at, manifest-data or wal-data"
        );
        assert_eq!(
            refusal(r#"{"manifest-data": {"at": "1B"}}"#, r#"{"garble": {"bits": 9}}"#),
            "bits of garble must be 1 to 8"
        );
    }
}
