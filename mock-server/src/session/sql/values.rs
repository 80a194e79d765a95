//! Values of settings in the form in which the server keeps them.

use backstop_protocol::diagnostic::{Diagnostic, SqlState};

/// Encodings that a client may have (`pg_enc2name_tbl`).
#[rustfmt::skip]
const ENCODINGS: [&str; 42] = [
    "SQL_ASCII", "EUC_JP", "EUC_CN", "EUC_KR", "EUC_TW", "EUC_JIS_2004", "UTF8", "MULE_INTERNAL", "LATIN1", "LATIN2", "LATIN3",
    "LATIN4", "LATIN5", "LATIN6", "LATIN7", "LATIN8", "LATIN9", "LATIN10", "WIN1256", "WIN1258", "WIN866", "WIN874", "KOI8R",
    "WIN1251", "WIN1252", "ISO_8859_5", "ISO_8859_6", "ISO_8859_7", "ISO_8859_8", "WIN1250", "WIN1253", "WIN1254", "WIN1255",
    "WIN1257", "KOI8U", "SJIS", "BIG5", "GBK", "UHC", "GB18030", "JOHAB", "SHIFT_JIS_2004",
];

/// Other names of some of them.
const ALIASES: [(&str, &str); 6] = [
    ("unicode", "UTF8"),
    ("iso88591", "LATIN1"),
    ("iso88592", "LATIN2"),
    ("iso885915", "LATIN9"),
    ("koi8", "KOI8R"),
    ("windows1252", "WIN1252"),
];

/// A setting's `value` as the server keeps it, which is `current` before.
///
/// # Errors
/// 22023 for a value that the setting cannot have. Only `client_encoding` and `DateStyle` are looked at.
pub(super) fn canonical(name: &str, value: &str, current: &str) -> Result<String, Diagnostic> {
    let invalid = || {
        let message = format!("invalid value for parameter \"{name}\": \"{value}\"");
        Diagnostic::error(SqlState::INVALID_PARAMETER_VALUE, message)
    };
    match name {
        "client_encoding" => encoding(value).map(str::to_owned).ok_or_else(invalid),
        "DateStyle" => date_style(value, current).map_err(|word| match word {
            Some(word) => invalid().with_detail(format!("Unrecognized key word: \"{word}\".")),
            None => invalid().with_detail("Conflicting \"datestyle\" specifications."),
        }),
        _ => Ok(value.to_owned()),
    }
}

/// The canonical name of an encoding, of whose names only letters and digits count (`clean_encoding_name`).
fn encoding(name: &str) -> Option<&'static str> {
    let clean = |name: &str| -> String {
        name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
    };
    let name = clean(name);
    let known = ENCODINGS.into_iter().find(|known| clean(known) == name);
    known.or_else(|| ALIASES.into_iter().find(|(alias, _)| *alias == name).map(|(_, known)| known))
}

/// A style of dates: how they look and what their order is, of which either may be left as it is (`check_datestyle`). The word that
/// means nothing, or none if words contradict each other.
fn date_style(value: &str, current: &str) -> Result<String, Option<String>> {
    let (mut style, mut order): (Option<&str>, Option<&str>) = (None, None);
    // German dates have an order of their own if nothing else is said.
    let mut implied = None;
    // No word at all leaves everything as it is.
    let words = value.split(',').filter(|_| !value.trim().is_empty());
    for word in words.map(|word| word.trim().to_ascii_lowercase()) {
        let known = match word.as_str() {
            "iso" => (Some("ISO"), None),
            "sql" => (Some("SQL"), None),
            "german" => {
                implied = Some("DMY");
                (Some("German"), None)
            }
            "ymd" => (None, Some("YMD")),
            "us" | "mdy" => (None, Some("MDY")),
            "dmy" => (None, Some("DMY")),
            "default" => (Some("ISO"), Some("MDY")),
            word if word.starts_with("postgres") => (Some("Postgres"), None),
            word if word.starts_with("euro") => (None, Some("DMY")),
            word if word.starts_with("noneuro") => (None, Some("MDY")),
            _ => return Err(Some(word)),
        };
        for (place, said) in [(&mut style, known.0), (&mut order, known.1)] {
            match (*place, said) {
                (Some(before), Some(said)) if before != said => return Err(None),
                (_, Some(_)) => *place = said,
                (_, None) => {}
            }
        }
    }
    let order = order.or(implied);
    let (current_style, current_order) = current.split_once(", ").unwrap_or(("ISO", "MDY"));
    Ok(format!("{}, {}", style.unwrap_or(current_style), order.unwrap_or(current_order)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str, value: &str, current: &str) -> String {
        canonical(name, value, current).unwrap_or_else(|error| error.to_string())
    }

    /// As 15.18, 16.2 and 18.6 answered.
    #[test]
    fn values_are_kept_as_servers_keep_them() {
        for (value, kept) in [
            ("german", "German, DMY"),
            ("ISO,DMY", "ISO, DMY"),
            ("euro", "ISO, DMY"),
            ("sql, ymd", "SQL, YMD"),
            ("german, mdy", "German, MDY"),
            ("Postgres", "Postgres, MDY"),
            ("", "ISO, MDY"),
        ] {
            assert_eq!(told("DateStyle", value, "ISO, MDY"), kept, "{value}");
        }
        assert_eq!(told("DateStyle", "iso", "German, DMY"), "ISO, DMY");
        for (name, kept) in [("utf-8", "UTF8"), ("UNICODE", "UTF8"), ("latin1", "LATIN1"), ("sql_ascii", "SQL_ASCII")] {
            assert_eq!(told("client_encoding", name, ""), kept);
        }
        assert_eq!(told("application_name", "x", ""), "x");
    }

    #[test]
    fn other_values_are_refused() {
        let told = [("client_encoding", "foo"), ("DateStyle", "foo"), ("DateStyle", "dmy, mdy")];
        let told = told.map(|(name, value)| self::told(name, value, "ISO, MDY"));
        insta::assert_snapshot!(told.join("\n"), @r#"
        ERROR:  invalid value for parameter "client_encoding": "foo"
        ERROR:  invalid value for parameter "DateStyle": "foo"
        DETAIL:  Unrecognized key word: "foo".
        ERROR:  invalid value for parameter "DateStyle": "dmy, mdy"
        DETAIL:  Conflicting "datestyle" specifications.
        "#);
    }
}
