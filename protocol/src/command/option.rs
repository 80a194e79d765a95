//! Options of replication commands and how their values are read: `DefElem` and `define.c`.

/// One option: `LABEL 'x'`, `PROGRESS`, `MAX_RATE 1024`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOption {
    /// The name in lower case, unless it was quoted.
    pub name: String,
    /// The value, if one was given.
    pub value: Option<OptionValue>,
}

/// The value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionValue {
    /// A string or an identifier.
    Text(String),
    /// An unsigned number.
    Integer(u32),
}

/// Why a server refuses an option: what its ErrorResponse says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OptionError {
    /// The SQLSTATE.
    pub code: &'static str,
    /// The primary message.
    pub message: String,
    /// The detail, if there is one.
    pub detail: Option<String>,
    /// The hint, if there is one.
    pub hint: Option<String>,
}

impl OptionError {
    /// An error without detail and hint.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: None, hint: None }
    }

    /// `ERRCODE_SYNTAX_ERROR`, which most refused options are.
    pub(crate) fn syntax(message: impl Into<String>) -> Self {
        Self::new("42601", message)
    }

    pub(crate) fn duplicate(option: &CommandOption) -> Self {
        Self::syntax(format!("duplicate option \"{}\"", option.name))
    }
}

impl CommandOption {
    /// An option without a value.
    pub fn flag(name: &str) -> Self {
        Self { name: name.to_owned(), value: None }
    }

    /// An option with a string.
    pub fn text(name: &str, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: Some(OptionValue::Text(value.into())) }
    }

    /// An option with a number.
    pub fn integer(name: &str, value: u32) -> Self {
        Self { name: name.to_owned(), value: Some(OptionValue::Integer(value)) }
    }

    /// The value as a string, as `defGetString` reads it. Numbers pass through a signed 32-bit integer on the way.
    pub fn as_text(&self) -> Result<String, OptionError> {
        match &self.value {
            None => Err(OptionError::syntax(format!("{} requires a parameter", self.name))),
            Some(OptionValue::Text(text)) => Ok(text.clone()),
            Some(OptionValue::Integer(number)) => Ok(number.cast_signed().to_string()),
        }
    }

    /// The value as a boolean, as `defGetBoolean` reads it: no value is true, and only `true`, `false`, `on`, `off`, `0`
    /// and `1` are values.
    pub fn as_boolean(&self) -> Result<bool, OptionError> {
        let known = match &self.value {
            None | Some(OptionValue::Integer(1)) => Some(true),
            Some(OptionValue::Integer(0)) => Some(false),
            Some(OptionValue::Integer(_)) => None,
            Some(OptionValue::Text(text)) => match text.to_ascii_lowercase().as_str() {
                "true" | "on" => Some(true),
                "false" | "off" => Some(false),
                _ => None,
            },
        };
        known.ok_or_else(|| OptionError::syntax(format!("{} requires a Boolean value", self.name)))
    }

    /// The value as a number, as `defGetInt64` reads it: what the parser read as unsigned is signed here.
    pub fn as_integer(&self) -> Result<i32, OptionError> {
        match self.value {
            Some(OptionValue::Integer(number)) => Ok(number.cast_signed()),
            _ => Err(OptionError::syntax(format!("{} requires a numeric value", self.name))),
        }
    }
}

/// `parse_bool`: `true`, `false`, `yes`, `no`, `on`, `off`, `0`, `1` in any case, or a beginning that means only one of
/// them.
pub(crate) fn parse_boolean_word(text: &str) -> Option<bool> {
    let text = text.to_ascii_lowercase();
    let short_for = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    if short_for("true", 1) || short_for("yes", 1) || short_for("on", 2) || text == "1" {
        Some(true)
    } else if short_for("false", 1) || short_for("no", 1) || short_for("off", 2) || text == "0" {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boolean_words_may_be_shortened() {
        for (word, value) in
            [("t", true), ("TRUE", true), ("ye", true), ("on", true), ("of", false), ("n", false), ("0", false)]
        {
            assert_eq!(parse_boolean_word(word), Some(value), "{word}");
        }
        for word in ["", "o", "yess", "2", "maybe", "force-encode"] {
            assert_eq!(parse_boolean_word(word), None, "{word}");
        }
    }

    #[test]
    fn numbers_are_signed_behind_the_grammar() {
        assert_eq!(CommandOption::integer("max_rate", u32::MAX).as_integer(), Ok(-1));
        assert_eq!(CommandOption::integer("label", 7).as_text(), Ok("7".to_owned()));
    }
}
