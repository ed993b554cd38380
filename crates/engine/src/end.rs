//! How a program ended, in words that stay the same: they become codes of errors.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this exit status.
    Exit(i32),
    /// By this signal; whether it left a core file.
    Signal(i32, bool),
}

impl End {
    pub(crate) fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exit(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default(), status.core_dumped()),
        }
    }

    /// `exit_status_3` or `killed_by:SIGSEGV`.
    #[must_use]
    pub fn code(self) -> String {
        match self {
            Self::Exit(status) => format!("exit_status_{status}"),
            Self::Signal(signal, _) => format!("killed_by:{}", signal_name(signal)),
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(status) => write!(f, "ended with exit status {status}"),
            Self::Signal(signal, core) => {
                write!(f, "was killed by {}", signal_name(*signal))?;
                f.write_str(if *core { " and left a core file" } else { "" })
            }
        }
    }
}

fn signal_name(signal: i32) -> String {
    let known = [
        (1, "SIGHUP"),
        (2, "SIGINT"),
        (3, "SIGQUIT"),
        (4, "SIGILL"),
        (6, "SIGABRT"),
        (7, "SIGBUS"),
        (8, "SIGFPE"),
        (9, "SIGKILL"),
        (11, "SIGSEGV"),
        (13, "SIGPIPE"),
        (15, "SIGTERM"),
        (24, "SIGXCPU"),
        (25, "SIGXFSZ"),
        (31, "SIGSYS"),
    ];
    known
        .iter()
        .find(|(number, _)| *number == signal)
        .map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}
