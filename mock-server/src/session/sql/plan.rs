//! What a SELECT means: its columns with their types, and what has to be called.
//!
//! All that a server finds out before it runs anything: which function of the release is meant, what type each parameter has,
//! whether a literal is a value of its type. Errors carry their place in the query.

use backstop_protocol::catalog::{Function, SqlType, functions, slot_columns};
use backstop_protocol::diagnostic::{Diagnostic, SqlState};
use backstop_protocol::version::ServerVersion;

use super::statement::{Expression, Node, Select, Source, Target};
use super::unsupported;
use super::value::Value;

/// A SELECT that can run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) columns: Vec<(String, SqlType)>,
    pub(super) targets: Vec<Step>,
    pub(super) rows: Rows,
    /// The column and the value that a row must have.
    pub(super) filter: Option<(Step, Step)>,
}

/// Where rows come from.
#[derive(Clone, Debug)]
pub(super) enum Rows {
    /// One row without columns.
    One,
    /// The result of a function: its fields, or the value itself.
    Function(Step),
    /// `pg_replication_slots`
    Slots,
}

/// An expression that can be computed.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Constant(Value),
    /// Counted from 0.
    Parameter(usize),
    /// Of the row, counted from 0.
    Column(usize),
    Call(&'static Function, Vec<Step>),
    Cast(Box<Step>, SqlType),
    /// Of a record, counted from 0.
    Field(Box<Step>, usize),
}

/// The most parameters of a statement; the protocol's own limit.
const MAX_PARAMETERS: usize = 65_535;

/// Finds out what a SELECT means. `parameters` holds the types that the client gave (None: to be found out), and afterwards
/// those of all parameters that occur. Without `prepares` there are no parameters.
pub(super) fn plan(
    select: &Select,
    text: &str,
    version: ServerVersion,
    parameters: &mut Vec<Option<SqlType>>,
    prepares: bool,
) -> Result<Plan, Diagnostic> {
    let mut planner = Planner { text, version, parameters, prepares, source: None, columns: Vec::new() };
    let rows = match &select.source {
        None => Rows::One,
        Some(source) => planner.source(source)?,
    };
    let (mut columns, mut targets) = (Vec::new(), Vec::new());
    for target in &select.targets {
        planner.target(target, &mut columns, &mut targets)?;
    }
    let filter = match &select.filter {
        None => None,
        Some((left, right)) => {
            let (left, ty) = planner.expression(left)?;
            Some((left, planner.coerced(right, ty)?))
        }
    };
    Ok(Plan { columns, targets, rows, filter })
}

struct Planner<'a> {
    text: &'a str,
    version: ServerVersion,
    parameters: &'a mut Vec<Option<SqlType>>,
    prepares: bool,
    /// The name of what stands behind FROM.
    source: Option<String>,
    columns: Vec<(String, SqlType)>,
}

impl Planner<'_> {
    /// Puts the place of `expression` into an error.
    fn at(&self, expression: &Expression, error: Diagnostic) -> Diagnostic {
        self.at_byte(expression.at, error)
    }

    fn at_byte(&self, at: usize, error: Diagnostic) -> Diagnostic {
        let before = self.text.get(..at).map_or(0, |before| before.chars().count());
        error.at_character(u32::try_from(before + 1).unwrap_or(u32::MAX))
    }

    fn type_of(&self, ty: SqlType) -> SqlType {
        Function::type_in(ty, self.version)
    }

    fn source(&mut self, source: &Source) -> Result<Rows, Diagnostic> {
        let (rows, name, columns) = match &source.from.node {
            Node::Column(view) if view == "pg_replication_slots" && self.version.has_slots() => {
                let columns = slot_columns(self.version).into_iter();
                (Rows::Slots, view, columns.map(|(name, ty)| (name.to_owned(), ty)).collect::<Vec<_>>())
            }
            Node::Call { function: name, .. } => {
                let (step, ty) = self.expression(&source.from)?;
                let Step::Call(function, _) = &step else { return Err(unsupported()) };
                let columns = match ty {
                    SqlType::Record => self.fields(function),
                    // A function's one value is a column that is called as the function is, or as it is called here.
                    _ => vec![(source.name.as_ref().unwrap_or(name).clone(), ty)],
                };
                (Rows::Function(step), name, columns)
            }
            _ => return Err(unsupported()),
        };
        self.columns = columns;
        for (column, name) in self.columns.iter_mut().zip(&source.columns) {
            column.0.clone_from(name);
        }
        self.source = Some(source.name.as_ref().unwrap_or(name).clone());
        Ok(rows)
    }

    fn fields(&self, function: &Function) -> Vec<(String, SqlType)> {
        function.columns.iter().map(|(name, ty)| ((*name).to_owned(), self.type_of(*ty))).collect()
    }

    fn target(
        &mut self,
        target: &Target,
        columns: &mut Vec<(String, SqlType)>,
        targets: &mut Vec<Step>,
    ) -> Result<(), Diagnostic> {
        match target {
            Target::All(at) if self.source.is_none() => {
                let message = "SELECT * with no tables specified is not valid";
                return Err(self.at_byte(*at, Diagnostic::error(SqlState::SYNTAX_ERROR, message)));
            }
            Target::All(_) => {
                targets.extend((0..self.columns.len()).map(Step::Column));
                columns.extend(self.columns.iter().cloned());
            }
            Target::Fields(Expression { node: Node::Column(name), at }) if self.source.as_ref() == Some(name) => {
                return self.target(&Target::All(*at), columns, targets);
            }
            Target::Fields(record) => {
                let (step, _) = self.expression(record)?;
                let Step::Call(function, _) = &step else { return Err(unsupported()) };
                // The function is called once for each field, as a server does.
                let fields = self.fields(function).into_iter().enumerate();
                for (number, column) in fields {
                    targets.push(Step::Field(Box::new(step.clone()), number));
                    columns.push(column);
                }
            }
            Target::Value { value, name } => {
                let (step, ty) = self.expression(value)?;
                let shown = if ty == SqlType::Unknown && self.version.resolves_unknown_literals() {
                    self.settle(&step, SqlType::Text);
                    SqlType::Text
                } else {
                    ty
                };
                columns.push((name.clone().unwrap_or_else(|| column_name(value)), shown));
                targets.push(step);
            }
        }
        Ok(())
    }

    /// A parameter whose type nothing else tells gets this one.
    fn settle(&mut self, step: &Step, ty: SqlType) {
        if let Step::Parameter(number) = step
            && let Some(unknown) = self.parameters.get_mut(*number).filter(|known| known.is_none())
        {
            *unknown = Some(ty);
        }
    }

    fn expression(&mut self, expression: &Expression) -> Result<(Step, SqlType), Diagnostic> {
        Ok(match &expression.node {
            Node::Null => (Step::Constant(Value::Null), SqlType::Unknown),
            Node::Bool(value) => (Step::Constant(Value::Bool(*value)), SqlType::Bool),
            Node::Text(text) => (Step::Constant(Value::Text(text.clone())), SqlType::Unknown),
            Node::Number(digits) => {
                let ty = if digits.parse::<i32>().is_ok() { SqlType::Int4 } else { SqlType::Int8 };
                // More than 19 digits are numeric, which is no type of this server.
                (Step::Constant(Value::parse(ty, digits).map_err(|_| unsupported())?), ty)
            }
            Node::Parameter(number) if !self.prepares => {
                let message = format!("there is no parameter ${number}");
                return Err(self.at(expression, Diagnostic::error(SqlState::UNDEFINED_PARAMETER, message)));
            }
            Node::Parameter(number) => {
                let number = usize::from(*number) - 1;
                if number >= self.parameters.len() {
                    self.parameters.resize((number + 1).min(MAX_PARAMETERS), None);
                }
                let known = self.parameters.get(number).copied().flatten();
                (Step::Parameter(number), known.unwrap_or(SqlType::Unknown))
            }
            Node::Column(name) => {
                let found = self.columns.iter().position(|(column, _)| column == name);
                let whole = self.source.as_ref() == Some(name) && self.columns.len() == 1;
                let number = found.or(whole.then_some(0)).ok_or_else(|| {
                    let message = format!("column \"{name}\" does not exist");
                    self.at(expression, Diagnostic::error(SqlState::UNDEFINED_COLUMN, message))
                })?;
                let ty = self.columns.get(number).map_or(SqlType::Unknown, |(_, ty)| *ty);
                (Step::Column(number), ty)
            }
            Node::Cast(value, ty) => {
                let ty = SqlType::from_name(ty).filter(|ty| *ty != SqlType::Lsn || self.version.has_lsn_type());
                let ty = ty.ok_or_else(unsupported)?;
                let step = self.coerced(value, ty)?;
                (Step::Cast(Box::new(step), ty), ty)
            }
            Node::Field(record, field) => {
                if let Node::Column(source) = &record.node
                    && self.source.as_ref() == Some(source)
                {
                    let column = Expression { node: Node::Column(field.clone()), at: record.at };
                    return self.expression(&column);
                }
                let (step, _) = self.expression(record)?;
                let Step::Call(function, _) = &step else { return Err(unsupported()) };
                let fields = self.fields(function);
                let number = fields.iter().position(|(name, _)| name == field).ok_or_else(|| {
                    let message = format!("column \"{field}\" not found in data type record");
                    self.at(expression, Diagnostic::error(SqlState::UNDEFINED_COLUMN, message))
                })?;
                let ty = fields.get(number).map_or(SqlType::Unknown, |(_, ty)| *ty);
                (Step::Field(Box::new(step), number), ty)
            }
            Node::Call { function, arguments } => self.call(expression, function, arguments)?,
        })
    }

    /// An expression that has to be of type `ty`.
    fn coerced(&mut self, expression: &Expression, ty: SqlType) -> Result<Step, Diagnostic> {
        let (step, found) = self.expression(expression)?;
        if found != SqlType::Unknown {
            return Ok(if found == ty { step } else { Step::Cast(Box::new(step), ty) });
        }
        self.settle(&step, ty);
        match step {
            Step::Constant(Value::Text(text)) => {
                let value = Value::parse(ty, &text).map_err(|error| self.at(expression, error))?;
                Ok(Step::Constant(value))
            }
            other => Ok(other),
        }
    }

    /// Finds the function that is meant: by its name, the number of its arguments, their names and types.
    fn call(
        &mut self,
        expression: &Expression,
        name: &str,
        arguments: &[(Option<String>, Expression)],
    ) -> Result<(Step, SqlType), Diagnostic> {
        let mut types = Vec::new();
        for (_, argument) in arguments {
            types.push(self.expression(argument)?.1);
        }
        let version = self.version;
        let fits = |function: &&'static Function| places(function, arguments, &types, version);
        let Some((function, places)) =
            functions(name, version).find_map(|function| fits(&function).map(|places| (function, places)))
        else {
            let shown = arguments.iter().zip(&types).map(|((name, _), ty)| match name {
                Some(name) => format!("{name} => {}", ty.shown()),
                None => ty.shown().to_owned(),
            });
            let shown = shown.collect::<Vec<_>>().join(", ");
            let error =
                Diagnostic::error(SqlState::UNDEFINED_FUNCTION, format!("function {name}({shown}) does not exist"));
            let hint =
                "No function matches the given name and argument types. You might need to add explicit type casts.";
            return Err(self.at(expression, error.with_hint(hint)));
        };
        let mut steps = Vec::new();
        for (number, (_, ty)) in function.arguments.iter().enumerate() {
            let Some(given) = places.iter().position(|place| *place == number) else {
                // Defaults are the business of whoever runs it: only what was given is passed on.
                steps.push(Step::Constant(Value::Void));
                continue;
            };
            let ty = self.type_of(*ty);
            if let Some((_, argument)) = arguments.get(given) {
                steps.push(self.coerced(argument, ty)?);
            }
        }
        Ok((Step::Call(function, steps), self.type_of(function.result)))
    }
}

/// Which of the function's arguments each given one is, if all of them fit.
fn places(
    function: &Function,
    arguments: &[(Option<String>, Expression)],
    types: &[SqlType],
    version: ServerVersion,
) -> Option<Vec<usize>> {
    let mut places = Vec::new();
    for (number, ((name, _), ty)) in arguments.iter().zip(types).enumerate() {
        let place = match name {
            None if places.len() == number => number,
            None => return None,
            Some(name) => function.arguments.iter().position(|(known, _)| known == name)?,
        };
        let (_, wanted) = function.arguments.get(place)?;
        let wanted = Function::type_in(*wanted, version);
        let converts = matches!((ty, wanted), (SqlType::Int4, SqlType::Int8) | (SqlType::Text, SqlType::Name))
            || (*ty == SqlType::Name && wanted == SqlType::Text);
        if places.contains(&place) || !(*ty == SqlType::Unknown || *ty == wanted || converts) {
            return None;
        }
        places.push(place);
    }
    (0..function.required).all(|required| places.contains(&required)).then_some(places)
}

/// `FigureColname`
fn column_name(expression: &Expression) -> String {
    match &expression.node {
        Node::Column(name) | Node::Call { function: name, .. } | Node::Field(_, name) => name.clone(),
        Node::Cast(value, ty) => match column_name(value) {
            name if name == "?column?" => SqlType::from_name(ty).map_or_else(|| ty.clone(), |ty| ty.name().to_owned()),
            name => name,
        },
        _ => "?column?".to_owned(),
    }
}
