//! `fill-disk`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;
use crate::units::ByteSize;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_nothing(size: &ByteSize) -> bool {
    size.0 == 0
}

/// The client's disk takes so much more and is then full: ENOSPC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct FillDisk {
    /// Whose; without it, that of the connection that came to the point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Nothing more without it.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub after: ByteSize,
}

impl Rules for FillDisk {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        super::lacks_machine(self.client.as_deref(), when)
    }

    fn check(&self, _when: &Point) -> Result<(), String> {
        super::valid_owner(self.client.as_deref(), "fill-disk")
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::version::ServerVersion;

    use crate::fault::testing::{COMMAND, MIDDLE, held, refusal};
    use crate::testing::{Client, End, fault, server};

    #[tokio::test(start_paused = true)]
    async fn the_session_waits_until_it_is_done() {
        assert_eq!(held(r#"{"fill-disk": {"after": "1MiB"}}"#).await, "fill-disk");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_without_clients_of_its_own_says_so_and_goes_on() {
        let server = server(ServerVersion::V18, vec![fault(MIDDLE, r#"{"fill-disk": {}}"#)]);
        let mut client = Client::start(&server, "stranger").await;
        assert_eq!(client.query(COMMAND).await.1, End::Ready);
        let note = "fill-disk: nobody here has that client's machine";
        assert!(server.transcript().iter().any(|event| event.detail == note));
    }

    #[test]
    fn needs_a_client() {
        assert_eq!(
            refusal(r#"{"clock": {"at": "1s"}}"#, r#"{"fill-disk": {}}"#),
            "fill-disk cannot strike at clock: it needs \"client\": no connection comes to this point"
        );
    }
}
