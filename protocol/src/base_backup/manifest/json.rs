//! JSON as PostgreSQL reads it (`jsonapi.c`): the same tokens, the same texts for what is wrong.

use std::borrow::Cow;

/// How much of a token a message repeats, in bytes.
const MAX_QUOTED: usize = 64;

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

/// Reads one document to its end, `pg_parse_json`.
pub(super) fn parse<H: Handler>(input: &[u8], handler: &mut H) -> Result<(), H::Error> {
    let mut parser = Parser { input, start: 0, end: 0, token: Token::End, text: Vec::new(), handler };
    parser.advance()?;
    parser.value()?;
    if parser.token == Token::End { Ok(()) } else { Err(parser.expected("end of input").into()) }
}

struct Parser<'a, H> {
    input: &'a [u8],
    /// Where the current token begins and ends.
    start: usize,
    end: usize,
    token: Token,
    /// The current string without its escapes.
    text: Vec<u8>,
    handler: &'a mut H,
}

impl<H: Handler> Parser<'_, H> {
    fn value(&mut self) -> Result<(), H::Error> {
        match self.token {
            Token::ObjectStart => self.object(),
            Token::ArrayStart => self.array(),
            Token::String | Token::Word => {
                let text = match self.token {
                    Token::String => std::mem::take(&mut self.text),
                    _ => self.raw().to_vec(),
                };
                let offset = self.start;
                self.advance()?;
                self.handler.scalar(text, offset)
            }
            _ => Err(self.expected("JSON value").into()),
        }
    }

    fn object(&mut self) -> Result<(), H::Error> {
        self.handler.object_start(self.start)?;
        self.advance()?;
        match self.token {
            Token::String => {
                self.member()?;
                while self.token == Token::Comma {
                    self.advance()?;
                    self.member()?;
                }
            }
            Token::ObjectEnd => {}
            _ => return Err(self.expected("string or \"}\"").into()),
        }
        let offset = self.start;
        if self.token != Token::ObjectEnd {
            return Err(self.expected("\",\" or \"}\"").into());
        }
        self.advance()?;
        self.handler.object_end(offset)
    }

    fn member(&mut self) -> Result<(), H::Error> {
        if self.token != Token::String {
            return Err(self.expected("string").into());
        }
        let (name, offset) = (std::mem::take(&mut self.text), self.start);
        self.advance()?;
        if self.token != Token::Colon {
            return Err(self.expected("\":\"").into());
        }
        self.advance()?;
        self.handler.field(&name, offset)?;
        self.value()
    }

    fn array(&mut self) -> Result<(), H::Error> {
        self.handler.array_start(self.start)?;
        self.advance()?;
        if self.token != Token::ArrayEnd {
            self.value()?;
            while self.token == Token::Comma {
                self.advance()?;
                self.value()?;
            }
        }
        let offset = self.start;
        if self.token != Token::ArrayEnd {
            return Err(self.expected("\",\" or \"]\"").into());
        }
        self.advance()?;
        self.handler.array_end(offset)
    }

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

    /// `report_parse_error`.
    fn expected(&self, what: &str) -> JsonError {
        if self.token == Token::End {
            return self.fail("The input string ended unexpectedly.");
        }
        self.fail(format!("Expected {what}, but found \"{}\".", self.quoted()))
    }

    fn fail(&self, problem: impl Into<Cow<'static, str>>) -> JsonError {
        JsonError { problem: problem.into(), offset: self.start }
    }

    fn invalid_token(&mut self, end: usize) -> JsonError {
        self.end = end;
        self.fail(format!("Token \"{}\" is invalid.", self.quoted()))
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

    /// Finds the next token, `json_lex`.
    fn advance(&mut self) -> Result<(), JsonError> {
        self.start = self.skip(self.end, |byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        self.end = self.start + 1;
        self.token = match self.peek(self.start) {
            None => {
                self.end = self.start;
                Token::End
            }
            Some(b'{') => Token::ObjectStart,
            Some(b'}') => Token::ObjectEnd,
            Some(b'[') => Token::ArrayStart,
            Some(b']') => Token::ArrayEnd,
            Some(b',') => Token::Comma,
            Some(b':') => Token::Colon,
            Some(b'"') => self.string()?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(_) => {
                let end = self.skip(self.start, is_word);
                if !matches!(self.input.get(self.start..end), Some(b"true" | b"false" | b"null")) {
                    return Err(self.invalid_token(end.max(self.start + 1)));
                }
                self.end = end;
                Token::Word
            }
        };
        Ok(())
    }

    /// `json_lex_number`.
    fn number(&mut self) -> Result<Token, JsonError> {
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
        if !valid || end > at {
            return Err(self.invalid_token(end));
        }
        self.end = at;
        Ok(Token::Word)
    }

    /// `json_lex_string`.
    fn string(&mut self) -> Result<Token, JsonError> {
        self.text.clear();
        let mut at = self.start + 1;
        loop {
            let plain = self.skip(at, |byte| byte >= b' ' && byte != b'"' && byte != b'\\');
            self.text.extend_from_slice(self.input.get(at..plain).unwrap_or_default());
            at = match self.peek(plain) {
                None => return Err(self.invalid_token(plain)),
                Some(b'"') => {
                    self.end = plain + 1;
                    return Ok(Token::String);
                }
                Some(b'\\') => self.escape(plain + 1)?,
                Some(control) => {
                    return Err(self.fail(format!("Character with value 0x{control:02x} must be escaped.")));
                }
            };
        }
    }

    /// What stands behind a backslash; returns where the string goes on.
    fn escape(&mut self, at: usize) -> Result<usize, JsonError> {
        let plain = match self.peek(at) {
            None => return Err(self.invalid_token(at)),
            Some(b'u') => return self.unicode_escape(at + 1),
            Some(byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(other) => {
                let other = other.escape_ascii();
                return Err(self.fail(format!("Escape sequence \"\\{other}\" is invalid.")));
            }
        };
        self.text.push(plain);
        Ok(at + 1)
    }

    /// Four hexadecimal digits, or twice four with another `\u` between them.
    fn unicode_escape(&mut self, at: usize) -> Result<usize, JsonError> {
        const LONELY: &str = "Unicode low surrogate must follow a high surrogate.";
        let first = self.hex_digits(at)?;
        let mut next = at + 4;
        let code = match first {
            0 => return Err(self.fail("\\u0000 cannot be converted to text.")),
            0xDC00..=0xDFFF => return Err(self.fail(LONELY)),
            0xD800..=0xDBFF => {
                if self.input.get(next..next + 2) != Some(b"\\u") {
                    // A string that ends here is no better, whatever `jsonapi.c` looks at first.
                    return Err(self.fail(LONELY));
                }
                let second = self.hex_digits(next + 2)?;
                next += 6;
                match second {
                    0xD800..=0xDBFF => {
                        return Err(self.fail("Unicode high surrogate must not follow a high surrogate."));
                    }
                    0xDC00..=0xDFFF => 0x10000 + ((first & 0x3FF) << 10 | (second & 0x3FF)),
                    _ => return Err(self.fail(LONELY)),
                }
            }
            code => code,
        };
        let character = char::from_u32(code).ok_or_else(|| self.fail(LONELY))?;
        self.text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(next)
    }

    fn hex_digits(&mut self, at: usize) -> Result<u32, JsonError> {
        let mut value = 0;
        for offset in at..at + 4 {
            let Some(byte) = self.peek(offset) else {
                return Err(self.invalid_token(offset));
            };
            let Some(digit) = char::from(byte).to_digit(16) else {
                return Err(self.fail("\"\\u\" must be followed by four hexadecimal digits."));
            };
            value = value << 4 | digit;
        }
        Ok(value)
    }
}

/// `JSON_ALPHANUMERIC_CHAR`.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}
