//! JSON as PostgreSQL reads it (`jsonapi.c`), piece by piece: the same tokens, the same texts for what is wrong.
//!
//! [`Parser`] is `pg_parse_json_incremental`: it knows what may come next and keeps nothing of what came before. What a token
//! means is told when the next one has been read, as there, so that of two errors the same one is reported.

use std::borrow::Cow;

/// How much of a token a message repeats, in bytes.
const MAX_QUOTED: usize = 1024;

/// What is wrong, and at which byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JsonError {
    pub(super) problem: Cow<'static, str>,
    pub(super) offset: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    ObjectStart,
    ObjectEnd,
    ArrayStart,
    ArrayEnd,
    Comma,
    Colon,
    String,
    /// A number, `true`, `false` or `null`.
    Word,
    End,
}

/// What is told what a document holds, and refuses what it does not expect: `JsonSemAction`. Whoever implements it bounds the
/// depth, too: a start that it refuses is not descended into.
pub(super) trait Handler {
    type Error: From<JsonError>;

    fn object_start(&mut self, offset: usize) -> Result<(), Self::Error>;
    fn object_end(&mut self, offset: usize) -> Result<(), Self::Error>;
    fn array_start(&mut self, offset: usize) -> Result<(), Self::Error>;
    fn array_end(&mut self, offset: usize) -> Result<(), Self::Error>;
    fn field(&mut self, name: &[u8], offset: usize) -> Result<(), Self::Error>;
    /// A string without its escapes, or any other scalar as it is written.
    fn scalar(&mut self, text: Vec<u8>, offset: usize) -> Result<(), Self::Error>;
}

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Value,
    ElementOrEnd,
    CommaOrArrayEnd,
    KeyOrEnd,
    Key,
    Colon,
    CommaOrObjectEnd,
    End,
}

impl Expected {
    /// As in `json_errdetail`.
    fn describe(self) -> &'static str {
        match self {
            Self::Value => "JSON value",
            Self::ElementOrEnd => "array element or \"]\"",
            Self::CommaOrArrayEnd => "\",\" or \"]\"",
            Self::KeyOrEnd => "string or \"}\"",
            Self::Key => "string",
            Self::Colon => "\":\"",
            Self::CommaOrObjectEnd => "\",\" or \"}\"",
            Self::End => "end of input",
        }
    }
}

/// What the handler will be told once the next token is known to be one.
#[derive(Debug)]
enum Event {
    Field(Vec<u8>),
    Scalar(Vec<u8>),
    ObjectEnd,
    ArrayEnd,
}

/// Reads one document that comes in pieces.
#[derive(Debug)]
pub(super) struct Parser {
    expected: Expected,
    /// Whether each object or array that is open is an object.
    open: Vec<bool>,
    /// The name of the field whose colon comes next, and where it stands.
    name: (Vec<u8>, usize),
    /// With its offset.
    event: Option<(Event, usize)>,
    /// Bytes of earlier pieces.
    before: usize,
}

impl Default for Parser {
    fn default() -> Self {
        let expected = Expected::Value;
        Self { expected, open: Vec::new(), name: (Vec::new(), 0), event: None, before: 0 }
    }
}

impl Parser {
    /// Reads a piece, and returns how much of it is done with: what is left is the beginning of a token, and comes again with
    /// the next piece. Of the last piece nothing is left.
    pub(super) fn read<H: Handler>(&mut self, piece: &[u8], last: bool, handler: &mut H) -> Result<usize, H::Error> {
        let mut lexer = Lexer { input: piece, last, before: self.before, start: 0, end: 0, text: Vec::new() };
        loop {
            match lexer.next() {
                Ok(token) => self.take(token, &mut lexer, handler)?,
                Err(Stop::Incomplete) => break,
                Err(Stop::Error(error)) => return Err(error.into()),
            }
            if last && lexer.start == piece.len() {
                break;
            }
        }
        self.before += lexer.start;
        Ok(lexer.start)
    }

    fn take<H: Handler>(&mut self, token: Token, lexer: &mut Lexer<'_>, handler: &mut H) -> Result<(), H::Error> {
        match self.event.take() {
            Some((Event::Field(name), offset)) => handler.field(&name, offset)?,
            Some((Event::Scalar(text), offset)) => handler.scalar(text, offset)?,
            Some((Event::ObjectEnd, offset)) => handler.object_end(offset)?,
            Some((Event::ArrayEnd, offset)) => handler.array_end(offset)?,
            None => {}
        }
        let offset = self.before + lexer.start;
        match (self.expected, token) {
            (Expected::Value | Expected::ElementOrEnd, Token::ObjectStart) => {
                handler.object_start(offset)?;
                self.open.push(true);
                self.expected = Expected::KeyOrEnd;
            }
            (Expected::Value | Expected::ElementOrEnd, Token::ArrayStart) => {
                handler.array_start(offset)?;
                self.open.push(false);
                self.expected = Expected::ElementOrEnd;
            }
            (Expected::Value | Expected::ElementOrEnd, Token::String) => {
                self.event = Some((Event::Scalar(std::mem::take(&mut lexer.text)), offset));
                self.value_ended();
            }
            (Expected::Value | Expected::ElementOrEnd, Token::Word) => {
                self.event = Some((Event::Scalar(lexer.raw().to_vec()), offset));
                self.value_ended();
            }
            (Expected::KeyOrEnd | Expected::Key, Token::String) => {
                self.name = (std::mem::take(&mut lexer.text), offset);
                self.expected = Expected::Colon;
            }
            (Expected::Colon, Token::Colon) => {
                let (name, offset) = std::mem::take(&mut self.name);
                self.event = Some((Event::Field(name), offset));
                self.expected = Expected::Value;
            }
            (Expected::CommaOrObjectEnd, Token::Comma) => self.expected = Expected::Key,
            (Expected::CommaOrArrayEnd, Token::Comma) => self.expected = Expected::Value,
            (Expected::KeyOrEnd | Expected::CommaOrObjectEnd, Token::ObjectEnd) => {
                self.open.pop();
                self.event = Some((Event::ObjectEnd, offset));
                self.value_ended();
            }
            (Expected::ElementOrEnd | Expected::CommaOrArrayEnd, Token::ArrayEnd) => {
                self.open.pop();
                self.event = Some((Event::ArrayEnd, offset));
                self.value_ended();
            }
            (Expected::End, Token::End) => {}
            // `report_parse_error`.
            (_, Token::End) => return Err(lexer.fail("The input string ended unexpectedly.").into()),
            (expected, _) => {
                let (expected, found) = (expected.describe(), lexer.quoted());
                return Err(lexer.fail(format!("Expected {expected}, but found \"{found}\".")).into());
            }
        }
        Ok(())
    }

    fn value_ended(&mut self) {
        self.expected = match self.open.last() {
            None => Expected::End,
            Some(true) => Expected::CommaOrObjectEnd,
            Some(false) => Expected::CommaOrArrayEnd,
        };
    }
}

/// Why there is no next token.
enum Stop {
    Error(JsonError),
    /// More must come before it is known.
    Incomplete,
}

impl From<JsonError> for Stop {
    fn from(error: JsonError) -> Self {
        Self::Error(error)
    }
}

/// Finds tokens in one piece.
struct Lexer<'a> {
    input: &'a [u8],
    /// Whether the document ends with the piece.
    last: bool,
    /// Bytes of earlier pieces.
    before: usize,
    /// Where the current token begins and ends.
    start: usize,
    end: usize,
    /// The current string without its escapes.
    text: Vec<u8>,
}

impl Lexer<'_> {
    /// The current token as it is written.
    fn raw(&self) -> &[u8] {
        self.input.get(self.start..self.end).unwrap_or_default()
    }

    /// The current token for a message.
    fn quoted(&self) -> String {
        let shown = self.raw();
        let cut = shown.get(..MAX_QUOTED).unwrap_or(shown);
        // Quotes stay as they are, which is how PostgreSQL prints them; controls must not reach a terminal.
        let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
        String::from_utf8_lossy(cut).chars().map(escape).collect()
    }

    fn fail(&self, problem: impl Into<Cow<'static, str>>) -> JsonError {
        JsonError { problem: problem.into(), offset: self.before + self.start }
    }

    fn invalid_token(&mut self, end: usize) -> JsonError {
        self.end = end;
        self.fail(format!("Token \"{}\" is invalid.", self.quoted()))
    }

    /// The piece ends at `at`, within a token.
    fn ends_early(&mut self, at: usize) -> Stop {
        if self.last { self.invalid_token(at).into() } else { Stop::Incomplete }
    }

    fn peek(&self, at: usize) -> Option<u8> {
        self.input.get(at).copied()
    }

    /// The first offset from `at` on whose byte is not as `accept` says.
    fn skip(&self, mut at: usize, accept: impl Fn(u8) -> bool) -> usize {
        while self.peek(at).is_some_and(&accept) {
            at += 1;
        }
        at
    }

    /// The next token, `json_lex`.
    fn next(&mut self) -> Result<Token, Stop> {
        self.start = self.skip(self.end, |byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        self.end = self.start + 1;
        match self.peek(self.start) {
            None => {
                self.end = self.start;
                if self.last { Ok(Token::End) } else { Err(Stop::Incomplete) }
            }
            Some(b'{') => Ok(Token::ObjectStart),
            Some(b'}') => Ok(Token::ObjectEnd),
            Some(b'[') => Ok(Token::ArrayStart),
            Some(b']') => Ok(Token::ArrayEnd),
            Some(b',') => Ok(Token::Comma),
            Some(b':') => Ok(Token::Colon),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => {
                let end = self.skip(self.start, is_word);
                if end == self.input.len() && !self.last {
                    return Err(Stop::Incomplete);
                }
                if !matches!(self.input.get(self.start..end), Some(b"true" | b"false" | b"null")) {
                    return Err(self.invalid_token(end.max(self.start + 1)).into());
                }
                self.end = end;
                Ok(Token::Word)
            }
        }
    }

    /// `json_lex_number`.
    fn number(&mut self) -> Result<Token, Stop> {
        let digits = |at: usize| self.skip(at, |byte| byte.is_ascii_digit());
        let mut valid = true;
        let first = self.start + usize::from(self.peek(self.start) == Some(b'-'));
        let mut at = match self.peek(first) {
            Some(b'0') => first + 1,
            _ => digits(first),
        };
        valid &= at > first;
        if self.peek(at) == Some(b'.') {
            let fraction = at + 1;
            at = digits(fraction);
            valid &= at > fraction;
        }
        if matches!(self.peek(at), Some(b'e' | b'E')) {
            let exponent = at + 1 + usize::from(matches!(self.peek(at + 1), Some(b'+' | b'-')));
            at = digits(exponent);
            valid &= at > exponent;
        }
        let end = self.skip(at, is_word);
        if end >= self.input.len() && !self.last {
            return Err(Stop::Incomplete);
        }
        if !valid || end > at {
            return Err(self.invalid_token(end).into());
        }
        self.end = at;
        Ok(Token::Word)
    }

    /// `json_lex_string`.
    fn string(&mut self) -> Result<Token, Stop> {
        const LONELY: &str = "Unicode low surrogate must follow a high surrogate.";
        self.text.clear();
        // The first half of a character in two escapes.
        let mut high = None;
        let mut at = self.start + 1;
        loop {
            let plain = self.skip(at, |byte| byte >= b' ' && byte != b'"' && byte != b'\\');
            if high.is_some() && plain > at {
                return Err(self.fail(LONELY).into());
            }
            self.text.extend_from_slice(self.input.get(at..plain).unwrap_or_default());
            let escape = plain + 1;
            at = match (self.peek(plain), self.peek(escape)) {
                (None, _) | (Some(b'\\'), None) => return Err(self.ends_early(self.input.len())),
                (Some(b'\\'), Some(b'u')) => {
                    let unit = self.hex_digits(escape + 1)?;
                    let code = match (high.take(), unit) {
                        (Some(_), 0xD800..=0xDBFF) => {
                            return Err(self.fail("Unicode high surrogate must not follow a high surrogate.").into());
                        }
                        (None, 0xD800..=0xDBFF) => {
                            high = Some(unit);
                            None
                        }
                        (Some(high), 0xDC00..=0xDFFF) => Some(0x10000 + ((high & 0x3FF) << 10 | (unit & 0x3FF))),
                        (Some(_), _) | (None, 0xDC00..=0xDFFF) => return Err(self.fail(LONELY).into()),
                        (None, 0) => return Err(self.fail("\\u0000 cannot be converted to text.").into()),
                        (None, unit) => Some(unit),
                    };
                    if let Some(character) = code.and_then(char::from_u32) {
                        self.text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                    escape + 5
                }
                (Some(_), _) if high.is_some() => return Err(self.fail(LONELY).into()),
                (Some(b'"'), _) => {
                    self.end = plain + 1;
                    return Ok(Token::String);
                }
                (Some(b'\\'), Some(escaped)) => {
                    let Some(character) = unescape(escaped) else { return Err(self.invalid_escape(escape)) };
                    self.text.push(character);
                    escape + 1
                }
                (Some(control), _) => {
                    return Err(self.fail(format!("Character with value 0x{control:02x} must be escaped.")).into());
                }
            };
        }
    }

    /// A backslash before a character, at `at`, that needs none.
    fn invalid_escape(&mut self, at: usize) -> Stop {
        let rest = self.input.get(at..).unwrap_or_default();
        let whole = match rest.first() {
            Some(0xC0..=0xDF) => 2,
            Some(0xE0..=0xEF) => 3,
            Some(0xF0..) => 4,
            _ => 1,
        };
        if rest.len() < whole && !self.last {
            return Stop::Incomplete;
        }
        let length = (1..=4).find(|&length| rest.get(..length).is_some_and(|bytes| str::from_utf8(bytes).is_ok()));
        (self.start, self.end) = (at, at + length.unwrap_or(1));
        self.fail(format!("Escape sequence \"\\{}\" is invalid.", self.quoted())).into()
    }

    fn hex_digits(&mut self, at: usize) -> Result<u32, Stop> {
        let mut value = 0;
        for offset in at..at + 4 {
            let Some(byte) = self.peek(offset) else {
                return Err(self.ends_early(offset));
            };
            let Some(digit) = char::from(byte).to_digit(16) else {
                return Err(self.fail("\"\\u\" must be followed by four hexadecimal digits.").into());
            };
            value = value << 4 | digit;
        }
        Ok(value)
    }
}

/// What a character behind a backslash stands for.
fn unescape(escaped: u8) -> Option<u8> {
    match escaped {
        b'"' | b'\\' | b'/' => Some(escaped),
        b'b' => Some(8),
        b'f' => Some(12),
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        _ => None,
    }
}

/// `JSON_ALPHANUMERIC_CHAR`.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}
