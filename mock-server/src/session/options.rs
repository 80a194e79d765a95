//! The parameter `options` of a start-up packet: a command line for the server process.

use backstop_protocol::backend::{Diagnostic, SqlState};

/// Switches that a server process takes in `options`, with the setting that each stands for (`process_postgres_switches`).
const SWITCHES: [(&str, &str); 8] = [
    ("-B", "shared_buffers"),
    ("-D", "data_directory"),
    ("-h", "listen_addresses"),
    ("-k", "unix_socket_directories"),
    ("-N", "max_connections"),
    ("-p", "port"),
    ("-S", "work_mem"),
    ("-W", "post_auth_delay"),
];

/// Switches without a value, likewise.
const FLAGS: [(&str, &str, &str); 4] = [
    ("-e", "datestyle", "euro"),
    ("-F", "fsync", "false"),
    ("-O", "allow_system_table_mods", "true"),
    ("-P", "ignore_system_indexes", "true"),
];

/// The settings that `options` asks for, in order.
pub(super) fn settings(options: &str) -> Result<Vec<(String, String)>, Diagnostic> {
    let mut settings = Vec::new();
    let mut words = split(options).into_iter();
    while let Some(word) = words.next() {
        // getopt ends here; whatever follows is no switch.
        if word == "--" {
            return words.next().map_or(Ok(settings), |word| Err(invalid(&word)));
        }
        if let Some(long) = word.strip_prefix("--") {
            settings.push(assignment(long, "--")?);
        } else if let Some((_, name, value)) = FLAGS.iter().find(|(flag, ..)| *flag == word) {
            settings.push(((*name).to_owned(), (*value).to_owned()));
        } else {
            let (switch, rest) = word.split_at(word.char_indices().nth(2).map_or(word.len(), |(at, _)| at));
            let name = SWITCHES.iter().find(|(known, _)| *known == switch).map(|(_, name)| *name);
            if switch != "-c" && name.is_none() {
                return Err(invalid(&word));
            }
            let value = if rest.is_empty() { words.next() } else { Some(rest.to_owned()) };
            let value = value.ok_or_else(|| invalid(&word))?;
            settings.push(match name {
                Some(name) => (name.to_owned(), value),
                None => assignment(&value, "-c ")?,
            });
        }
    }
    Ok(settings)
}

/// Words between blanks; a backslash takes away the meaning of what follows it (`pg_split_opts`).
fn split(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = options.chars();
    while let Some(c) = characters.next() {
        match c {
            ' ' | '\t' | '\n' | '\x0B' | '\x0C' | '\r' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(characters.next()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// `name=value`, with `-` for `_` in the name (`ParseLongOption`).
fn assignment(text: &str, switch: &str) -> Result<(String, String), Diagnostic> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(Diagnostic::error(SqlState::SYNTAX_ERROR, format!("{switch}{text} requires a value")));
    };
    Ok((name.replace('-', "_"), value.to_owned()))
}

fn invalid(word: &str) -> Diagnostic {
    let message = format!("invalid command-line argument for server process: {word}");
    Diagnostic::error(SqlState::SYNTAX_ERROR, message).with_hint("Try \"postgres --help\" for more information.")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(options: &str) -> String {
        match settings(options) {
            Ok(settings) => settings.iter().map(|(name, value)| format!("{name}={value}|")).collect(),
            Err(error) => error.to_string(),
        }
    }

    /// As PostgreSQL 15, 16 and 18 answered.
    #[test]
    fn a_command_line_is_read_as_servers_read_it() {
        for (options, expected) in [
            ("", ""),
            ("-c application_name=x", "application_name=x|"),
            ("-capplication_name=y", "application_name=y|"),
            ("--application-name=z", "application_name=z|"),
            ("-c application_name=a\\ b", "application_name=a b|"),
            ("  -c\tapplication_name=q\\\\r ", "application_name=q\\r|"),
            ("-c application_name=\\", "application_name=|"),
            ("-c a=1 --b=2 -e -S 1000", "a=1|b=2|datestyle=euro|work_mem=1000|"),
            ("--", ""),
        ] {
            assert_eq!(told(options), expected, "{options}");
        }
        insta::assert_snapshot!(["-c application_name", "--foo", "foo", "-c", "-Z 3", "-- x"].map(told).join("\n"), @r#"
        ERROR:  -c application_name requires a value
        ERROR:  --foo requires a value
        ERROR:  invalid command-line argument for server process: foo
        HINT:  Try "postgres --help" for more information.
        ERROR:  invalid command-line argument for server process: -c
        HINT:  Try "postgres --help" for more information.
        ERROR:  invalid command-line argument for server process: -Z
        HINT:  Try "postgres --help" for more information.
        ERROR:  invalid command-line argument for server process: x
        HINT:  Try "postgres --help" for more information.
        "#);
    }

    proptest! {
        #[test]
        fn any_options_are_safe(options in "\\PC{0,40}") {
            let _ = settings(&options);
        }
    }
}
