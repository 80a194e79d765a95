//! The grammar: `repl_gram.y` of all releases.

use super::lexer::{Lexer, Token};
use super::{
    Command, CommandError, CommandOption, CreateSlot, MAX_COMMAND, OptionValue, Parsed, SlotKind, StartKind,
    StartReplication, SyntaxError, keyword,
};
use crate::lsn::Lsn;
use crate::timeline::TimelineId;
use crate::version::{Flavour, ServerVersion};

/// Reads `text` as a walsender of `version` does.
///
/// # Errors
/// [`CommandError::NotReplication`] for text that does not begin with a command of that release, if the release runs SQL
/// on walsender connections; [`CommandError::Syntax`] for everything else that is wrong.
pub fn parse(text: &str, version: ServerVersion) -> Result<Parsed, CommandError> {
    parse_as(text, version, Flavour::Stock)
}

/// Reads `text` as a walsender of `version` does that is built from the sources of `flavour`: see [`parse`].
///
/// # Errors
/// Those of [`parse`].
pub fn parse_as(text: &str, version: ServerVersion, flavour: Flavour) -> Result<Parsed, CommandError> {
    let mut parser = Parser { lexer: Lexer::new(text, version, flavour), version, at: 0, token: None };
    parser.advance()?;
    let begins = matches!(parser.token, Some(Token::Keyword(word)) if keyword::begins_command(word, version));
    if !begins && version.walsender_runs_sql() {
        return Err(CommandError::NotReplication);
    }
    if text.len() > MAX_COMMAND {
        let message = format!("replication command is too long (max {MAX_COMMAND} bytes)");
        return Err(SyntaxError { message, at: MAX_COMMAND }.into());
    }
    let command = parser.command()?;
    if parser.token == Some(Token::Symbol(';')) {
        parser.advance()?;
    }
    if parser.token.is_some() {
        return Err(parser.error().into());
    }
    Ok(Parsed { command, notices: parser.lexer.notices })
}

/// One token of lookahead over the lexer.
struct Parser<'a> {
    lexer: Lexer<'a>,
    version: ServerVersion,
    /// Where `token` begins.
    at: usize,
    token: Option<Token>,
}

impl Parser<'_> {
    fn advance(&mut self) -> Result<Option<Token>, SyntaxError> {
        let (at, token) = self.lexer.next()?;
        self.at = at;
        Ok(std::mem::replace(&mut self.token, token))
    }

    fn error(&self) -> SyntaxError {
        SyntaxError { message: "syntax error".to_owned(), at: self.at }
    }

    /// Passes over the next token if it is this keyword.
    fn keyword(&mut self, word: &str) -> Result<bool, SyntaxError> {
        let found = matches!(self.token, Some(Token::Keyword(found)) if found == word);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    /// Passes over the next token if it is this character.
    fn symbol(&mut self, symbol: char) -> Result<bool, SyntaxError> {
        let found = self.token == Some(Token::Symbol(symbol));
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect_symbol(&mut self, symbol: char) -> Result<(), SyntaxError> {
        if self.symbol(symbol)? { Ok(()) } else { Err(self.error()) }
    }

    fn identifier(&mut self) -> Result<String, SyntaxError> {
        let wrong = self.error();
        match self.token.take() {
            Some(Token::Identifier(name)) => {
                self.advance()?;
                Ok(name)
            }
            _ => Err(wrong),
        }
    }

    fn text(&mut self) -> Result<String, SyntaxError> {
        let wrong = self.error();
        match self.token.take() {
            Some(Token::Text(text)) => {
                self.advance()?;
                Ok(text)
            }
            _ => Err(wrong),
        }
    }

    fn number(&mut self) -> Result<u32, SyntaxError> {
        let Some(Token::Number(number)) = self.token else { return Err(self.error()) };
        self.advance()?;
        Ok(number)
    }

    fn position(&mut self) -> Result<Lsn, SyntaxError> {
        let Some(Token::Position(position)) = self.token else { return Err(self.error()) };
        self.advance()?;
        Ok(position)
    }

    fn timeline(&mut self) -> Result<u32, SyntaxError> {
        let at = self.at;
        match self.number()? {
            0 => Err(SyntaxError { message: "invalid timeline 0".to_owned(), at }),
            timeline => Ok(timeline),
        }
    }

    /// `var_name`: identifiers with dots between them.
    fn dotted_name(&mut self) -> Result<String, SyntaxError> {
        let mut name = self.identifier()?;
        while self.symbol('.')? {
            name.push('.');
            name.push_str(&self.identifier()?);
        }
        Ok(name)
    }

    fn command(&mut self) -> Result<Command, SyntaxError> {
        let wrong = self.error();
        let Some(Token::Keyword(word)) = self.token else { return Err(wrong) };
        if !keyword::begins_command(word, self.version) {
            return Err(wrong);
        }
        self.advance()?;
        match word {
            "IDENTIFY_SYSTEM" => Ok(Command::IdentifySystem),
            "UPLOAD_MANIFEST" => Ok(Command::UploadManifest),
            "SHOW" => Ok(Command::Show(self.dotted_name()?)),
            "READ_REPLICATION_SLOT" => Ok(Command::ReadReplicationSlot(self.dotted_name()?)),
            "TIMELINE_HISTORY" => Ok(Command::TimelineHistory(self.timeline()?)),
            "BASE_BACKUP" => Ok(Command::BaseBackup(self.base_backup_options()?)),
            "CREATE_REPLICATION_SLOT" => Ok(Command::CreateReplicationSlot(self.create_slot()?)),
            "DROP_REPLICATION_SLOT" => {
                Ok(Command::DropReplicationSlot { slot: self.identifier()?, wait: self.keyword("WAIT")? })
            }
            "ALTER_REPLICATION_SLOT" => {
                Ok(Command::AlterReplicationSlot { slot: self.identifier()?, options: self.option_list()? })
            }
            "START_REPLICATION" => Ok(Command::StartReplication(self.start_replication()?)),
            _ => Err(wrong),
        }
    }

    fn base_backup_options(&mut self) -> Result<Vec<CommandOption>, SyntaxError> {
        if self.version.has_option_lists() {
            return if self.token == Some(Token::Symbol('(')) { self.option_list() } else { Ok(Vec::new()) };
        }
        let mut options = Vec::new();
        while let Some(Token::Keyword(word)) = self.token {
            if keyword::begins_command(word, self.version) {
                return Err(self.error());
            }
            let wrong = self.error();
            self.advance()?;
            let value = match word {
                "INCREMENTAL" | "LABEL" | "MANIFEST" | "MANIFEST_CHECKSUMS" => Some(OptionValue::Text(self.text()?)),
                "MAX_RATE" => Some(OptionValue::Integer(self.number()?)),
                "FAST" | "NOVERIFY_CHECKSUMS" | "NOWAIT" | "PROGRESS" | "TABLESPACE_MAP" | "WAL" => None,
                _ => return Err(wrong),
            };
            options.push(CommandOption { name: word.to_ascii_lowercase(), value });
        }
        Ok(options)
    }

    /// `'(' generic_option_list ')'`, at least one option. Keywords may name options, but are no values.
    fn option_list(&mut self) -> Result<Vec<CommandOption>, SyntaxError> {
        self.expect_symbol('(')?;
        let mut options = Vec::new();
        loop {
            let name = match self.token {
                Some(Token::Keyword(word)) if keyword::names_option(word) => {
                    self.advance()?;
                    word.to_ascii_lowercase()
                }
                _ => self.identifier()?,
            };
            let value = match self.token {
                Some(Token::Identifier(_)) => Some(OptionValue::Text(self.identifier()?)),
                Some(Token::Text(_)) => Some(OptionValue::Text(self.text()?)),
                Some(Token::Number(_)) => Some(OptionValue::Integer(self.number()?)),
                _ => None,
            };
            options.push(CommandOption { name, value });
            if !self.symbol(',')? {
                self.expect_symbol(')')?;
                return Ok(options);
            }
        }
    }

    /// `'(' plugin_opt_list ')'`, or nothing: only identifiers name options, and only strings are values.
    fn plugin_options(&mut self) -> Result<Vec<CommandOption>, SyntaxError> {
        let mut options = Vec::new();
        if !self.symbol('(')? {
            return Ok(options);
        }
        loop {
            let name = self.identifier()?;
            let value = match self.token {
                Some(Token::Text(_)) => Some(OptionValue::Text(self.text()?)),
                _ => None,
            };
            options.push(CommandOption { name, value });
            if !self.symbol(',')? {
                self.expect_symbol(')')?;
                return Ok(options);
            }
        }
    }

    fn create_slot(&mut self) -> Result<CreateSlot, SyntaxError> {
        let slot = self.identifier()?;
        let temporary = self.keyword("TEMPORARY")?;
        let kind = if self.keyword("PHYSICAL")? {
            SlotKind::Physical
        } else if self.keyword("LOGICAL")? {
            SlotKind::Logical { plugin: self.identifier()? }
        } else {
            return Err(self.error());
        };
        let options = if self.version.has_option_lists() && self.token == Some(Token::Symbol('(')) {
            self.option_list()?
        } else {
            self.slot_keywords(&kind)?
        };
        Ok(CreateSlot { slot, temporary, kind, options })
    }

    /// Options of a slot without parentheses, as every release since 9.6 takes them.
    fn slot_keywords(&mut self, kind: &SlotKind) -> Result<Vec<CommandOption>, SyntaxError> {
        let mut options = Vec::new();
        // 9.6 knows RESERVE_WAL alone, for physical slots; the list came with temporary slots.
        let list = self.version.has_temporary_slots();
        while let Some(Token::Keyword(word)) = self.token {
            let option = match word {
                "RESERVE_WAL" if list || (*kind == SlotKind::Physical && options.is_empty()) => {
                    CommandOption::flag("reserve_wal")
                }
                "TWO_PHASE" => CommandOption::flag("two_phase"),
                "EXPORT_SNAPSHOT" => CommandOption::text("snapshot", "export"),
                "NOEXPORT_SNAPSHOT" => CommandOption::text("snapshot", "nothing"),
                "USE_SNAPSHOT" => CommandOption::text("snapshot", "use"),
                _ => return Err(self.error()),
            };
            options.push(option);
            self.advance()?;
        }
        Ok(options)
    }

    fn start_replication(&mut self) -> Result<StartReplication, SyntaxError> {
        let slot = if self.keyword("SLOT")? { Some(self.identifier()?) } else { None };
        if slot.is_some() && self.keyword("LOGICAL")? {
            let start = self.position()?;
            let kind = StartKind::Logical { options: self.plugin_options()? };
            return Ok(StartReplication { slot, kind, start });
        }
        self.keyword("PHYSICAL")?;
        let start = self.position()?;
        let timeline = if self.keyword("TIMELINE")? { Some(TimelineId(self.timeline()?)) } else { None };
        Ok(StartReplication { slot, kind: StartKind::Physical { timeline }, start })
    }
}
