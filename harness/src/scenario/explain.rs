//! Errors of the TOML reader, in words that help whoever wrote the file.

use super::way::{Step, Way};

/// The message and the help of an error.
type Explanation = (String, Option<String>);

/// The name among `candidates` that `name` was most probably meant to be.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let score = |candidate: &&str| {
        let distance = strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
        let alike = candidate.starts_with(&lower) || lower.starts_with(*candidate);
        let limit = (name.chars().count().max(candidate.chars().count()) / 3).max(1);
        (distance <= limit || alike).then_some(distance)
    };
    candidates.into_iter().filter_map(|c| score(&c).map(|distance| (distance, c))).min().map(|(_, candidate)| candidate)
}

/// The nearest name if there is one, else all names.
pub fn suggest(name: &str, what: &str, candidates: &[&str]) -> Option<String> {
    if let Some(nearest) = nearest(name, candidates.iter().copied()) {
        return Some(format!("did you mean \"{nearest}\"?"));
    }
    match candidates {
        [] => None,
        [only] => Some(format!("the only valid {what} is \"{only}\"")),
        many => Some(format!("valid {what}s: {}", many.join(", "))),
    }
}

/// An error of TOML's syntax.
pub(super) fn syntax(message: &str) -> Explanation {
    (format!("invalid TOML: {message}"), None)
}

/// An error of the content at the end of `way`.
pub(super) fn content(message: &str, way: &Way) -> Explanation {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let names = backquoted(rest);
        return unknown_key(names.first().copied().unwrap_or_default(), names.get(1..).unwrap_or_default());
    }
    if let Some(rest) = message.strip_prefix("unexpected keys in table: ") {
        let (keys, available) = rest.split_once(", available keys: ").unwrap_or((rest, ""));
        let key = keys.split(", ").next().unwrap_or_default();
        let available: Vec<&str> = available.split(", ").filter(|name| !name.is_empty()).collect();
        return unknown_key(key, &available);
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let names = backquoted(rest);
        let (name, mut valid) =
            (names.first().copied().unwrap_or_default(), names.get(1..).unwrap_or_default().to_vec());
        let what = match parent(way) {
            Some("when" | "starts") => "point",
            Some("do") => "action",
            _ => "value",
        };
        if parent(way) == Some("when") {
            valid.push("every");
        }
        let subject = if what == "value" { format!(" of {way}") } else { String::new() };
        return (format!("unknown {what} \"{name}\"{subject}"), suggest(name, what, &valid));
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        let name = backquoted(rest).first().copied().unwrap_or_default();
        return (format!("missing key \"{name}\"{}", inside(way)), None);
    }
    if message.starts_with("wanted exactly 1 element") {
        let (what, example) = match last(way) {
            Some("when" | "starts") => ("point", "when.copy-done = {}"),
            Some("do") => ("action", "do.close = {}"),
            _ => ("key", "{ directory = \"…\" }"),
        };
        return (format!("{way} needs exactly one {what}"), Some(format!("as in: {example}")));
    }
    if message == "wanted string or table" {
        return (format!("invalid type of {way}: expected a string or a table"), None);
    }
    match message.strip_prefix("invalid type: ") {
        Some(rest) => {
            let help = rest.starts_with("integer").then(|| rest.contains("expected a string")).filter(|yes| *yes);
            let help = help.map(|_| "put it in quotes; sizes, rates and times need a unit, as in \"8MiB\"".to_owned());
            (format!("invalid type of {way}: {rest}"), help)
        }
        // A value with a reader of its own, whose text says what it is and what was expected.
        None if way.0.is_empty() => (message.to_owned(), None),
        None => (format!("{way}: {message}"), None),
    }
}

fn unknown_key(name: &str, valid: &[&str]) -> Explanation {
    let help = if valid.is_empty() { Some("this table has no keys".to_owned()) } else { suggest(name, "key", valid) };
    (format!("unknown key \"{name}\""), help)
}

fn inside(way: &Way) -> String {
    if way.0.is_empty() { String::new() } else { format!(" in {way}") }
}

/// The last key of the way.
fn last(way: &Way) -> Option<&str> {
    way.0.iter().rev().find_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Index(_) => None,
    })
}

/// The key before the last.
fn parent(way: &Way) -> Option<&str> {
    let mut keys = way.0.iter().rev().filter_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Index(_) => None,
    });
    keys.next();
    keys.next()
}

/// The words between backquotes.
fn backquoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_nearest_name_or_all() {
        assert_eq!(suggest("sumary", "key", &["summary", "because"]).as_deref(), Some("did you mean \"summary\"?"));
        assert_eq!(suggest("Stream", "value", &["stream", "fetch"]).as_deref(), Some("did you mean \"stream\"?"));
        assert_eq!(
            suggest("wal-segment", "key", &["wal-segment-size"]).as_deref(),
            Some("did you mean \"wal-segment-size\"?")
        );
        assert_eq!(suggest("xyz", "key", &["summary", "because"]).as_deref(), Some("valid keys: summary, because"));
        assert_eq!(suggest("xyz", "client", &["backup"]).as_deref(), Some("the only valid client is \"backup\""));
    }
}
