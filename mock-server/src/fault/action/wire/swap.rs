//! `swap`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;

/// The message and the one after it change places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct Swap {}

impl Rules for Swap {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        let followed = matches!(
            when,
            Point::StartPosition { .. }
                | Point::TablespaceList { .. }
                | Point::CopyBegin { .. }
                | Point::ArchiveBegin { .. }
                | Point::CopyDone { .. }
                | Point::EndPosition { .. }
                | Point::WalBegin { .. }
                | Point::Message { .. }
        );
        (!followed).then_some("a message that another follows: use message for one with data")
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::backend::BackendMessage;
    use backstop_protocol::version::ServerVersion;

    use crate::fault::testing::{COMMAND, refusal, sound, struck};
    use crate::testing::{Client, End, fault, server, tags};

    #[tokio::test(start_paused = true)]
    async fn swapped_messages_change_places() {
        let swap = r#"{"swap": {}}"#;
        for (when, expected) in [
            (r#"{"copy-done": {}}"#, "TDCTDDCHdTcDCCZ"),
            (r#"{"end-position": {}}"#, "TDCTDDCHdcCTDCZ"),
            (r#"{"start-position": {}}"#, "TTDCDDCHdcTDCCZ"),
            (r#"{"message": {"n": 1}}"#, "DTCTDDCHdcTDCCZ"),
        ] {
            let (_, messages, end) = struck(when, swap).await;
            assert_eq!((tags(&messages).as_str(), end), (expected, End::Ready), "{when}");
        }
        let (_, messages, _) = struck(r#"{"archive-begin": {"archive": "base.tar"}}"#, swap).await;
        let sound = sound().await;
        let at = sound.iter().zip(&messages).position(|(sound, struck)| sound != struck).unwrap();
        assert!(
            messages[at] == sound[at + 1] && messages[at + 1] == sound[at] && messages[at + 2..] == sound[at + 2..]
        );
        assert!(matches!(&messages[at + 1], BackendMessage::CopyData(data) if data.starts_with(b"nbase.tar")));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nothing_follows_is_not_held_back_for_ever() {
        let count = sound().await.len();
        let when = format!(r#"{{"message": {{"n": {count}}}}}"#);
        let server = server(ServerVersion::V18, vec![fault(&when, r#"{"swap": {}}"#)]);
        let mut client = Client::start(&server, "test").await;
        let (messages, end) = client.query(COMMAND).await;
        assert_eq!((messages.len(), end, server.fired().len()), (count, End::Ready, 1));
    }

    #[test]
    fn needs_a_message_that_another_follows() {
        assert_eq!(
            refusal(r#"{"ready": {}}"#, r#"{"swap": {}}"#),
            "swap cannot strike at ready: it needs a message that another follows: use message for one with data"
        );
        assert_eq!(
            refusal(r#"{"archive-data": {"at": "1B"}}"#, r#"{"swap": {}}"#),
            "swap cannot strike at archive-data: it needs a message that another follows: use message for one with data"
        );
    }
}
