//! `notice`.

use backstop_protocol::backend::{Severity, SqlState};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Point;
use crate::fault::action::Rules;

fn warning() -> NoticeSeverity {
    NoticeSeverity::Warning
}

/// A WARNING or a NOTICE comes before the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(inline)]
pub struct Notice {
    /// `warning` without it.
    #[serde(default = "warning")]
    pub severity: NoticeSeverity,
    /// Its text.
    pub message: String,
}

impl Rules for Notice {
    fn needs(&self, when: &Point) -> Option<&'static str> {
        let early = matches!(when, Point::Connect { .. } | Point::Startup { .. });
        (early || !when.has_session()).then_some("a session that has begun")
    }
}

/// How loud a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are PostgreSQL's")]
pub enum NoticeSeverity {
    Notice,
    Warning,
}

impl NoticeSeverity {
    /// The code that goes with it where no other is known.
    pub(crate) fn code(self) -> SqlState {
        match self {
            Self::Notice => SqlState::SUCCESSFUL_COMPLETION,
            Self::Warning => SqlState::WARNING,
        }
    }
}

impl From<NoticeSeverity> for Severity {
    fn from(severity: NoticeSeverity) -> Self {
        match severity {
            NoticeSeverity::Notice => Self::Notice,
            NoticeSeverity::Warning => Self::Warning,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::fault::testing::{refusal, struck};
    use crate::testing::{End, diagnostics, tags};

    #[tokio::test(start_paused = true)]
    async fn a_notice_comes_before_the_message() {
        let (_, messages, end) = struck(r#"{"copy-done": {}}"#, r#"{"notice": {"message": "careful"}}"#).await;
        assert_eq!((tags(&messages).as_str(), end), ("TDCTDDCHdNcTDCCZ", End::Ready));
        assert_eq!(diagnostics(&messages), ["WARNING 01000: careful"]);
    }

    #[test]
    fn needs_a_session_that_has_begun() {
        assert_eq!(
            refusal(r#"{"startup": {}}"#, r#"{"notice": {"message": "x"}}"#),
            "notice cannot strike at startup: it needs a session that has begun"
        );
    }
}
