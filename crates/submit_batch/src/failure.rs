//! Why there is no batch, or no good end to it: one sentence, and the exit status.

use std::path::PathBuf;

/// Exit status of a batch of which some items failed.
pub const SOME_FAILED: u8 = 1;
/// Exit status when there was nothing to submit.
pub const NOTHING_SUBMITTED: u8 = 2;
/// Exit status when `--timeout` ran out.
pub const TIMED_OUT: u8 = 124;
/// Exit status after Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// Why it cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A path of the command line cannot be used.
    #[error("`{}`: {why}; nothing was submitted", path.display())]
    Input {
        /// As given.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// The script is not registered.
    #[error("{0}")]
    Script(String),
    /// Configuration or spool cannot be used.
    #[error("{message}")]
    Setting {
        /// What is wrong.
        message: String,
        /// As `spool` gives it.
        code: u8,
    },
    /// The disk is full.
    #[error("the disk of the spool is full: {0}; free some space and run the command again")]
    DiskFull(String),
    /// The spool did not take the batch for another reason.
    #[error("{0}")]
    Spool(String),
    /// Somebody was asked and did not agree.
    #[error("nothing was submitted")]
    Declined,
    /// Somebody pressed Ctrl-C.
    #[error("{0}")]
    Interrupted(String),
}

impl Failure {
    /// The exit status, as `sysexits.h` numbers them where it has one.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Script(_) => 64,
            Self::Input { .. } => 66,
            Self::Setting { code, .. } => *code,
            Self::DiskFull(_) => 75,
            Self::Spool(_) => 74,
            Self::Declined => NOTHING_SUBMITTED,
            Self::Interrupted(_) => INTERRUPTED,
        }
    }

    /// A path that cannot be used.
    pub fn input(path: impl Into<PathBuf>, why: impl Into<String>) -> Self {
        Self::Input { path: path.into(), why: why.into() }
    }
}
