//! `[matrix]`: one case for each combination of the values that it lists.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::document::{Document, Part, ScenarioError};
use super::explain::suggest;
use super::model::DEFAULT_CLIENT;
use super::way::Way;

/// A scenario has no more combinations than this.
pub const MAX_COMBINATIONS: usize = 1000;

/// The tables whose keys a matrix can set.
const TABLES: [&str; 4] = ["server", "cluster", "client", "fault"];

/// The table of faults: a matrix reaches into their points and actions.
const FAULT: &str = "fault";

/// One document of a matrix.
#[derive(Clone, Debug)]
pub struct Combined<'i> {
    /// The file without `[matrix]`, the combination applied.
    pub document: Document<'i>,
    /// Keys and values, in the order of the file.
    pub combination: Vec<(String, String)>,
}

/// One key of a matrix and its values.
struct Axis<'i> {
    /// `server`, `version`; the keys know where they stand in the matrix.
    keys: Vec<Spanned<DeString<'i>>>,
    values: Vec<(String, Spanned<DeValue<'i>>)>,
}

impl Axis<'_> {
    fn name(&self) -> String {
        let names: Vec<&str> = self.keys.iter().map(|key| key.get_ref().as_ref()).collect();
        names.join(".")
    }

    fn way(&self) -> Way {
        self.keys.iter().fold(Way::new().to("matrix"), |way, key| way.to(key.get_ref().as_ref()))
    }
}

/// Makes one document for each combination, the last key changing fastest. Without `[matrix]` there is one.
pub fn expand(mut document: Document<'_>) -> Result<Vec<Combined<'_>>, ScenarioError> {
    let axes = axes(&document)?;
    for axis in &axes {
        refuse_conflict(&document, axis)?;
        refuse_without_fault(&document, axis)?;
    }
    let total = axes.iter().try_fold(1_usize, |total, axis| total.checked_mul(axis.values.len()));
    if total.is_none_or(|total| total > MAX_COMBINATIONS) {
        let message = format!("the matrix has more than {MAX_COMBINATIONS} combinations");
        return Err(document.error_at(&Way::new().to("matrix"), Part::Key, message, None));
    }
    document.root.remove("matrix");
    let mut combined = vec![Combined { document, combination: Vec::new() }];
    for axis in &axes {
        let name = axis.name();
        combined = combined
            .into_iter()
            .flat_map(|before| {
                axis.values.iter().map(move |value| (before.clone(), value.clone())).map(
                    |(mut combined, (text, value))| {
                        set(&mut combined.document.root, &axis.keys, &value);
                        combined.combination.push((name.clone(), text));
                        combined
                    },
                )
            })
            .collect();
    }
    Ok(combined)
}

fn axes<'i>(document: &Document<'i>) -> Result<Vec<Axis<'i>>, ScenarioError> {
    let Some(matrix) = document.root.get("matrix") else { return Ok(Vec::new()) };
    let DeValue::Table(matrix) = matrix.get_ref() else {
        let message = format!("invalid type of matrix: {}, expected a table", matrix.get_ref().type_str());
        return Err(document.error_at(&Way::new().to("matrix"), Part::Value, message, None));
    };
    let mut axes = Vec::new();
    for (table, keys) in matrix {
        let way = Way::new().to("matrix").to(table.get_ref().as_ref());
        if !TABLES.contains(&table.get_ref().as_ref()) {
            let message =
                format!("unknown key \"{table}\" in matrix: it takes keys of server, cluster, client and fault");
            return Err(document.error_at(&way, Part::Key, message, suggest(table.get_ref(), "key", &TABLES)));
        }
        let DeValue::Table(keys) = keys.get_ref() else {
            let message =
                format!("matrix.{table} must name a key, as in: {table}.{} = […]", example_key(table.get_ref()));
            return Err(document.error_at(&way, Part::Key, message, None));
        };
        for (key, value) in keys {
            collect(document, vec![table.clone(), key.clone()], value, &mut axes)?;
        }
    }
    axes.sort_by_key(|axis| axis.keys.last().map_or(0, |key| key.span().start));
    Ok(axes)
}

fn example_key(table: &str) -> &'static str {
    match table {
        "server" => "version",
        "cluster" => "size",
        "fault" => "do.chop.into",
        _ => "wal",
    }
}

/// Adds the axis of `value`, or of everything in it if it is a table: `server.settings.wal_keep_size`.
fn collect<'i>(
    document: &Document<'i>,
    keys: Vec<Spanned<DeString<'i>>>,
    value: &Spanned<DeValue<'i>>,
    axes: &mut Vec<Axis<'i>>,
) -> Result<(), ScenarioError> {
    if let DeValue::Table(table) = value.get_ref() {
        for (key, value) in table {
            let mut keys = keys.clone();
            keys.push(key.clone());
            collect(document, keys, value, axes)?;
        }
        return Ok(());
    }
    let mut axis = Axis { keys, values: Vec::new() };
    let refuse = |axis: &Axis<'_>, message: String, help: Option<&str>| {
        Err(document.error_at(&axis.way(), Part::Value, message, help.map(ToOwned::to_owned)))
    };
    let DeValue::Array(list) = value.get_ref() else {
        let message = format!("matrix.{} must be a list", axis.name());
        return refuse(&axis, message, Some("a key with one value belongs into its own table"));
    };
    if list.is_empty() {
        let message = format!("matrix.{} lists nothing, so that there would be no case", axis.name());
        return refuse(&axis, message, None);
    }
    for (index, element) in list.iter().enumerate() {
        let text = text_of(document, element);
        if axis.values.iter().any(|(other, _)| *other == text) {
            let message = format!("matrix.{} lists {text} twice", axis.name());
            return Err(document.error_at(&axis.way().to(index), Part::Value, message, None));
        }
        axis.values.push((text, element.clone()));
    }
    axes.push(axis);
    Ok(())
}

/// The value as it stands in a case's id: strings without quotes, anything else as in the file, on one line.
fn text_of(document: &Document<'_>, value: &Spanned<DeValue<'_>>) -> String {
    match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        _ => document.file.text.get(value.span()).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

/// A key has one value: in the matrix or in its own table.
fn refuse_conflict(document: &Document<'_>, axis: &Axis<'_>) -> Result<(), ScenarioError> {
    let places: Vec<Way> = match axis.keys.split_first() {
        Some((table, rest)) if table.get_ref() == "client" || table.get_ref() == FAULT => {
            let elements =
                document.root.get(table.get_ref().as_ref()).and_then(|elements| elements.get_ref().as_array());
            let way = |index| Way::new().to(table.get_ref().as_ref()).to(index);
            (0..elements.map_or(0, |elements| elements.len()))
                .map(|index| rest.iter().fold(way(index), |way, key| way.to(key.get_ref().as_ref())))
                .collect()
        }
        _ => vec![Way(axis.way().0.split_off(1))],
    };
    match places.into_iter().find(|place| document.has(place)) {
        Some(place) => {
            let message = format!("{place} has a value here and a list in matrix");
            Err(document.error_at(&place, Part::Key, message, Some("leave one of them out".to_owned())))
        }
        None => Ok(()),
    }
}

/// A key of a fault needs a fault whose point or action has it.
fn refuse_without_fault(document: &Document<'_>, axis: &Axis<'_>) -> Result<(), ScenarioError> {
    let Some((table, rest)) = axis.keys.split_first() else { return Ok(()) };
    let faults = document.root.get(FAULT).and_then(|faults| faults.get_ref().as_array());
    let mut faults = faults.into_iter().flat_map(|faults| faults.iter());
    if table.get_ref() != FAULT || faults.any(|fault| has_table(fault.get_ref(), rest)) {
        return Ok(());
    }
    let message = format!("matrix.{} is a key of no fault", axis.name());
    let help = "write the point or action without the key, as in: do.chop = {}";
    Err(document.error_at(&axis.way(), Part::Key, message, Some(help.to_owned())))
}

/// Whether there is a table in which the last of `keys` can stand.
fn has_table(value: &DeValue<'_>, keys: &[Spanned<DeString<'_>>]) -> bool {
    match (keys, value) {
        ([_], DeValue::Table(_)) => true,
        ([key, rest @ ..], DeValue::Table(table)) => {
            table.get(key.get_ref().as_ref()).is_some_and(|inner| has_table(inner.get_ref(), rest))
        }
        _ => false,
    }
}

/// Sets `value` where `keys` lead: in every client if they lead into one, and in every fault that has the point or action.
fn set<'i>(root: &mut DeTable<'i>, keys: &[Spanned<DeString<'i>>], value: &Spanned<DeValue<'i>>) {
    let Some((first, rest)) = keys.split_first() else { return };
    let empty = |inner| Spanned::new(first.span(), inner);
    if first.get_ref() == FAULT {
        if let Some(DeValue::Array(faults)) = root.get_mut(FAULT).map(Spanned::get_mut) {
            for fault in faults.iter_mut().filter(|fault| has_table(fault.get_ref(), rest)) {
                if let DeValue::Table(fault) = fault.get_mut() {
                    set_in(fault, rest, value);
                }
            }
        }
        return;
    }
    if first.get_ref() != "client" {
        let table = root.entry(first.clone()).or_insert_with(|| empty(DeValue::Table(DeTable::new())));
        if let DeValue::Table(table) = table.get_mut() {
            set_in(table, rest, value);
        }
        return;
    }
    let clients = root.entry(first.clone()).or_insert_with(|| {
        let mut client = DeTable::new();
        let name = DeValue::String(DEFAULT_CLIENT.into());
        client.insert(Spanned::new(first.span(), "name".into()), empty(name));
        let clients: Vec<_> = vec![empty(DeValue::Table(client))];
        empty(DeValue::Array(clients.into_iter().collect()))
    });
    if let DeValue::Array(clients) = clients.get_mut() {
        for client in clients.iter_mut() {
            if let DeValue::Table(client) = client.get_mut() {
                set_in(client, rest, value);
            }
        }
    }
}

fn set_in<'i>(table: &mut DeTable<'i>, keys: &[Spanned<DeString<'i>>], value: &Spanned<DeValue<'i>>) {
    match keys {
        [] => {}
        [key] => {
            table.insert(key.clone(), value.clone());
        }
        [key, rest @ ..] => {
            let inner = || Spanned::new(key.span(), DeValue::Table(DeTable::new()));
            if let DeValue::Table(inner) = table.entry(key.clone()).or_insert_with(inner).get_mut() {
                set_in(inner, rest, value);
            }
        }
    }
}
