//! What a cassette does not keep: everything that could be somebody's secret.

use backstop_protocol::command::{self, Command, CommandError};
use backstop_protocol::version::ServerVersion;
use sha2::{Digest as _, Sha256};

use super::format::{FromClient, hex};

/// Parameters of a StartupMessage whose values say nothing of whoever connects but their names. Of others only the name is kept.
const HARMLESS_PARAMETERS: [&str; 8] = [
    "user",
    "database",
    "replication",
    "application_name",
    "client_encoding",
    "datestyle",
    "timezone",
    "extra_float_digits",
];

/// Settings that clients of a walsender ask for. Of others, a connection string with a password for instance, the value is left out.
const HARMLESS_SETTINGS: [&str; 12] = [
    "block_size",
    "data_checksums",
    "data_directory_mode",
    "in_hot_standby",
    "max_wal_senders",
    "server_version",
    "server_version_num",
    "summarize_wal",
    "wal_block_size",
    "wal_level",
    "wal_segment_size",
    "wal_sender_timeout",
];

/// The value of a parameter as it is kept.
pub(super) fn parameter(name: String, value: String) -> (String, String) {
    // Protocol options, of which none is secret, have names of their own.
    let harmless = HARMLESS_PARAMETERS.contains(&name.to_ascii_lowercase().as_str());
    (name, if harmless { value } else { String::new() })
}

/// The longest first word of a statement that is kept.
const LONGEST_WORD: usize = 32;

/// What was asked, and what of the answer can be kept.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) said: FromClient,
    /// The replication command, if it is a valid one.
    pub(super) command: Option<Command>,
    /// Whether the rows and words of the answer are facts of replication.
    pub(super) harmless: bool,
}

impl Question {
    /// What a Query asks a server of `version`; SQL, if the session takes nothing else.
    pub(super) fn new(text: &[u8], version: ServerVersion, walsender: bool) -> Self {
        let readable = str::from_utf8(text).ok().filter(|_| walsender);
        let parsed = readable.map(|text| command::parse(text, version));
        match (parsed, readable) {
            (Some(Ok(parsed)), Some(text)) => {
                let harmless = match &parsed.command {
                    Command::Show(name) => HARMLESS_SETTINGS.contains(&name.to_ascii_lowercase().as_str()),
                    _ => true,
                };
                Self { said: FromClient::Query(text.to_owned()), command: Some(parsed.command), harmless }
            }
            (Some(Err(CommandError::Syntax(_))), Some(text)) => {
                Self { said: FromClient::Query(text.to_owned()), command: None, harmless: true }
            }
            _ => Self { said: sql(text), command: None, harmless: false },
        }
    }
}

/// SQL as it is kept: its text may hold anything.
fn sql(text: &[u8]) -> FromClient {
    let words = String::from_utf8_lossy(text);
    let begins: String = words.trim_start().chars().take_while(char::is_ascii_alphabetic).take(LONGEST_WORD).collect();
    FromClient::Sql { begins: begins.to_ascii_uppercase(), sha256: hex(&Sha256::digest(text)) }
}

/// The fields of an ErrorResponse or NoticeResponse. Of an answer to SQL only those that hold no part of it.
pub(super) fn diagnostic(body: &[u8], harmless: bool) -> Vec<(char, String)> {
    let fields = body.split(|byte| *byte == 0).filter_map(|field| field.split_first());
    let fields = fields.map(|(kind, value)| (char::from(*kind), String::from_utf8_lossy(value).into_owned()));
    let kept = fields.filter_map(|(kind, value)| match kind {
        'S' | 'V' | 'C' | 'F' | 'L' | 'R' | 'P' => Some((kind, value)),
        _ if harmless => Some((kind, value)),
        'M' => Some((kind, "(left out of the recording)".to_owned())),
        _ => None,
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sql_is_kept_as_its_first_word_and_a_checksum() {
        let question = Question::new(b" alter role r password 'hush'", ServerVersion::V18, true);
        let FromClient::Sql { begins, sha256 } = question.said else { panic!("{question:?}") };
        assert_eq!((begins.as_str(), sha256.len(), question.harmless), ("ALTER", 64, false));
    }

    #[test]
    fn only_known_settings_are_kept() {
        let harmless = |text: &str| Question::new(text.as_bytes(), ServerVersion::V18, true).harmless;
        assert!(harmless("SHOW wal_segment_size") && harmless("IDENTIFY_SYSTEM") && harmless("BASE_BACKUP (x"));
        assert!(!harmless("SHOW primary_conninfo") && !harmless("SELECT 1"));
    }

    #[test]
    fn parameters_keep_their_names() {
        let kept = |name: &str, value: &str| parameter(name.to_owned(), value.to_owned());
        assert_eq!(kept("user", "me"), ("user".to_owned(), "me".to_owned()));
        assert_eq!(kept("options", "-c s=hush"), ("options".to_owned(), String::new()));
    }

    #[test]
    fn what_an_error_quotes_of_sql_is_left_out() {
        let body = b"SERROR\0C22P02\0Minvalid input: \"hush\"\0Dhush\0Fint.c\0\0";
        let told = |harmless| {
            diagnostic(body, harmless).into_iter().map(|(kind, value)| format!("{kind}{value}")).collect::<Vec<_>>()
        };
        assert_eq!(told(false), ["SERROR", "C22P02", "M(left out of the recording)", "Fint.c"]);
        assert_eq!(told(true).len(), 5);
    }
}
