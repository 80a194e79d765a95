//! What is printed of a message.

use std::io::{self, Write};
use std::time::Duration;

use super::From;

/// What is shown of a text at most, in characters.
const LONGEST: usize = 400;

/// One message, or a remark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Since the beginning of the capture, where that is known.
    pub at: Option<Duration>,
    /// Who sent it; nobody sends a remark.
    pub from: Option<From>,
    /// The byte of its direction at which it begins.
    pub offset: u64,
    /// The type byte, if it has one.
    pub tag: Option<u8>,
    /// Its length in bytes, with everything.
    pub length: u64,
    /// Its name in PostgreSQL's protocol documentation.
    pub name: String,
    /// What it says.
    pub detail: String,
    /// What is inside, a line each.
    pub inside: Vec<String>,
}

impl Line {
    /// Something that is said about a direction, at a byte of it.
    pub fn remark(at: Option<Duration>, from: Option<From>, offset: u64, text: String) -> Self {
        Self { at, from, offset, tag: None, length: 0, name: String::new(), detail: text, inside: Vec::new() }
    }

    /// Writes the line, and what is inside below it.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write(&self, number: u32, out: &mut impl Write) -> io::Result<()> {
        let time = self.at.map_or_else(|| format!("{:>9}", "-"), |at| format!("{:>9.3}", at.as_secs_f64()));
        let sign = match (self.from, self.name.as_str()) {
            (_, "") | (None, _) => '!',
            (Some(From::Client), _) => '<',
            (Some(From::Server), _) => '>',
        };
        write!(out, "{time} #{number} {sign} {:>9}", self.offset)?;
        if self.name.is_empty() {
            return writeln!(out, "   {}", visible(&self.detail));
        }
        let tag = self.tag.map_or(' ', |tag| if tag.is_ascii_graphic() { char::from(tag) } else { '?' });
        write!(out, " {tag} {:>6} {}", self.length, self.name)?;
        if !self.detail.is_empty() {
            write!(out, " {}", visible(&self.detail))?;
        }
        writeln!(out)?;
        self.inside.iter().try_for_each(|line| writeln!(out, "{:36}{}", "", visible(line)))
    }
}

/// A text in one line of bearable length that does not steer a terminal.
fn visible(text: &str) -> String {
    let shown: String = text.chars().take(LONGEST).map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect();
    let more = text.chars().skip(LONGEST).count();
    if more > 0 {
        return format!("{shown}… ({more} more characters)");
    }
    shown
}
