//! How amounts and names are said to people: media times, counts, names with odd characters, errors of the system.

use std::io;
use std::path::Path;

/// `1:02:03`, or `2:03` below an hour.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "float to int casts saturate, and no shown time is near 2^64 seconds"
)]
pub fn clock(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    let (hours, minutes, seconds) = (whole / 3_600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// A time to wait, as one says it: `45 s`, `12 min`, `3 h 05 min`.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "float to int casts saturate, and no shown time is near 2^64 seconds"
)]
pub fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..100 => format!("{whole} s"),
        100..5_970 => format!("{} min", (whole + 30) / 60),
        _ => {
            let minutes = (whole + 30) / 60;
            format!("{} h {:02} min", minutes / 60, minutes % 60)
        }
    }
}

/// `1 item`, `3 items`.
#[must_use]
pub fn count(n: usize, one: &str, many: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {many}") }
}

/// `3 items`.
#[must_use]
pub fn items(n: usize) -> String {
    count(n, "item", "items")
}

/// A speed in media seconds a second.
#[must_use]
pub fn speed(factor: f64) -> String {
    if factor < 100.0 { format!("{factor:.1}x realtime") } else { format!("{factor:.0}x realtime") }
}

/// A text whose control characters cannot reach a terminal.
#[must_use]
pub fn safe(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A path whose control characters cannot reach a terminal.
#[must_use]
pub fn path(path: &Path) -> String {
    safe(&path.to_string_lossy())
}

/// At most `most` characters of `text`, without its middle.
#[must_use]
pub fn shorten(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    let head = (most - 1) / 3;
    let tail = most - 1 - head;
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(length - tail).collect();
    format!("{start}…{end}")
}

/// An error of the system as a lower-case fragment without its number.
#[must_use]
pub fn io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file or folder".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or(&text);
            let mut chars = text.chars();
            chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_speeds_are_short() {
        assert_eq!(
            [0.2, 59.6, 3_599.0, 3_600.0, 90_061.0].map(clock),
            ["0:00", "1:00", "59:59", "1:00:00", "25:01:01"]
        );
        assert_eq!([0.25, 14.04, 250.4].map(speed), ["0.2x realtime", "14.0x realtime", "250x realtime"]);
    }

    #[test]
    fn waits_are_said_in_the_unit_that_fits() {
        assert_eq!(
            [0.4, 99.4, 100.0, 5_969.0, 5_970.0, 90_061.0].map(span),
            ["0 s", "99 s", "2 min", "99 min", "1 h 40 min", "25 h 01 min"]
        );
    }

    #[test]
    fn a_file_name_cannot_write_to_the_terminal() {
        assert_eq!(safe("a\x1b[2J\u{202e}b\nc é"), "a\\u{1b}[2J\\u{202e}b\\nc é");
    }

    #[test]
    fn a_long_name_keeps_its_ends() {
        assert_eq!(shorten("abcdefghij", 10), "abcdefghij");
        assert_eq!(shorten("abcdefghijk", 7), "ab…hijk");
    }
}
