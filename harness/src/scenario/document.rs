//! The text of a scenario file, and where everything in it stands.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::explain;
use super::way::{Step, Way};

/// A file larger than this is no scenario.
pub const MAX_FILE: u64 = 1 << 20;

/// The text of a scenario file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// The path as it was found.
    pub path: PathBuf,
    /// The whole text.
    pub text: Arc<str>,
}

/// Something wrong in a scenario file: what, where, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{}:{}: {message}", file.path.display(), self.line(), self.column())]
pub struct ScenarioError {
    file: SourceFile,
    /// Bytes of the text, never beyond its end.
    span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it, if that is known: `did you mean "stream"?`
    pub help: Option<String>,
}

impl ScenarioError {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// The line of the error, from 1.
    pub fn line(&self) -> usize {
        self.before().matches('\n').count() + 1
    }

    /// The column of the error in characters, from 1.
    pub fn column(&self) -> usize {
        self.before().rsplit('\n').next().unwrap_or_default().chars().count() + 1
    }

    /// The error with an excerpt of the file, for people.
    pub fn draw(&self, colour: bool) -> String {
        let theme = if colour { miette::GraphicalTheme::unicode() } else { miette::GraphicalTheme::unicode_nocolor() };
        let handler =
            miette::GraphicalReportHandler::new_themed(theme).with_wrap_lines(false).without_syntax_highlighting();
        let mut drawn = String::new();
        // Only a writer can fail here, and a String does not.
        if handler.with_context_lines(1).render_report(&mut drawn, &Drawn(self)).is_err() {
            return self.to_string();
        }
        drawn
    }

    /// The same error, which only one combination of a matrix has.
    #[must_use]
    pub(super) fn in_combination(mut self, combination: &[(String, String)]) -> Self {
        if self.help.is_none() && !combination.is_empty() {
            let pairs: Vec<String> = combination.iter().map(|(key, value)| format!("{key}={value}")).collect();
            self.help = Some(format!("this is the combination {}", pairs.join(",")));
        }
        self
    }

    fn before(&self) -> &str {
        self.file.text.get(..self.span.start).unwrap_or_default()
    }
}

/// The error as miette draws it: the place stands beside the excerpt, so that the text need not have it.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message)]
struct Drawn<'a>(&'a ScenarioError);

impl miette::Diagnostic for Drawn<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.0.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.0.file)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        let label = miette::LabeledSpan::new_primary_with_span(None, self.0.span.clone());
        Some(Box::new(std::iter::once(label)))
    }
}

impl miette::SourceCode for SourceFile {
    fn read_span<'a>(
        &'a self,
        span: &miette::SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn miette::SpanContents<'a> + 'a>, miette::MietteError> {
        let inner = self.text.as_ref().read_span(span, lines_before, lines_after)?;
        let name = self.path.display().to_string();
        let named = miette::MietteSpanContents::new_named(
            name,
            inner.data(),
            *inner.span(),
            inner.line(),
            inner.column(),
            inner.line_count(),
        );
        Ok(Box::new(named))
    }
}

/// A TOML document that knows the position of every key and value.
#[derive(Clone, Debug)]
pub struct Document<'i> {
    /// Where the text comes from.
    pub file: &'i SourceFile,
    /// The keys and values.
    pub root: DeTable<'i>,
}

impl<'i> Document<'i> {
    /// Reads the syntax of `file`.
    pub fn parse(file: &'i SourceFile) -> Result<Self, ScenarioError> {
        match DeTable::parse(&file.text) {
            Ok(root) => Ok(Self { root: root.into_inner(), file }),
            Err(error) => {
                let (message, help) = explain::syntax(error.message());
                Err(file.error(error.span().unwrap_or_default(), message, help))
            }
        }
    }

    /// Reads the document as a `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ScenarioError> {
        let span = 0..self.file.text.len();
        T::deserialize(toml::Deserializer::from(Spanned::new(span, self.root.clone())))
            .map_err(|error| self.explain(&error))
    }

    /// Reads the value at the end of `way` as a `T`.
    pub fn read_at<T: DeserializeOwned>(&self, way: &Way) -> Result<Option<T>, ScenarioError> {
        let Some(found) = self.find(way) else { return Ok(None) };
        let value = found.value.clone();
        T::deserialize(toml::de::ValueDeserializer::from(value)).map(Some).map_err(|error| self.explain(&error))
    }

    fn explain(&self, error: &toml::de::Error) -> ScenarioError {
        let span = error.span().unwrap_or_default();
        let problem = explain::content(error.message(), &self.way_to(&span));
        // A key that is missing from the whole file has no place: the first line has to do.
        let whole = span == (0..self.file.text.len());
        let span = if whole { 0..0 } else { span };
        self.file.error(span, problem.0, problem.1)
    }

    /// An error about the value at the end of `way`, or about the nearest thing on the way that there is.
    pub fn error_at(&self, way: &Way, part: Part, message: String, help: Option<String>) -> ScenarioError {
        let span = (0..=way.0.len()).rev().find_map(|length| {
            let found = self.find(&Way(way.0.get(..length)?.to_vec()))?;
            Some(match (part, &found.key) {
                (Part::Key, Some(key)) if length == way.0.len() => key.clone(),
                _ => found.value.span(),
            })
        });
        self.file.error(span.unwrap_or_default(), message, help)
    }

    /// Whether there is something at the end of `way`.
    pub fn has(&self, way: &Way) -> bool {
        self.find(way).is_some()
    }

    fn find(&self, way: &Way) -> Option<Found<'_, 'i>> {
        let (first, rest) = way.0.split_first()?;
        let Step::Key(first) = first else { return None };
        let (key, value) = self.root.get_key_value(first.as_str())?;
        let mut found = Found { key: Some(key.span()), value };
        for step in rest {
            found = match (step, found.value.get_ref()) {
                (Step::Key(name), DeValue::Table(table)) => {
                    let (key, value) = table.get_key_value(name.as_str())?;
                    Found { key: Some(key.span()), value }
                }
                (Step::Index(index), DeValue::Array(array)) => Found { key: None, value: array.get(*index)? },
                _ => return None,
            };
        }
        Some(found)
    }

    /// The way to the key or value at exactly these bytes, or to the innermost value that holds them.
    fn way_to(&self, span: &Range<usize>) -> Way {
        let mut way = Way::new();
        let mut table = &self.root;
        'table: loop {
            for (key, value) in table {
                if key.span() == *span || value.span() == *span {
                    return way.to(key.get_ref().as_ref());
                }
            }
            for (key, value) in table {
                match value.get_ref() {
                    DeValue::Table(inner) if holds(inner, span) => {
                        way = way.to(key.get_ref().as_ref());
                        table = inner;
                        continue 'table;
                    }
                    DeValue::Array(array) => {
                        for (index, element) in array.iter().enumerate() {
                            if element.span() == *span {
                                return way.to(key.get_ref().as_ref()).to(index);
                            }
                            if let DeValue::Table(inner) = element.get_ref()
                                && holds(inner, span)
                            {
                                way = way.to(key.get_ref().as_ref()).to(index);
                                table = inner;
                                continue 'table;
                            }
                        }
                    }
                    _ => {}
                }
            }
            return way;
        }
    }
}

struct Found<'a, 'i> {
    key: Option<Range<usize>>,
    value: &'a Spanned<DeValue<'i>>,
}

/// Whether a key or value somewhere in `table` stands at exactly these bytes. Tables with a header have the span of the
/// header only, so that spans do not nest and have to be searched.
fn holds(table: &DeTable<'_>, span: &Range<usize>) -> bool {
    table.iter().any(|(key, value)| key.span() == *span || value_holds(value, span))
}

fn value_holds(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    value.span() == *span
        || match value.get_ref() {
            DeValue::Table(table) => holds(table, span),
            DeValue::Array(array) => array.iter().any(|element| value_holds(element, span)),
            _ => false,
        }
}

/// What of a key and its value an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The key: it should not be there.
    Key,
    /// The value.
    Value,
}

impl SourceFile {
    /// An error about these bytes of the text.
    pub(super) fn error(&self, span: Range<usize>, message: String, help: Option<String>) -> ScenarioError {
        let end = self.text.len();
        // Tables with a header and multi-line values end somewhere below: their first line says enough.
        let start = span.start.min(end);
        let rest = self.text.get(start..span.end.min(end)).unwrap_or_default();
        let length = rest.find('\n').unwrap_or(rest.len());
        ScenarioError { file: self.clone(), span: start..start + length, message, help }
    }
}
