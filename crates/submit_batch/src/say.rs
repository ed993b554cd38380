//! Where words go: results to standard output, notes and progress to standard error.
//!
//! A closed standard output (`| head`) is no error: what nobody reads is not written.

use std::io::{self, IsTerminal, Write};

/// The two outputs.
pub struct Voice {
    out: Box<dyn Write>,
    notes: Box<dyn Write>,
    terminal: bool,
}

impl Voice {
    /// The process's own outputs.
    #[must_use]
    pub fn new() -> Self {
        Self {
            out: Box::new(io::stdout()),
            notes: Box::new(io::stderr()),
            terminal: io::stderr().is_terminal(),
        }
    }

    /// Other outputs, none of them a terminal.
    pub fn to(out: impl Write + 'static, notes: impl Write + 'static) -> Self {
        Self { out: Box::new(out), notes: Box::new(notes), terminal: false }
    }

    /// Whether notes can be overwritten in place.
    #[must_use]
    pub const fn on_terminal(&self) -> bool {
        self.terminal
    }

    /// A part of the result, ended as it should be.
    pub fn result(&mut self, text: &str) {
        if write_all(&mut self.out, text).is_err() {
            self.out = Box::new(io::sink());
        }
    }

    /// A note, in a line of its own.
    pub fn note(&mut self, text: &str) {
        if write_all(&mut self.notes, &format!("{}\n", text.trim_end())).is_err() {
            self.notes = Box::new(io::sink());
        }
    }

    /// A note, if it says anything.
    pub fn note_unless_empty(&mut self, text: &str) {
        if !text.is_empty() {
            self.note(text);
        }
    }
}

impl Default for Voice {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Voice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Voice").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

fn write_all(to: &mut dyn Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}
