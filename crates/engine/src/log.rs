//! What a program writes, kept within bounds: a file that stops at its limit, and the last lines for the record.
//!
//! Not here: where the file lies (`spool::layout`).

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// A bounded log.
#[derive(Debug, Default)]
pub struct Log {
    file: Option<File>,
    room: u64,
    tail: VecDeque<u8>,
    tail_bytes_max: usize,
}

impl Log {
    /// A log in a new file at `path` of at most `bytes_max`, whose last `tail_bytes_max` go into a record.
    ///
    /// A file that cannot be made is no reason to stop a task: then there is only the tail.
    #[must_use]
    pub fn create(path: &Path, bytes_max: u64, tail_bytes_max: u64) -> Self {
        let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o640).open(path);
        let file = file
            .inspect_err(|error| tracing::warn!("cannot write the log `{}`: {error}", path.display()))
            .ok();
        Self { file, room: bytes_max, ..Self::tail_only(tail_bytes_max) }
    }

    /// A log without a file.
    #[must_use]
    pub fn tail_only(tail_bytes_max: u64) -> Self {
        Self { tail_bytes_max: usize::try_from(tail_bytes_max).unwrap_or(usize::MAX), ..Self::default() }
    }

    /// Adds what a program wrote.
    pub fn write(&mut self, bytes: &[u8]) {
        self.tail.extend(&bytes[bytes.len().saturating_sub(self.tail_bytes_max)..]);
        let excess = self.tail.len().saturating_sub(self.tail_bytes_max);
        self.tail.drain(..excess);
        self.write_file(bytes);
    }

    fn write_file(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let fits = usize::try_from(self.room).map_or(bytes.len(), |room| room.min(bytes.len()));
        let mut written = file.write_all(&bytes[..fits]);
        self.room -= fits as u64;
        if written.is_ok() && fits < bytes.len() {
            written = file.write_all(b"\n[the log is full: what follows is not kept]\n");
            self.file = None;
        }
        if written.is_err() {
            // A full disk must not stop the program that is being logged.
            self.file = None;
        }
    }

    /// The last lines, safe to print; none if nothing was written.
    #[must_use]
    pub fn tail(&self) -> Option<String> {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        // What was cut may begin in the middle of a character.
        let start = if bytes.len() < self.tail_bytes_max { 0 } else { whole_character(&bytes) };
        let text = printable(&bytes[start..]);
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }
}

fn whole_character(bytes: &[u8]) -> usize {
    bytes.iter().take(4).position(|byte| byte & 0xc0 != 0x80).unwrap_or(0)
}

/// Text that cannot drive a terminal: control characters, escape sequences and bidirectional overrides are spelled out.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '\n' | '\t' => text.push(character),
            '\r' => {}
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => {
                text.extend(character.escape_unicode());
            }
            _ if character.is_control() => text.push_str(&format!("\\x{:02x}", u32::from(character))),
            _ => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_stops_at_its_limit_and_its_tail_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::create(&path, 10, 5);
        log.write(b"12345678");
        log.write(b"9abcdef");
        log.write(b"xyz");
        let kept = std::fs::read_to_string(&path).unwrap();
        assert!(kept.starts_with("123456789a\n[the log is full"), "{kept}");
        assert_eq!(log.tail().as_deref(), Some("efxyz"));
    }

    #[test]
    fn a_tail_cannot_drive_a_terminal_and_does_not_begin_within_a_character() {
        let mut log = Log::tail_only(13);
        log.write("ééé\x1b]52;c;YQ==\x07".as_bytes());
        let tail = log.tail().unwrap();
        assert_eq!(tail, "\\x1b]52;c;YQ==\\x07");
        assert_eq!(printable(b"a\xff\x00b\r\n"), "a\u{fffd}\\x00b\n");
        assert_eq!(printable("x\u{202e}y".as_bytes()), "x\\u{202e}y");
    }

    #[test]
    fn a_log_that_cannot_be_made_still_has_a_tail() {
        let mut log = Log::create(Path::new("/nonexistent/folder/log"), 10, 10);
        log.write(b"why it failed");
        assert_eq!(log.tail().as_deref(), Some("it failed"));
    }
}
