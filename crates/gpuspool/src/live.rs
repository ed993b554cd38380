//! A screen that is drawn again and again, and given back as it was found.

use std::io;

use crate::console::Console;
use crate::screen::WIDTH_DEFAULT;

/// The other screen, the cursor hidden; the screen of before is kept.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
/// The screen and the cursor of before.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_ALL: &str = "\x1b[2J";
const CLEAR_BELOW: &str = "\x1b[J";
/// Before a line, not after it: behind a line as wide as the terminal it would take the last character.
const CLEAR_LINE: &str = "\x1b[K";

/// Columns and rows of the terminal on standard output; none if there is none.
#[must_use]
pub(crate) fn terminal_size() -> Option<(usize, usize)> {
    let stdout = io::stdout();
    if !rustix::termios::isatty(&stdout) {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((usize::from(size.ws_col), usize::from(size.ws_row)))
}

/// Characters a line may have.
#[must_use]
pub(crate) fn width() -> usize {
    terminal_size().map_or(WIDTH_DEFAULT, |(columns, _)| columns)
}

/// A screen of one's own, until it is dropped.
#[derive(Debug)]
pub(crate) struct Live<'c, 'a> {
    console: &'c mut Console<'a>,
    shown: String,
    size: Option<(usize, usize)>,
}

impl<'c, 'a> Live<'c, 'a> {
    pub(crate) fn enter(console: &'c mut Console<'a>) -> io::Result<Self> {
        console.command(ENTER)?;
        Ok(Self { console, shown: String::new(), size: terminal_size() })
    }

    /// Shows `text`, cut to the screen's height.
    pub(crate) fn show(&mut self, text: &str) -> io::Result<()> {
        let size = terminal_size();
        if size != self.size {
            self.size = size;
            self.shown.clear();
            self.console.command(CLEAR_ALL)?;
        }
        let rows = size.map_or(usize::MAX, |(_, rows)| rows.saturating_sub(1));
        let cut: String = text.split_inclusive('\n').take(rows).collect();
        if cut != self.shown {
            self.console.command(HOME)?;
            // What was longer here before would stick out behind the line.
            for line in cut.split_inclusive('\n') {
                self.console.command(CLEAR_LINE)?;
                self.console.pass_on(line)?;
            }
            self.console.command(CLEAR_BELOW)?;
            self.shown = cut;
        }
        Ok(())
    }
}

impl Drop for Live<'_, '_> {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        drop(self.console.command(LEAVE));
    }
}

#[cfg(test)]
mod tests {
    use super::{CLEAR_LINE, Live};
    use crate::console::Console;

    #[test]
    fn a_shorter_line_leaves_nothing_of_the_longer_one_that_stood_there() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut console = Console::new(&mut out, &mut err);
        let mut live = Live::enter(&mut console).unwrap();
        live.show("a frame that is long\nfooter\n").unwrap();
        live.show("footer\n").unwrap();
        drop(live);

        let drawn = String::from_utf8(out).unwrap();
        let lines = ["a frame that is long\n", "footer\n", "footer\n"];
        let cleared = lines.map(|line| format!("{CLEAR_LINE}{line}"));
        let at = cleared
            .iter()
            .try_fold(0, |from, line| drawn[from..].find(line).map(|at| from + at + line.len()));
        assert!(at.is_some(), "{drawn:?}");
    }
}
