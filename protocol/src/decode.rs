//! A cursor over a message body whose every step is checked.

use bytes::{Buf, Bytes};

/// A message that does not have the shape its tag promises.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {message} message at byte {offset}: {problem}")]
pub struct MessageError {
    /// The message's name in PostgreSQL's protocol documentation.
    pub message: &'static str,
    /// The offset in the body.
    pub offset: usize,
    /// What is wrong there.
    pub problem: &'static str,
}

/// Reads fields off the front of a body.
#[derive(Debug)]
pub(crate) struct Fields {
    message: &'static str,
    rest: Bytes,
    length: usize,
}

impl Fields {
    pub(crate) fn new(message: &'static str, body: Bytes) -> Self {
        let length = body.len();
        Self { message, rest: body, length }
    }

    /// An error at the present offset.
    pub(crate) fn error(&self, problem: &'static str) -> MessageError {
        MessageError { message: self.message, offset: self.length - self.rest.len(), problem }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<Bytes, MessageError> {
        if self.rest.len() < count {
            return Err(self.error("the message ends too early"));
        }
        Ok(self.rest.split_to(count))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, MessageError> {
        self.rest.try_get_u8().map_err(|_| self.error("the message ends too early"))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, MessageError> {
        self.rest.try_get_u16().map_err(|_| self.error("the message ends too early"))
    }

    pub(crate) fn i16(&mut self) -> Result<i16, MessageError> {
        self.rest.try_get_i16().map_err(|_| self.error("the message ends too early"))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, MessageError> {
        self.rest.try_get_i32().map_err(|_| self.error("the message ends too early"))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, MessageError> {
        self.rest.try_get_u32().map_err(|_| self.error("the message ends too early"))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, MessageError> {
        self.rest.try_get_u64().map_err(|_| self.error("the message ends too early"))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, MessageError> {
        self.rest.try_get_i64().map_err(|_| self.error("the message ends too early"))
    }

    /// The bytes before the next NUL, which is consumed.
    pub(crate) fn c_string(&mut self) -> Result<Bytes, MessageError> {
        let end = self.rest.iter().position(|byte| *byte == 0);
        let end = end.ok_or_else(|| self.error("a string has no terminating zero byte"))?;
        let text = self.rest.split_to(end);
        self.rest.advance(1);
        Ok(text)
    }

    /// The text before the next NUL. What is not UTF-8 is replaced: texts are shown to people, never used as names of files.
    pub(crate) fn text(&mut self) -> Result<String, MessageError> {
        Ok(String::from_utf8_lossy(&self.c_string()?).into_owned())
    }

    /// Everything that is left.
    pub(crate) fn remainder(&mut self) -> Bytes {
        self.rest.split_off(0)
    }

    /// Requires that nothing is left.
    pub(crate) fn end(&self) -> Result<(), MessageError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error("unexpected bytes at the end of the message")) }
    }
}
