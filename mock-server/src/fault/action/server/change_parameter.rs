//! `change-parameter`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;

/// From here on ParameterStatus reports another value of the setting. The server goes by its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct ChangeParameter {
    /// The setting: `server_version`.
    pub name: String,
    /// Its value.
    pub to: String,
}

impl Rules for ChangeParameter {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        let before = matches!(when, Point::Connect { .. } | Point::Startup { .. });
        (!before).then_some("connect or startup, before the settings are reported")
    }

    fn check(&self, _when: &Point) -> Result<(), String> {
        if self.name.contains('\0') || self.to.contains('\0') {
            return Err("change-parameter holds a zero byte".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use backstop_protocol::backend::BackendMessage;
    use backstop_protocol::version::ServerVersion;

    use crate::fault::testing::refusal;
    use crate::testing::{Client, End, fault, server};

    #[tokio::test(start_paused = true)]
    async fn a_setting_is_reported_with_another_value() {
        let action = r#"{"change-parameter": {"name": "server_version", "to": "19beta1"}}"#;
        let server = server(ServerVersion::V18, vec![fault(r#"{"startup": {}}"#, action)]);
        let mut client = Client::connect(&server);
        client.start_up("test").await;
        let (messages, end) = client.read().await;
        let reported = messages.iter().find_map(|message| match message {
            BackendMessage::ParameterStatus { name, value } if name == "server_version" => Some(value.as_str()),
            _ => None,
        });
        assert_eq!((reported, end), (Some("19beta1"), End::Ready));
    }

    #[test]
    fn needs_to_come_before_the_report() {
        assert_eq!(
            refusal(r#"{"ready": {}}"#, r#"{"change-parameter": {"name": "x", "to": "y"}}"#),
            "change-parameter cannot strike at ready: it needs connect or startup, before the settings are reported"
        );
        assert_eq!(
            refusal(r#"{"connect": {}}"#, r#"{"change-parameter": {"name": "x", "to": "\u0000"}}"#),
            "change-parameter holds a zero byte"
        );
    }
}
