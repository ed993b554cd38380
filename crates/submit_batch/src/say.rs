//! Where words go: results to standard output, notes and progress to standard error.
//!
//! A closed standard output (`| head`) is no error: what nobody reads is not written.

use std::io::{self, BufRead, IsTerminal, Write};

/// The two outputs, and who answers questions.
pub struct Voice {
    out: Box<dyn Write>,
    notes: Box<dyn Write>,
    terminal: bool,
    /// Somebody who sees the notes and can answer them.
    answers: Option<Box<dyn BufRead>>,
}

impl Voice {
    /// The process's own outputs.
    #[must_use]
    pub fn new() -> Self {
        Self {
            out: Box::new(io::stdout()),
            notes: Box::new(io::stderr()),
            terminal: io::stderr().is_terminal(),
            answers: (io::stdin().is_terminal() && io::stderr().is_terminal())
                .then(|| Box::new(io::stdin().lock()) as Box<dyn BufRead>),
        }
    }

    /// Other outputs, none of them a terminal; nobody answers.
    pub fn to(out: impl Write + 'static, notes: impl Write + 'static) -> Self {
        Self { out: Box::new(out), notes: Box::new(notes), terminal: false, answers: None }
    }

    /// With somebody who answers questions.
    #[must_use]
    pub fn answered_by(self, answers: impl BufRead + 'static) -> Self {
        Self { answers: Some(Box::new(answers)), ..self }
    }

    /// Asks a question that is answered with yes or no; anything else, and the end of the input, is no. None where
    /// nobody is there to answer.
    pub fn ask(&mut self, question: &str) -> Option<bool> {
        let answers = self.answers.as_mut()?;
        if write_all(&mut self.notes, &format!("{question} [y/N] ")).is_err() {
            return None;
        }
        let mut line = String::new();
        let read = answers.read_line(&mut line).unwrap_or(0);
        if !line.ends_with('\n') {
            self.note("");
        }
        Some(read > 0 && matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
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
