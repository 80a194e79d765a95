//! Points and actions in words: those of their documentation, which the schema of scenario files carries.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// What the documentation says of a variant, in one line.
pub(super) fn meaning<T: JsonSchema>(name: &str) -> String {
    let schema = schemars::schema_for!(T).to_value();
    let variants = schema["oneOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = variants.iter().find(|variant| variant["properties"].get(name).is_some());
    let text = found.and_then(|variant| variant["description"].as_str()).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The fields of a variant as a scenario file writes them: `sqlstate = "XX000", message = "…"`.
pub(super) fn fields(variant: &impl Serialize) -> String {
    let value = serde_json::to_value(variant).unwrap_or_default();
    let fields = value.as_object().and_then(|table| table.values().next()).and_then(Value::as_object);
    let shown = fields.into_iter().flatten().map(|(key, value)| format!("{key} = {value}"));
    shown.collect::<Vec<_>>().join(", ")
}

/// The keys of a table that are not as they are by themselves, as a scenario file writes them.
pub(super) fn differences<T: Serialize + Default>(table: &T, known: &[&str]) -> Vec<String> {
    let (table, usual) =
        (serde_json::to_value(table).unwrap_or_default(), serde_json::to_value(T::default()).unwrap_or_default());
    let keys = table.as_object().into_iter().flatten();
    let others = keys.filter(|(key, value)| usual.get(key) != Some(value) && !known.contains(&key.as_str()));
    others.map(|(key, value)| format!("{key} = {value}")).collect()
}
