//! The tokens of replication commands, as `repl_scanner.l` cuts them.

use super::{SyntaxError, keyword};
use crate::lsn::Lsn;
use crate::version::{Flavour, ServerVersion};

/// The longest identifier in bytes: `NAMEDATALEN - 1`. What is longer is cut off, with a notice.
pub(super) const MAX_IDENTIFIER: usize = 63;

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// An upper-case word that the release knows.
    Keyword(&'static str),
    /// Any other word, folded to lower case, or what stood between double quotes.
    Identifier(String),
    /// What stood between single quotes.
    Text(String),
    /// Digits.
    Number(u32),
    /// `hex/hex`.
    Position(Lsn),
    /// Any other character.
    Symbol(char),
}

/// Cuts a command into tokens, one at a time: a later error must not hide an earlier one.
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    version: ServerVersion,
    flavour: Flavour,
    /// What the server says of truncated identifiers.
    pub(super) notices: Vec<String>,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str, version: ServerVersion, flavour: Flavour) -> Self {
        Self { text, at: 0, version, flavour, notices: Vec::new() }
    }

    /// The next token and where it begins, or where the text ends.
    pub(super) fn next(&mut self) -> Result<(usize, Option<Token>), SyntaxError> {
        self.take(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0C'));
        let start = self.at;
        let Some(first) = self.rest().chars().next() else { return Ok((start, None)) };
        let token = match first {
            '\'' => Token::Text(self.quoted('\'', start)?),
            '"' => {
                let name = self.quoted('"', start)?;
                Token::Identifier(self.truncated(name))
            }
            _ if position_length(self.rest()).is_some() => self.position(),
            '0'..='9' => Token::Number(wrapped(self.take(|c| c.is_ascii_digit()), 10)),
            _ if begins_identifier(first) => self.word(),
            _ => {
                self.at += first.len_utf8();
                Token::Symbol(first)
            }
        };
        Ok((start, Some(token)))
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The longest run of characters that satisfy `wanted`.
    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let run = rest.get(..rest.find(|c| !wanted(c)).unwrap_or(rest.len())).unwrap_or_default();
        self.at += run.len();
        run
    }

    fn word(&mut self) -> Token {
        let word = self.take(continues_identifier);
        if let Some(keyword) = keyword::find(word, self.version, self.flavour) {
            return Token::Keyword(keyword);
        }
        let folded = word.to_ascii_lowercase();
        Token::Identifier(self.truncated(folded))
    }

    /// A position. Each half is read as `sscanf("%X")` does: what exceeds 32 bits is lost.
    fn position(&mut self) -> Token {
        let high = wrapped(self.take(|c| c.is_ascii_hexdigit()), 16);
        self.at += "/".len();
        let low = wrapped(self.take(|c| c.is_ascii_hexdigit()), 16);
        Token::Position(Lsn(u64::from(high) << 32 | u64::from(low)))
    }

    /// What stands between two `quote`s. Inside a string (not an identifier), a doubled quote is one quote.
    fn quoted(&mut self, quote: char, start: usize) -> Result<String, SyntaxError> {
        let mut content = String::new();
        self.at += quote.len_utf8();
        loop {
            content.push_str(self.take(|c| c != quote));
            if self.rest().is_empty() {
                return Err(SyntaxError { message: "unterminated quoted string".to_owned(), at: start });
            }
            self.at += quote.len_utf8();
            if quote != '\'' || !self.rest().starts_with(quote) {
                return Ok(content);
            }
            content.push(quote);
            self.at += quote.len_utf8();
        }
    }

    /// `truncate_identifier`: whole characters only.
    fn truncated(&mut self, mut name: String) -> String {
        if name.len() > MAX_IDENTIFIER {
            let mut end = MAX_IDENTIFIER;
            while !name.is_char_boundary(end) {
                end -= 1;
            }
            let short = name.get(..end).unwrap_or_default();
            self.notices.push(format!("identifier \"{name}\" will be truncated to \"{short}\""));
            name.truncate(end);
        }
        name
    }
}

fn begins_identifier(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn continues_identifier(c: char) -> bool {
    begins_identifier(c) || c.is_ascii_digit() || c == '$'
}

/// How many bytes of `text` are a position, if it begins with one. No word or number that begins here is longer.
fn position_length(text: &str) -> Option<usize> {
    let run = |text: &str| text.bytes().take_while(u8::is_ascii_hexdigit).count();
    let high = run(text);
    let low = run(text.get(high..)?.strip_prefix('/')?);
    (high > 0 && low > 0).then_some(high + 1 + low)
}

/// `strtoul` into 32 bits: saturates at 64 bits, then loses the upper half.
fn wrapped(digits: &str, radix: u32) -> u32 {
    let value = u64::from_str_radix(digits, radix).unwrap_or(u64::MAX);
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token> {
        let mut lexer = Lexer::new(text, ServerVersion::V18, Flavour::Stock);
        std::iter::from_fn(|| lexer.next().expect("tokens").1).collect()
    }

    fn identifier(name: &str) -> Token {
        Token::Identifier(name.to_owned())
    }

    #[test]
    fn prefers_the_longest_token() {
        assert_eq!(tokens("BASE_BACKUPS"), [identifier("base_backups")]);
        assert_eq!(tokens("FF/0"), [Token::Position(Lsn(0xFF << 32))]);
        assert_eq!(tokens("12ab"), [Token::Number(12), identifier("ab")]);
        assert_eq!(tokens("0/"), [Token::Number(0), Token::Symbol('/')]);
        assert_eq!(tokens("zz/1"), [identifier("zz"), Token::Symbol('/'), Token::Number(1)]);
    }

    #[test]
    fn folds_and_quotes() {
        assert_eq!(tokens("Show SHOW \"Show\""), [identifier("show"), Token::Keyword("SHOW"), identifier("Show")]);
        assert_eq!(tokens("'it''s'''"), [Token::Text("it's'".to_owned())]);
        assert_eq!(tokens("\"a\"\"b\""), [identifier("a"), identifier("b")]);
    }

    #[test]
    fn numbers_keep_their_lower_32_bits() {
        assert_eq!(tokens("4294967328 99999999999999999999"), [Token::Number(32), Token::Number(u32::MAX)]);
        assert_eq!(tokens("123456789/1"), [Token::Position(Lsn(0x2345_6789_0000_0001))]);
    }

    #[test]
    fn truncates_at_a_character() {
        let name = "é".repeat(32);
        let mut lexer = Lexer::new(&name, ServerVersion::V18, Flavour::Stock);
        assert_eq!(lexer.next().expect("a token").1, Some(identifier(&"é".repeat(31))));
        let notice = format!("identifier \"{name}\" will be truncated to \"{}\"", "é".repeat(31));
        assert_eq!(lexer.notices, [notice]);
    }

    #[test]
    fn a_string_must_end() {
        let error = Lexer::new("  'x''", ServerVersion::V18, Flavour::Stock).next().expect_err("no end");
        assert_eq!((error.at, error.message.as_str()), (2, "unterminated quoted string"));
    }
}
