//! The tokens of SQL, as far as the statements of this server need them.

use super::Unsupported;

/// One token, and the byte at which it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A word, folded to lower case.
    Word(String),
    /// A word between double quotes: never a keyword.
    Quoted(String),
    /// A text between single quotes.
    Text(String),
    /// Digits.
    Number(String),
    /// `$1` is 1.
    Parameter(u16),
    Symbol(&'static str),
}

/// Longer ones first.
const SYMBOLS: [&str; 10] = ["::", "=>", ":=", "(", ")", ",", ";", "*", "=", "."];

/// Cuts a text into tokens. What no statement of this server has is not supported: operators, other kinds of strings.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Unsupported> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let (kind, length) = next(rest)?;
        if let Some(kind) = kind {
            tokens.push(Token { kind, at });
        }
        at += length;
    }
    Ok(tokens)
}

/// The token at the beginning of `rest`, none for blanks and comments, and its length.
fn next(rest: &str) -> Result<(Option<Kind>, usize), Unsupported> {
    let run = |wanted: fn(char) -> bool| rest.find(|c| !wanted(c)).unwrap_or(rest.len());
    let first = rest.chars().next().ok_or(Unsupported)?;
    if first.is_ascii_whitespace() {
        return Ok((None, run(|c| c.is_ascii_whitespace())));
    }
    if rest.starts_with("--") {
        return Ok((None, rest.find('\n').unwrap_or(rest.len())));
    }
    if let Some(inside) = rest.strip_prefix("/*") {
        // Comments nest in PostgreSQL; one that does is not supported.
        let end = inside.find("*/").ok_or(Unsupported)?;
        let nests = inside.get(..end).is_some_and(|comment| comment.contains("/*"));
        return if nests { Err(Unsupported) } else { Ok((None, end + 4)) };
    }
    if first == '\'' || first == '"' {
        let (content, length) = quoted(rest, first)?;
        let kind = if first == '"' { Kind::Quoted(content) } else { Kind::Text(content) };
        return Ok((Some(kind), length));
    }
    if first.is_ascii_digit() {
        let length = run(|c| c.is_ascii_digit());
        let number = rest.get(..length).ok_or(Unsupported)?;
        return Ok((Some(Kind::Number(number.to_owned())), length));
    }
    if let Some(digits) = rest.strip_prefix('$') {
        let length = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let number = digits.get(..length).and_then(|digits| digits.parse().ok()).filter(|number| *number > 0);
        return Ok((Some(Kind::Parameter(number.ok_or(Unsupported)?)), 1 + length));
    }
    if first.is_alphabetic() || first == '_' {
        let length = run(|c| c.is_alphanumeric() || c == '_' || c == '$');
        let word = rest.get(..length).ok_or(Unsupported)?;
        // E'…', B'…', U&'…'.
        let prefixed = rest.get(length..).is_some_and(|rest| rest.starts_with('\'')) && word.len() == 1;
        return if prefixed { Err(Unsupported) } else { Ok((Some(Kind::Word(word.to_ascii_lowercase())), length)) };
    }
    let symbol = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)).ok_or(Unsupported)?;
    Ok((Some(Kind::Symbol(symbol)), symbol.len()))
}

/// What stands between two quotes, a doubled one being one, and the length with the quotes.
fn quoted(rest: &str, quote: char) -> Result<(String, usize), Unsupported> {
    let mut content = String::new();
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character != quote {
            content.push(character);
        } else if characters.next_if(|(_, next)| *next == quote).is_some() {
            content.push(quote);
        } else {
            return Ok((content, at + 1));
        }
    }
    Err(Unsupported)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cuts_what_tools_send() {
        let kinds: Vec<_> = tokens("SELECT/* so */ \"Lsn\"::text, $1 -- rest\n FROM f('it''s', fast => 12);")
            .expect("tokens")
            .into_iter()
            .map(|token| token.kind)
            .collect();
        let word = |text: &str| Kind::Word(text.to_owned());
        let expected = [
            word("select"),
            Kind::Quoted("Lsn".to_owned()),
            Kind::Symbol("::"),
            word("text"),
            Kind::Symbol(","),
            Kind::Parameter(1),
            word("from"),
            word("f"),
            Kind::Symbol("("),
            Kind::Text("it's".to_owned()),
            Kind::Symbol(","),
            word("fast"),
            Kind::Symbol("=>"),
            Kind::Number("12".to_owned()),
            Kind::Symbol(")"),
            Kind::Symbol(";"),
        ];
        assert_eq!(kinds, expected);
        for text in ["'", "\"", "/*", "$", "$0", "E'x'", "a + b", "$tag$x$tag$", "$99999"] {
            assert_eq!(tokens(text), Err(Unsupported), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_safe(text in any::<String>()) {
            let _ = tokens(&text);
        }
    }
}
