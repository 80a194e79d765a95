//! Messages of servers, taken apart without the code under test.

/// A message as labelled texts, in the order of the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) tag: u8,
    /// None is NULL.
    pub(crate) fields: Vec<(String, Option<String>)>,
}

impl Message {
    /// The first field of this label, unless it is NULL.
    pub(crate) fn field(&self, label: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == label).and_then(|(_, value)| value.as_deref())
    }
}

/// Takes messages apart. It remembers the columns that RowDescription named.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decoder {
    columns: Vec<String>,
}

/// What is left of a message's body. A read beyond its end gives zeros and is reported as a field of its own.
struct Body<'a> {
    rest: &'a [u8],
    short: bool,
}

impl<'a> Body<'a> {
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            self.short = true;
            self.rest = &[];
            return &[];
        };
        self.rest = rest;
        taken
    }

    fn number(&mut self, size: usize) -> u64 {
        self.bytes(size).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn signed(&mut self, size: u32) -> i64 {
        let number = self.number(size as usize).cast_signed();
        let limit = 1_i64 << (8 * size - 1);
        if number >= limit { number - 2 * limit } else { number }
    }

    fn c_string(&mut self) -> String {
        let length = self.rest.iter().position(|byte| *byte == 0);
        let text = self.bytes(length.unwrap_or(self.rest.len()));
        if length.is_some() {
            self.bytes(1)
        } else {
            &[]
        };
        String::from_utf8_lossy(text).into_owned()
    }
}

impl Decoder {
    /// Takes a message apart.
    pub(crate) fn decode(&mut self, tag: u8, body: &[u8]) -> Message {
        let mut body = Body { rest: body, short: false };
        let mut fields: Vec<(String, Option<String>)> = Vec::new();
        let mut put = |label: &str, value: String| fields.push((label.to_owned(), Some(value)));
        match tag {
            b'R' => {
                let kind = body.number(4);
                put("authentication", kind.to_string());
                match kind {
                    5 => put("salt", body.number(4).to_string()),
                    10 => loop {
                        match body.c_string() {
                            end if end.is_empty() => break,
                            mechanism => put("mechanism", mechanism),
                        }
                    },
                    _ => {
                        let data = body.bytes(body.rest.len());
                        put("data", String::from_utf8_lossy(data).into_owned());
                    }
                }
            }
            b'S' => {
                put("name", body.c_string());
                put("value", body.c_string());
            }
            b'K' => {
                put("pid", body.number(4).to_string());
                put("key", "*".repeat(body.bytes(body.rest.len()).len()));
            }
            b'Z' => put("status", String::from_utf8_lossy(body.bytes(1)).into_owned()),
            b'C' => put("tag", body.c_string()),
            b'E' | b'N' => loop {
                match body.number(1) {
                    0 => break,
                    kind => {
                        let label = char::from(u8::try_from(kind).unwrap_or(b'?')).to_string();
                        put(&label, body.c_string());
                    }
                }
            },
            b'T' => {
                self.columns.clear();
                for _ in 0..body.number(2) {
                    let name = body.c_string();
                    let (table, attribute) = (body.number(4), body.number(2));
                    let (type_oid, length, modifier) = (body.number(4), body.signed(2), body.signed(4));
                    let format = body.number(2);
                    let place = format!("table {table}.{attribute}");
                    put(&name, format!("{place} type {type_oid} length {length} modifier {modifier} format {format}"));
                    self.columns.push(name);
                }
            }
            b'D' => {
                let count = usize::try_from(body.number(2)).unwrap_or_default();
                for column in 0..count {
                    let label = self.columns.get(column).map_or("?", String::as_str).to_owned();
                    let value = match usize::try_from(body.signed(4)) {
                        Ok(length) => Some(String::from_utf8_lossy(body.bytes(length)).into_owned()),
                        Err(_) => None,
                    };
                    fields.push((label, value));
                }
            }
            b'H' | b'W' | b'G' => {
                put("format", body.number(1).to_string());
                for _ in 0..body.number(2) {
                    put("column", body.number(2).to_string());
                }
            }
            b'v' => {
                let newest = body.number(4);
                put("newest", format!("{}.{}", newest >> 16, newest & 0xFFFF));
                for _ in 0..body.number(4) {
                    put("unrecognized", body.c_string());
                }
            }
            b'd' => {
                put("kind", char::from(u8::try_from(body.number(1)).unwrap_or(b'?')).to_string());
                while !body.rest.is_empty() {
                    put("text", body.c_string());
                }
            }
            _ => {}
        }
        let rest = body.rest.len();
        if rest > 0 || body.short {
            fields.push(("bytes left over".to_owned(), Some(format!("{rest}"))));
        }
        Message { tag, fields }
    }
}

impl std::fmt::Display for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", name(self.tag))?;
        for (label, value) in &self.fields {
            match value {
                Some(value) => write!(f, "\n      {label} = {value}")?,
                None => write!(f, "\n      {label} is NULL")?,
            }
        }
        Ok(())
    }
}

/// A message's name in PostgreSQL's documentation.
pub(crate) fn name(tag: u8) -> &'static str {
    match tag {
        b'R' => "Authentication",
        b'S' => "ParameterStatus",
        b'K' => "BackendKeyData",
        b'Z' => "ReadyForQuery",
        b'T' => "RowDescription",
        b'D' => "DataRow",
        b'C' => "CommandComplete",
        b'I' => "EmptyQueryResponse",
        b'E' => "ErrorResponse",
        b'N' => "NoticeResponse",
        b'G' => "CopyInResponse",
        b'H' => "CopyOutResponse",
        b'W' => "CopyBothResponse",
        b'd' => "CopyData",
        b'c' => "CopyDone",
        b'v' => "NegotiateProtocolVersion",
        _ => "unknown message",
    }
}
