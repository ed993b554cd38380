//! What is wrong with a document: a code for machines, a place, a sentence, and the next step.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Machine-readable reason for turning a document away; stable names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the catalogue's own words")]
pub enum Code {
    EmptyFile,
    IncompleteJson,
    InvalidJson,
    TrailingData,
    NotAnObject,
    NotUtf8,
    DuplicateKey,
    TooDeep,
    TooLarge,
    BadNumber,
    UnknownField,
    MissingField,
    BadEnum,
    BadPriority,
    BadType,
    BadTaskId,
    DuplicateId,
    AlreadyFinished,
    UnknownScript,
    WrongQueue,
    EnvNotAllowed,
    EmptyBatch,
    OutOfRange,
    Unsatisfiable,
    OwnerNotAllowed,
}

impl Code {
    /// The name used in files and messages.
    #[must_use]
    pub fn name(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            _ => format!("{self:?}"),
        }
    }
}

/// A place in a document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Place {
    /// Line, from 1, where the parser knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column, from 1, where the parser knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// Byte offset, from 0, where only that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
    /// JSON path of the field, such as `batch_settings.drain_s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// One reason why a document cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
pub struct Fault {
    /// For machines.
    pub code: Code,
    /// Where.
    pub place: Place,
    /// What is wrong, as a lower-case fragment.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_step: Option<String>,
}

impl Fault {
    /// A fault without a place.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, place: Place::default(), message: message.into(), next_step: None }
    }

    /// The same fault, in a field.
    #[must_use]
    pub fn in_field(mut self, field: impl Into<String>) -> Self {
        self.place.field = Some(field.into());
        self
    }

    /// The same fault, at a line and column (each from 1).
    #[must_use]
    pub fn at(mut self, line: usize, column: usize) -> Self {
        self.place.line = Some(line);
        self.place.column = Some(column);
        self
    }

    /// The same fault, with what to do about it.
    #[must_use]
    pub fn next(mut self, step: impl Into<String>) -> Self {
        self.next_step = Some(step.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.place.line, self.place.column) {
            write!(f, "line {line}, column {column}: ")?;
        }
        if let Some(offset) = self.place.offset {
            write!(f, "byte {offset}: ")?;
        }
        if let Some(field) = &self.place.field {
            write!(f, "`{field}`: ")?;
        }
        write!(f, "{} ({})", self.message, self.code.name())?;
        if let Some(step) = &self.next_step {
            write!(f, "; {step}")?;
        }
        Ok(())
    }
}

/// The name in `known` that `word` was probably meant to be.
#[must_use]
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance over bytes: the names compared here are ASCII and short.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_as_one_sentence() {
        let fault = Fault::new(Code::BadPriority, "9 is not within 1 to 5")
            .in_field("priority")
            .at(3, 7)
            .next("use 1 (low) to 5 (urgent)");
        assert_eq!(
            fault.to_string(),
            "line 3, column 7: `priority`: 9 is not within 1 to 5 (bad_priority); use 1 (low) to 5 (urgent)"
        );
    }

    #[test]
    fn a_typing_error_is_recognised_and_a_strange_word_is_not() {
        let known = ["prompt", "priority", "script"];
        assert_eq!(did_you_mean("promt", known), Some("prompt"));
        assert_eq!(did_you_mean("colour", known), None);
    }
}
