//! How a command ends when it cannot do what was asked: one sentence, the next step, and an exit code.

use std::io;

/// The exit codes of `gpuspool`; those from 64 on are `sysexits.h`.
pub mod exit {
    /// All done.
    pub const OK: u8 = 0;
    /// Something was not found, or did not end well.
    pub const NOT_ALL: u8 = 1;
    /// Somebody else is the brain.
    pub const BRAIN_RUNS: u8 = 3;
    /// The command line cannot be understood.
    pub const USAGE: u8 = 64;
    /// A document is not what it should be.
    pub const DATA: u8 = 65;
    /// An input does not exist.
    pub const NO_INPUT: u8 = 66;
    /// A program of this package is missing.
    pub const UNAVAILABLE: u8 = 69;
    /// The system refused.
    pub const IO: u8 = 74;
    /// Not now: it may work later.
    pub const TRY_AGAIN: u8 = 75;
    /// Nobody reads the output any more.
    pub const PIPE: u8 = 141;
}

/// Why a command could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Exit code.
    pub code: u8,
    /// What and where.
    pub message: String,
    /// What to do about it.
    pub next_step: Option<String>,
}

impl Failure {
    /// A failure with this exit code.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), next_step: None }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn next(mut self, step: impl Into<String>) -> Self {
        self.next_step = Some(step.into());
        self
    }

    /// What the system refused.
    pub fn io(what: impl std::fmt::Display, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::new(exit::TRY_AGAIN, format!("failed to {what}: {error}"))
                    .next("free some space, or run `gpuspool clean`")
            }
            io::ErrorKind::PermissionDenied => Self::new(exit::IO, format!("failed to {what}: {error}"))
                .next("run it as the user whose spool this is"),
            _ => Self::new(exit::IO, format!("failed to {what}: {error}")),
        }
    }
}

impl From<spool::settings::SettingsError> for Failure {
    fn from(error: spool::settings::SettingsError) -> Self {
        Self::new(error.exit_code(), error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(exit::PIPE, "");
        }
        Self::io("finish", &error)
    }
}
