//! What comes from files must not drive the terminal: names, results and logs are shown, never obeyed.
//!
//! Escaped are the C0 and C1 controls (newline and tab apart), DEL, and the characters that reorder or hide text.

use std::borrow::Cow;

/// Text that may span lines, safe to print.
#[must_use]
pub fn sanitize(text: &str) -> Cow<'_, str> {
    escape(text, |c| is_dangerous(c) && !matches!(c, '\n' | '\t'))
}

/// Text for one line of at most `width` characters, safe to print: line ends are escaped too, and what is too long
/// ends in `…`.
#[must_use]
pub fn one_line(text: &str, width: usize) -> String {
    let safe = escape(text, is_dangerous);
    if safe.chars().count() <= width {
        return safe.into_owned();
    }
    let mut cut: String = safe.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// JSON text, with dangerous characters inside its strings as `\u` escapes: it stays the same document.
#[must_use]
pub fn sanitize_json(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_dangerous(c) && !matches!(c, '\n' | '\t')) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_dangerous(c) && !matches!(c, '\n' | '\t') {
            for unit in c.encode_utf16(&mut [0; 2]) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

fn escape(text: &str, dangerous: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&dangerous) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !dangerous(c) => safe.push(c),
            '\n' => safe.push_str("\\n"),
            '\t' => safe.push_str("\\t"),
            '\r' => safe.push_str("\\r"),
            c if u32::from(c) < 0x100 => safe.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => safe.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
        }
    }
    Cow::Owned(safe)
}

/// Controls, and the format characters that reorder, hide or break text.
fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_commands_become_letters() {
        for (evil, shown) in [
            ("\x1b]8;;http://evil\x07click", "\\x1b]8;;http://evil\\x07click"),
            ("\x1b]52;c;cm0gLXJm\x1b\\", "\\x1b]52;c;cm0gLXJm\\x1b\\"),
            ("\u{9b}31mred", "\\x9b31mred"),
            ("gpj.\u{202e}nosj", "gpj.\\u{202e}nosj"),
            ("over\rwritten\x7f", "over\\rwritten\\x7f"),
        ] {
            assert_eq!(sanitize(evil), shown);
            assert_eq!(one_line(evil, 200), shown);
        }
        assert_eq!(sanitize("two\nlines\tand ünï"), "two\nlines\tand ünï");
        assert_eq!(one_line("two\nlines", 80), "two\\nlines");
        assert_eq!(one_line("a long name", 6), "a lon…");
    }

    #[test]
    fn escaped_json_is_the_same_document() {
        let value = serde_json::json!({ "text": "\u{9b}31m \u{202e}x\u{e0001} \x1b[2J" });
        let text = serde_json::to_string_pretty(&value).unwrap();
        let safe = sanitize_json(&text);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
        assert!(!safe.chars().any(|c| is_dangerous(c) && c != '\n'));
    }

    #[test]
    fn no_byte_of_any_text_commands_the_terminal() {
        let all: String = (0..0x2_000).filter_map(char::from_u32).chain(['\u{202e}', '\u{2066}']).collect();
        assert!(sanitize(&all).bytes().all(|b| b >= 0x20 || matches!(b, b'\n' | b'\t')));
        assert!(one_line(&all, usize::MAX).bytes().all(|b| b >= 0x20));
    }
}
