//! Errors, warnings and notices as they travel: ErrorResponse and NoticeResponse.

mod origin;
mod origins;

use std::fmt;

use bytes::{BufMut, BytesMut};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::decode::{Fields, MessageError};
use crate::frontend::put_c_string;
use crate::version::ServerVersion;

pub use origin::Origin;

/// A five-character error code. The names are those of PostgreSQL's appendix "Error Codes".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String")]
pub struct SqlState([u8; 5]);

macro_rules! states {
    ($($name:ident = $code:literal;)*) => {
        #[expect(missing_docs, reason = "the names say it all")]
        impl SqlState { $(pub const $name: Self = Self(*$code);)* }
    };
}

states! {
    SUCCESSFUL_COMPLETION = b"00000";
    WARNING = b"01000";
    PROTOCOL_VIOLATION = b"08P01";
    FEATURE_NOT_SUPPORTED = b"0A000";
    NUMERIC_VALUE_OUT_OF_RANGE = b"22003";
    INVALID_PARAMETER_VALUE = b"22023";
    INVALID_TEXT_REPRESENTATION = b"22P02";
    INVALID_BINARY_REPRESENTATION = b"22P03";
    ACTIVE_SQL_TRANSACTION = b"25001";
    NO_ACTIVE_SQL_TRANSACTION = b"25P01";
    IN_FAILED_SQL_TRANSACTION = b"25P02";
    INVALID_SQL_STATEMENT_NAME = b"26000";
    INVALID_AUTHORIZATION_SPECIFICATION = b"28000";
    INVALID_PASSWORD = b"28P01";
    INVALID_CURSOR_NAME = b"34000";
    INVALID_CATALOG_NAME = b"3D000";
    SYNTAX_ERROR = b"42601";
    INSUFFICIENT_PRIVILEGE = b"42501";
    INVALID_NAME = b"42602";
    NAME_TOO_LONG = b"42622";
    UNDEFINED_COLUMN = b"42703";
    UNDEFINED_OBJECT = b"42704";
    DUPLICATE_OBJECT = b"42710";
    UNDEFINED_FUNCTION = b"42883";
    UNDEFINED_PARAMETER = b"42P02";
    DUPLICATE_CURSOR = b"42P03";
    DUPLICATE_PREPARED_STATEMENT = b"42P05";
    WRONG_OBJECT_TYPE = b"42809";
    DISK_FULL = b"53100";
    TOO_MANY_CONNECTIONS = b"53300";
    CONFIGURATION_LIMIT_EXCEEDED = b"53400";
    PROGRAM_LIMIT_EXCEEDED = b"54000";
    OBJECT_NOT_IN_PREREQUISITE_STATE = b"55000";
    OBJECT_IN_USE = b"55006";
    CANT_CHANGE_RUNTIME_PARAM = b"55P02";
    QUERY_CANCELED = b"57014";
    ADMIN_SHUTDOWN = b"57P01";
    CRASH_SHUTDOWN = b"57P02";
    CANNOT_CONNECT_NOW = b"57P03";
    IO_ERROR = b"58030";
    UNDEFINED_FILE = b"58P01";
    DUPLICATE_FILE = b"58P02";
    INTERNAL_ERROR = b"XX000";
    DATA_CORRUPTED = b"XX001";
}

impl SqlState {
    /// A code of five digits and upper-case letters.
    pub fn new(code: &str) -> Option<Self> {
        let code: [u8; 5] = code.as_bytes().try_into().ok()?;
        code.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()).then_some(Self(code))
    }

    /// The code's five characters.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or("?????")
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for SqlState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SqlState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).ok_or_else(|| {
            let problem = "expected an SQLSTATE, five digits or upper-case letters such as \"58P01\"";
            serde::de::Error::custom(format!("{problem}, not {text:?}"))
        })
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are PostgreSQL's")]
pub enum Severity {
    Debug,
    Log,
    Info,
    Notice,
    Warning,
    Error,
    Fatal,
    Panic,
}

impl Severity {
    /// As it stands in the message.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Log => "LOG",
            Self::Info => "INFO",
            Self::Notice => "NOTICE",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Panic => "PANIC",
        }
    }

    fn from_name(name: &[u8]) -> Option<Self> {
        use Severity::{Debug, Error, Fatal, Info, Log, Notice, Panic, Warning};
        let all = [Debug, Log, Info, Notice, Warning, Error, Fatal, Panic];
        all.into_iter().find(|severity| severity.as_str().as_bytes() == name)
    }
}

/// What an ErrorResponse or a NoticeResponse says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Field `V` (since 9.6), or `S`.
    pub severity: Severity,
    /// Field `C`.
    pub code: SqlState,
    /// Field `M`.
    pub message: String,
    /// Field `D`.
    pub detail: Option<String>,
    /// Field `H`.
    pub hint: Option<String>,
    /// A part of the name of the routine that raises it, where several say the same. It decides field `R`, and is not decoded.
    pub raised_in: Option<&'static str>,
    /// Field `P`: where in the query it is, in characters from 1.
    pub position: Option<u32>,
}

impl Diagnostic {
    /// A diagnostic without detail and hint.
    pub fn new(severity: Severity, code: SqlState, message: impl Into<String>) -> Self {
        Self { severity, code, message: message.into(), detail: None, hint: None, raised_in: None, position: None }
    }

    /// An ERROR: ends the command.
    pub fn error(code: SqlState, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    /// A FATAL: ends the session.
    pub fn fatal(code: SqlState, message: impl Into<String>) -> Self {
        Self::new(Severity::Fatal, code, message)
    }

    /// A WARNING.
    pub fn warning(code: SqlState, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message)
    }

    /// A NOTICE.
    pub fn notice(code: SqlState, message: impl Into<String>) -> Self {
        Self::new(Severity::Notice, code, message)
    }

    /// The same with a DETAIL.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// The same, raised in a routine whose name contains `part`.
    #[must_use]
    pub fn raised_in(self, part: &'static str) -> Self {
        Self { raised_in: Some(part), ..self }
    }

    /// The same with a HINT.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same with a position in the query, in characters from 1.
    #[must_use]
    pub fn at_character(self, position: u32) -> Self {
        Self { position: Some(position), ..self }
    }

    pub(crate) fn decode(message: &'static str, fields: &mut Fields) -> Result<Self, MessageError> {
        let (mut shown, mut severity, mut code, mut text) = (None, None, None, None);
        let (mut detail, mut hint, mut position) = (None, None, None);
        loop {
            let kind = fields.u8()?;
            if kind == 0 {
                break;
            }
            match kind {
                b'S' => shown = Severity::from_name(&fields.c_string()?),
                b'V' => severity = Severity::from_name(&fields.c_string()?),
                b'C' => code = SqlState::new(&fields.text()?),
                b'M' => text = Some(fields.text()?),
                b'D' => detail = Some(fields.text()?),
                b'H' => hint = Some(fields.text()?),
                b'P' => position = fields.text()?.parse().ok(),
                _ => drop(fields.c_string()?),
            }
        }
        fields.end()?;
        // A server may translate S; V is never translated. Without either the message's own kind decides.
        let assumed = if message == "NoticeResponse" { Severity::Notice } else { Severity::Error };
        Ok(Self {
            severity: severity.or(shown).unwrap_or(assumed),
            code: code.unwrap_or(SqlState::INTERNAL_ERROR),
            message: text.unwrap_or_default(),
            detail,
            hint,
            raised_in: None,
            position,
        })
    }

    /// Appends the fields as `version` sends them: `V` since 9.6, and where in its source the message is raised.
    pub(crate) fn encode(&self, version: ServerVersion, out: &mut BytesMut) {
        let origin = Origin::of(version, self.severity, &self.message, self.raised_in);
        let mut field = |kind: u8, text: &str| {
            out.put_u8(kind);
            put_c_string(out, text.as_bytes());
        };
        field(b'S', self.severity.as_str());
        if version.sends_untranslated_severity() {
            field(b'V', self.severity.as_str());
        }
        field(b'C', self.code.as_str());
        field(b'M', &self.message);
        for (kind, text) in [(b'D', &self.detail), (b'H', &self.hint)] {
            if let Some(text) = text {
                field(kind, text);
            }
        }
        if let Some(position) = self.position {
            field(b'P', &position.to_string());
        }
        field(b'F', origin.file);
        field(b'L', &origin.line.to_string());
        field(b'R', origin.routine);
        out.put_u8(0);
    }
}

impl fmt::Display for Diagnostic {
    /// As libpq shows it: `ERROR:  text`, then DETAIL and HINT on lines of their own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:  {}", self.severity.as_str(), self.message)?;
        for (label, text) in [("DETAIL", &self.detail), ("HINT", &self.hint)] {
            if let Some(text) = text {
                write!(f, "\n{label}:  {text}")?;
            }
        }
        Ok(())
    }
}
