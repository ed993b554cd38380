//! JSON Schemas of every document on disk, generated from the types.

use schemars::{Schema, schema_for};

/// The documents that have a schema, by name.
#[must_use]
pub fn all() -> Vec<(&'static str, Schema)> {
    vec![
        ("task", schema_for!(crate::task::TaskRecord)),
        ("batch", schema_for!(crate::batch::BatchRecord)),
        ("manifest_line", schema_for!(crate::batch::ManifestLine)),
        ("config", schema_for!(crate::config::Config)),
        ("gpu_state", schema_for!(crate::picture::Picture)),
        ("learned", schema_for!(crate::learned::Learned)),
        ("request", schema_for!(crate::request::Request)),
        ("answer", schema_for!(crate::request::Answer)),
    ]
}

/// The top-level keys of a document, sorted.
#[must_use]
pub fn keys(schema: &Schema) -> Vec<&str> {
    let properties = schema.get("properties").and_then(serde_json::Value::as_object);
    properties.map(|all| all.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// A schema as the text that is checked in.
///
/// # Errors
/// Only where a schema cannot be written as JSON.
pub fn text(schema: &Schema) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(schema).map(|text| text + "\n")
}
