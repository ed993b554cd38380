//! The only place that writes: everything shown passes `sanitize` here.

use std::io::{self, Write};

use serde::Serialize;

use crate::failure::{Failure, exit};
use crate::sanitize::{sanitize, sanitize_json};

/// Standard output and standard error, and how to speak on them.
pub struct Console<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    /// Whether answers are JSON.
    pub json: bool,
}

impl std::fmt::Debug for Console<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").field("json", &self.json).finish_non_exhaustive()
    }
}

impl<'a> Console<'a> {
    /// A console on these two.
    pub fn new(out: &'a mut dyn Write, err: &'a mut dyn Write) -> Self {
        Self { out, err, json: false }
    }

    /// An answer: one or more lines on standard output.
    ///
    /// # Errors
    /// When nobody reads it any more.
    pub fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", sanitize(text))?;
        self.out.flush()
    }

    /// A piece of text whose line ends are its own, such as a log.
    ///
    /// # Errors
    /// When nobody reads it any more.
    pub fn pass_on(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(sanitize(text).as_bytes())?;
        self.out.flush()
    }

    /// An answer as JSON.
    ///
    /// # Errors
    /// When nobody reads it any more.
    pub fn say_json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        writeln!(self.out, "{}", sanitize_json(&text))?;
        self.out.flush()
    }

    /// JSON text that exists already.
    ///
    /// # Errors
    /// When nobody reads it any more.
    pub fn say_json_text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(sanitize_json(text).as_bytes())?;
        self.out.flush()
    }

    /// Bytes that are to reach the terminal as they are: moving the cursor, clearing the screen.
    pub(crate) fn command(&mut self, bytes: &str) -> io::Result<()> {
        self.out.write_all(bytes.as_bytes())?;
        self.out.flush()
    }

    /// Something to know, beside the answer; nobody depends on its being read.
    pub fn note(&mut self, text: &str) {
        drop(writeln!(self.err, "{}", sanitize(text)).and_then(|()| self.err.flush()));
    }

    /// Why the command failed.
    pub fn fail(&mut self, failure: &Failure) {
        if failure.code == exit::PIPE {
            return;
        }
        if self.json {
            let told = serde_json::json!({ "error": {
                "exit_code": failure.code, "message": failure.message, "next_step": failure.next_step } });
            drop(writeln!(self.err, "{}", sanitize_json(&told.to_string())));
            return;
        }
        self.note(&format!("error: {}", failure.message));
        if let Some(step) = &failure.next_step {
            self.note(&format!(" next: {step}"));
        }
    }
}
