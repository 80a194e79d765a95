//! The JSON Schema of scenario files, for editors.

use serde_json::{Map, Value, json};

use super::model::Scenario;
use super::sweep::Every;

/// The schema: what the model says, and what the loader takes before it reads the model: `[matrix]` and `when.every`.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Scenario).to_value();
    let every = schemars::schema_for!(Every).to_value();
    if let Some(definitions) = schema.get_mut("$defs").and_then(Value::as_object_mut) {
        add_every(definitions, every);
    }
    let matrix = matrix(&schema);
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("matrix".to_owned(), matrix);
    }
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".to_owned(), json!("A Backstop scenario"));
    }
    schema
}

/// A fault's `when` is a point or `every`.
fn add_every(definitions: &mut Map<String, Value>, mut every: Value) {
    if let Some(inner) = every.as_object_mut() {
        inner.remove("$schema");
        if let Some(Value::Object(own)) = inner.remove("$defs") {
            definitions.extend(own);
        }
    }
    definitions.insert("Every".to_owned(), every);
    let when = definitions.get_mut("Fault").and_then(|fault| fault.pointer_mut("/properties/when"));
    if let Some(when) = when {
        let point = when.take();
        let every = json!({
            "type": "object",
            "properties": { "every": { "$ref": "#/$defs/Every" } },
            "required": ["every"],
            "additionalProperties": false,
        });
        *when = json!({ "anyOf": [point, every] });
    }
}

/// The keys of four tables, each with a list of what it takes.
fn matrix(schema: &Value) -> Value {
    let table = |definition: &str| {
        let keys = schema.pointer(&format!("/$defs/{definition}/properties")).and_then(Value::as_object);
        let lists: Map<String, Value> = keys
            .into_iter()
            .flatten()
            .map(|(key, value)| {
                let mut one = value.clone();
                if let Some(one) = one.as_object_mut() {
                    one.remove("default");
                    one.remove("description");
                }
                let list = json!({ "type": "array", "items": one, "minItems": 1, "uniqueItems": true });
                // Each setting has a list of its own.
                let settings = json!({ "type": "object", "additionalProperties": { "type": "array", "items": { "type": "string" } } });
                (key.clone(), if key == "settings" { settings } else { list })
            })
            .collect();
        json!({ "type": "object", "properties": lists, "additionalProperties": false })
    };
    // Keys of points and actions, at any depth: `do.chop.into`.
    let keys = json!({ "type": "object" });
    let fault = json!({ "type": "object", "properties": { "when": keys, "do": keys }, "additionalProperties": false });
    json!({
        "description": "Keys of the other tables, each with a list of values: one case for each combination.",
        "type": "object",
        "properties": { "server": table("Server"), "cluster": table("Cluster"), "client": table("Client"), "fault": fault },
        "additionalProperties": false,
    })
}

/// The schema as the file `scenarios/scenario.schema.json` holds it.
pub fn text() -> String {
    format!("{:#}\n", schema())
}
