//! Names of things: every identifier that becomes part of a path is checked before it can exist.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// Why a text is not a legal identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{shown}` is not a legal id: use 1 to 128 letters, digits, `.`, `_` or `-`, beginning with a letter or digit, without `..`"
)]
pub struct BadId {
    /// The offending text, escaped and shortened for display.
    pub shown: String,
}

/// Longest identifier, in bytes: `<id>.json` plus an attempt number stays below the 255 of all file systems.
pub const ID_BYTES_MAX: usize = 128;

fn check(text: &str) -> Result<(), BadId> {
    let bytes = text.as_bytes();
    let legal = (1..=ID_BYTES_MAX).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !text.contains("..")
        && !is_device_name(text);
    if legal { Ok(()) } else { Err(BadId { shown: shorten(text) }) }
}

/// Names that are devices where a spool may be shared with Windows machines.
fn is_device_name(text: &str) -> bool {
    let stem = text.split('.').next().unwrap_or(text).to_ascii_uppercase();
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL")
}

fn shorten(text: &str) -> String {
    let escaped: String = text.escape_debug().take(60).collect();
    if text.chars().count() > 60 { format!("{escaped}…") } else { escaped }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(#[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"))] String);

        impl $name {
            /// Checks `text` and takes it as an identifier.
            ///
            /// # Errors
            /// [`BadId`] when it holds anything that could leave its folder or confuse a shell.
            pub fn new(text: impl Into<String>) -> Result<Self, BadId> {
                let text = text.into();
                check(&text)?;
                Ok(Self(text))
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                Self::new(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

identifier!(
    /// A task's name, unique over the whole spool; the stem of its one file.
    TaskId
);
identifier!(
    /// A batch's name; its items are tasks called `<batch_id>.<index>`.
    BatchId
);
identifier!(
    /// A GPU's stable name as its driver gives it (`GPU-…`), or `SIM-<n>` / `FIXED-0` where none was measured.
    GpuUuid
);
identifier!(
    /// A worker's name: a fresh UUID at every birth, so it has one life.
    WorkerId
);

impl TaskId {
    /// The first free name among `<self>`, `<self>-2`, `<self>-3`, …: candidate number `turn`, from 1.
    ///
    /// # Errors
    /// [`BadId`] when the suffix makes the name too long.
    pub fn candidate(&self, turn: u32) -> Result<Self, BadId> {
        if turn <= 1 { Ok(self.clone()) } else { Self::new(format!("{self}-{turn}")) }
    }
}

/// One run of a task: what orders, reports and outbox records are keyed by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct AttemptKey {
    /// The task.
    pub task_id: TaskId,
    /// Its run, from 1; a number is never used twice for one task.
    pub attempt: u32,
}

impl fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.task_id, self.attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_leave_its_folder_is_no_id() {
        for bad in
            ["", "../x", "/abs", "a/b", ".", "..", "-rf", "a..b", "CON", "nul.json", "a\u{202e}b", "x\n", "é"]
        {
            assert!(TaskId::new(bad).is_err(), "{bad:?}");
        }
        assert!(TaskId::new("x".repeat(129)).is_err());
        for good in ["a", "A-1_2.b", "7", &"x".repeat(128)] {
            assert!(TaskId::new(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_wish_that_is_taken_gets_a_number() {
        let wish = TaskId::new("task").unwrap();
        assert_eq!(wish.candidate(1).unwrap().as_str(), "task");
        assert_eq!(wish.candidate(3).unwrap().as_str(), "task-3");
    }
}
