//! A box of fixed width to write lines into; every text is made safe and cut to fit here.

use crate::sanitize::one_line;

/// Lines in a box.
#[derive(Debug)]
pub(super) struct Paper {
    width: usize,
    text: String,
}

impl Paper {
    pub(super) const fn new(width: usize) -> Self {
        Self { width, text: String::new() }
    }

    /// Characters between the margins.
    pub(super) const fn room(&self) -> usize {
        self.width - 6
    }

    pub(super) fn text(self) -> String {
        self.text
    }

    pub(super) fn top(&mut self) {
        self.border('╔', '╗');
    }

    pub(super) fn rule(&mut self) {
        self.border('╠', '╣');
    }

    pub(super) fn bottom(&mut self) {
        self.border('╚', '╝');
    }

    fn border(&mut self, left: char, right: char) {
        self.text.push_str(&format!("{left}{}{right}\n", "═".repeat(self.width - 2)));
    }

    pub(super) fn line(&mut self, text: &str) {
        let room = self.room();
        self.text.push_str(&format!("║  {:<room$}  ║\n", one_line(text, room)));
    }

    /// One text at the left end, one at the right end.
    pub(super) fn ends(&mut self, left: &str, right: &str) {
        let right = one_line(right, self.room());
        let left = one_line(left, self.room().saturating_sub(right.chars().count() + 1));
        let gap = self.room() - left.chars().count() - right.chars().count();
        self.line(&format!("{left}{}{right}", " ".repeat(gap)));
    }

    /// One text in each half.
    pub(super) fn halves(&mut self, left: &str, right: &str) {
        let half = (self.room() - 3) / 2;
        let rest = self.room() - 3 - half;
        self.line(&format!("{:<half$} │ {}", one_line(left, half), one_line(right, rest)));
    }

    /// A text that may take several lines, after a label that it hangs from.
    pub(super) fn wrapped(&mut self, label: &str, text: &str) {
        let room = self.room().saturating_sub(label.chars().count()).max(20);
        let mut lead = label.to_owned();
        for line in wrap(&one_line(text, room * 4), room) {
            self.line(&format!("{lead}{line}"));
            lead = " ".repeat(label.chars().count());
        }
    }
}

/// Breaks between words; a word longer than a line is cut.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let word = one_line(word, room);
        let length = word.chars().count();
        match lines.last_mut() {
            Some(line) if line.is_empty() => *line = word,
            Some(line) if line.chars().count() + 1 + length <= room => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_exactly_as_wide_as_the_box() {
        let mut paper = Paper::new(66);
        paper.top();
        paper.line(&"long ".repeat(50));
        paper.line("\x1b[31m and\na second line");
        paper.ends(&"l".repeat(99), "right");
        paper.halves("left", &"r".repeat(99));
        paper.wrapped("label: ", &format!("{} {}", "word ".repeat(30), "x".repeat(200)));
        paper.bottom();
        for line in paper.text().lines() {
            assert_eq!(line.chars().count(), 66, "{line}");
        }
    }
}
