//! The statements of this server, and how they are written.

use super::Unsupported;
use super::lexer::{Kind, Token, tokens};
use super::whole::Whole;

/// `MaxTupleAttributeNumber`: how many targets a SELECT may have.
const TARGETS: usize = 1664;

/// `FUNC_MAX_ARGS`
const ARGUMENTS: usize = 100;

/// How deep expressions may nest.
const DEPTH: u32 = 16;

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    Select(Select),
    /// One that is known as a whole.
    Whole(Whole),
    Show(String),
    /// SET; None is DEFAULT.
    Set(String, Option<String>),
    Reset(String),
    Checkpoint,
    /// BEGIN or START TRANSACTION, which differ in what CommandComplete says.
    Begin(&'static str),
    /// COMMIT or END.
    Commit,
    /// ROLLBACK or ABORT.
    Rollback,
}

/// `SELECT targets [FROM source [WHERE column = value]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Select {
    pub(super) targets: Vec<Target>,
    pub(super) source: Option<Source>,
    pub(super) filter: Option<(Expression, Expression)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `*`, and the byte at which it stands.
    All(usize),
    /// `(function(…)).*`
    Fields(Expression),
    Value {
        value: Expression,
        name: Option<String>,
    },
}

/// What stands behind FROM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// A call, or a column's name for the name of a view.
    pub(super) from: Expression,
    /// `AS name`
    pub(super) name: Option<String>,
    /// `AS name(columns)`
    pub(super) columns: Vec<String>,
}

/// An expression, and the byte at which it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expression {
    pub(super) node: Node,
    pub(super) at: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    Parameter(u16),
    Column(String),
    Call {
        function: String,
        arguments: Vec<(Option<String>, Expression)>,
    },
    Cast(Box<Expression>, String),
    /// `(record).field`
    Field(Box<Expression>, String),
}

/// Reads statements, which semicolons part. Empty ones are left out.
pub(super) fn parse(text: &str) -> Result<Vec<Statement>, Unsupported> {
    if let Some(whole) = Whole::find(text) {
        return Ok(vec![Statement::Whole(whole)]);
    }
    let tokens = tokens(text)?;
    let parts = tokens.split(|token| token.kind == Kind::Symbol(";")).filter(|part| !part.is_empty());
    parts.map(|part| Parser { rest: part }.statement()).collect()
}

fn require(found: bool) -> Result<(), Unsupported> {
    if found { Ok(()) } else { Err(Unsupported) }
}

/// What is left of a statement.
struct Parser<'a> {
    rest: &'a [Token],
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Kind> {
        self.rest.first().map(|token| &token.kind)
    }

    fn next(&mut self) -> Result<&'a Token, Unsupported> {
        let (first, rest) = self.rest.split_first().ok_or(Unsupported)?;
        self.rest = rest;
        Ok(first)
    }

    fn take(&mut self, wanted: &Kind) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        found
    }

    fn symbol(&mut self, symbol: &'static str) -> bool {
        self.take(&Kind::Symbol(symbol))
    }

    fn word(&mut self, word: &str) -> bool {
        matches!(self.peek(), Some(Kind::Word(found)) if found == word) && self.next().is_ok()
    }

    fn name(&mut self) -> Result<String, Unsupported> {
        match &self.next()?.kind {
            Kind::Word(name) | Kind::Quoted(name) => Ok(name.clone()),
            _ => Err(Unsupported),
        }
    }

    fn statement(&mut self) -> Result<Statement, Unsupported> {
        let Kind::Word(first) = &self.next()?.kind else { return Err(Unsupported) };
        let statement = match first.as_str() {
            "select" => Statement::Select(self.select()?),
            "show" => Statement::Show(self.setting()?),
            "set" => {
                self.word("session");
                let name = self.setting()?;
                let assigned = self.symbol("=") || self.word("to");
                require(assigned)?;
                Statement::Set(name, self.setting_value()?)
            }
            "reset" => Statement::Reset(self.setting()?),
            "checkpoint" => Statement::Checkpoint,
            "begin" => {
                self.transaction_word();
                self.modes()?;
                Statement::Begin("BEGIN")
            }
            "start" => {
                let whole = self.word("transaction");
                require(whole)?;
                self.modes()?;
                Statement::Begin("START TRANSACTION")
            }
            "commit" | "end" => {
                self.transaction_word();
                Statement::Commit
            }
            "rollback" | "abort" => {
                self.transaction_word();
                Statement::Rollback
            }
            _ => return Err(Unsupported),
        };
        require(self.rest.is_empty())?;
        Ok(statement)
    }

    fn transaction_word(&mut self) {
        let _ = self.word("transaction") || self.word("work");
    }

    /// `ISOLATION LEVEL …`, `READ ONLY`: without tables, they change nothing.
    fn modes(&mut self) -> Result<(), Unsupported> {
        while let Some(kind) = self.peek() {
            let known = match kind {
                Kind::Symbol(",") => true,
                Kind::Word(word) => ["isolation", "level", "read", "write", "only", "committed", "uncommitted"]
                    .into_iter()
                    .chain(["repeatable", "serializable", "deferrable", "not"])
                    .any(|mode| mode == word),
                _ => false,
            };
            require(known)?;
            self.next()?;
        }
        Ok(())
    }

    /// A setting's name, whose parts dots join.
    fn setting(&mut self) -> Result<String, Unsupported> {
        let mut name = self.name()?;
        while self.symbol(".") {
            name = format!("{name}.{}", self.name()?);
        }
        Ok(name)
    }

    /// Values, which commas join; None is DEFAULT.
    fn setting_value(&mut self) -> Result<Option<String>, Unsupported> {
        if self.word("default") {
            return Ok(None);
        }
        let mut values = Vec::new();
        loop {
            match &self.next()?.kind {
                Kind::Word(value) | Kind::Quoted(value) | Kind::Text(value) | Kind::Number(value) => {
                    values.push(value.clone());
                }
                Kind::Parameter(_) | Kind::Symbol(_) => return Err(Unsupported),
            }
            if !self.symbol(",") {
                return Ok(Some(values.join(", ")));
            }
        }
    }

    fn select(&mut self) -> Result<Select, Unsupported> {
        let mut targets = Vec::new();
        loop {
            require(targets.len() < TARGETS)?;
            targets.push(self.target()?);
            if !self.symbol(",") {
                break;
            }
        }
        let source = if self.word("from") { Some(self.source()?) } else { None };
        let filter = if source.is_some() && self.word("where") {
            let left = self.expression(DEPTH)?;
            let equals = self.symbol("=");
            require(equals)?;
            Some((left, self.expression(DEPTH)?))
        } else {
            None
        };
        Ok(Select { targets, source, filter })
    }

    fn target(&mut self) -> Result<Target, Unsupported> {
        let at = self.rest.first().map_or(0, |token| token.at);
        if self.symbol("*") {
            return Ok(Target::All(at));
        }
        let value = self.expression(DEPTH)?;
        if self.symbol(".") {
            let all = self.symbol("*");
            require(all)?;
            return Ok(Target::Fields(value));
        }
        let name = if self.word("as") {
            Some(self.name()?)
        } else {
            match self.peek() {
                Some(Kind::Word(word)) if word != "from" => Some(self.name()?),
                Some(Kind::Quoted(_)) => Some(self.name()?),
                _ => None,
            }
        };
        Ok(Target::Value { value, name })
    }

    fn source(&mut self) -> Result<Source, Unsupported> {
        let from = self.primary(DEPTH)?;
        let mut source = Source { from, name: None, columns: Vec::new() };
        let named = self.word("as") || matches!(self.peek(), Some(Kind::Word(word)) if word != "where");
        if named {
            source.name = Some(self.name()?);
            if self.symbol("(") {
                loop {
                    require(source.columns.len() < TARGETS)?;
                    source.columns.push(self.name()?);
                    if !self.symbol(",") {
                        break;
                    }
                }
                let closed = self.symbol(")");
                require(closed)?;
            }
        }
        Ok(source)
    }

    /// A primary and what is put behind it: `::type`, `.field`.
    fn expression(&mut self, depth: u32) -> Result<Expression, Unsupported> {
        let mut value = self.primary(depth)?;
        for _ in 0..DEPTH {
            let at = value.at;
            if self.symbol("::") {
                let mut ty = self.name()?;
                if ty == "pg_catalog" && self.symbol(".") {
                    ty = self.name()?;
                }
                value = Expression { node: Node::Cast(Box::new(value), ty), at };
            } else if matches!(self.rest, [dot, name, ..] if dot.kind == Kind::Symbol(".") && name.kind != Kind::Symbol("*"))
            {
                self.next()?;
                value = Expression { node: Node::Field(Box::new(value), self.name()?), at };
            } else {
                return Ok(value);
            }
        }
        Err(Unsupported)
    }

    fn primary(&mut self, depth: u32) -> Result<Expression, Unsupported> {
        let depth = depth.checked_sub(1).ok_or(Unsupported)?;
        let Token { kind, at } = self.next()?;
        let node = match kind {
            Kind::Text(text) => Node::Text(text.clone()),
            Kind::Number(digits) => Node::Number(digits.clone()),
            Kind::Parameter(number) => Node::Parameter(*number),
            Kind::Symbol("(") => {
                let inside = self.expression(depth)?;
                let closed = self.symbol(")");
                require(closed)?;
                return Ok(inside);
            }
            Kind::Symbol(_) => return Err(Unsupported),
            Kind::Word(word) if word == "null" => Node::Null,
            Kind::Word(word) if word == "true" => Node::Bool(true),
            Kind::Word(word) if word == "false" => Node::Bool(false),
            Kind::Word(word) | Kind::Quoted(word) => {
                let mut name = word.clone();
                if name == "pg_catalog" && self.symbol(".") {
                    name = self.name()?;
                }
                if self.symbol("(") {
                    Node::Call { function: name, arguments: self.arguments(depth)? }
                } else {
                    // What begins another kind of expression is no column.
                    let keyword = matches!(kind, Kind::Word(_))
                        && ["array", "case", "cast", "distinct", "exists", "not", "select"].contains(&name.as_str());
                    require(!keyword)?;
                    Node::Column(name)
                }
            }
        };
        Ok(Expression { node, at: *at })
    }

    fn arguments(&mut self, depth: u32) -> Result<Vec<(Option<String>, Expression)>, Unsupported> {
        let mut arguments = Vec::new();
        if self.symbol(")") {
            return Ok(arguments);
        }
        loop {
            let arrow = self.rest.get(1).map(|token| &token.kind);
            let named = arrow.is_some_and(|kind| [Kind::Symbol("=>"), Kind::Symbol(":=")].contains(kind));
            let name = if named {
                let name = self.name()?;
                self.next()?;
                Some(name)
            } else {
                None
            };
            require(arguments.len() < ARGUMENTS)?;
            arguments.push((name, self.expression(depth)?));
            if self.symbol(")") {
                return Ok(arguments);
            }
            let goes_on = self.symbol(",");
            require(goes_on)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_tools_send() {
        for text in [
            "SELECT pg_catalog.set_config('search_path', '', false);",
            "select lsn::text as lsn, pg_catalog.pg_walfile_name(lsn)::text as wal_segment_name from \
             pg_catalog.pg_start_backup('pgBackRest backup', true, false) as lsn",
            "SELECT labelfile, spcmapfile, lsn FROM pg_stop_backup(false)",
            "SELECT slot_name, restart_lsn FROM pg_replication_slots WHERE slot_name = 's1'",
            "SELECT (pg_walfile_name_offset(pg_current_wal_lsn())).*",
            "SELECT file_name FROM pg_walfile_name_offset('0/1') AS t(file_name, x)",
            "SELECT pg_backup_start(label => 'x', fast := true)",
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            "SET SESSION statement_timeout TO 0",
            "SET search_path = a, 'b'",
            "SHOW a.b",
        ] {
            assert_eq!(parse(text).map(|statements| statements.len()), Ok(1), "{text}");
        }
        assert_eq!(parse(" ; ;"), Ok(vec![]));
        assert_eq!(parse("SELECT 1; SELECT 2").map(|statements| statements.len()), Ok(2));
        for text in [
            "INSERT INTO t VALUES (1)",
            "SELECT",
            "SELECT 1 FROM a, b",
            "SELECT 1 + 1",
            "SELECT CASE WHEN true THEN 1 END",
            "SELECT (SELECT 1)",
            "SELECT f(",
            "SET LOCAL a = 1",
            "SELECT 1 WHERE 1 = 1",
            "CHECKPOINT now",
        ] {
            assert_eq!(parse(text), Err(Unsupported), "{text}");
        }
        assert_eq!(parse(&format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000))), Err(Unsupported));
        assert_eq!(parse(&format!("SELECT 1{}", "::text".repeat(10_000))), Err(Unsupported));
        assert_eq!(parse(&format!("SELECT 1{}", ", 1".repeat(TARGETS))), Err(Unsupported));
        assert_eq!(parse(&format!("SELECT f(1{})", ", 1".repeat(ARGUMENTS))), Err(Unsupported));
    }

    proptest! {
        #[test]
        fn any_statement_is_safe(words in proptest::collection::vec(
            prop_oneof!["[ -~]", Just("SELECT".to_owned()), Just("FROM".to_owned()), Just("f(".to_owned()), Just("'x'".to_owned())],
            0..30,
        )) {
            let _ = parse(&words.join(" "));
        }
    }
}
