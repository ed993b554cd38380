//! List files: `@list.txt` names one path a line, relative to itself; blank lines and `#` comments say nothing.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// A list longer than this is not a list, in bytes.
const BYTES_MAX: u64 = 64 << 20;

/// A path that somebody named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The path.
    pub path: PathBuf,
    /// The list and the line it stands on, if it is from a list.
    pub line: Option<(PathBuf, usize)>,
}

impl Named {
    /// The sentence with the place in front, where the path comes from a list.
    #[must_use]
    pub fn about(&self, why: String) -> String {
        match &self.line {
            Some((list, line)) => format!("{why} (line {line} of `{}`)", list.display()),
            None => why,
        }
    }
}

/// The list file that an argument names, if it names one.
#[must_use]
pub fn is_list(argument: &Path) -> Option<PathBuf> {
    argument.to_str()?.strip_prefix('@').map(PathBuf::from)
}

/// Reads a list file.
///
/// # Errors
/// [`Failure::Input`] when it cannot be read, is not text, or names nothing.
pub fn read(file: &Path) -> Result<Vec<Named>, Failure> {
    let refuse = |why: String| Failure::input(file, why);
    let metadata = fs::metadata(file).map_err(|error| refuse(crate::words::io(&error)))?;
    if !metadata.is_file() || metadata.len() > BYTES_MAX {
        return Err(refuse("not a list: a text file with one path a line is meant".into()));
    }
    let bytes = fs::read(file).map_err(|error| refuse(crate::words::io(&error)))?;
    let text =
        String::from_utf8(bytes).map_err(|_| refuse("not a list: the file is not UTF-8 text".into()))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let named: Vec<Named> = entries(&text)
        .map(|(line, entry)| Named { path: folder.join(entry), line: Some((file.to_owned(), line)) })
        .collect();
    if named.is_empty() { Err(refuse("the list names nothing".into())) } else { Ok(named) }
}

/// The entries of a list with their line numbers, from 1.
fn entries(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.trim_start_matches('\u{feff}')
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_end_matches('\r')))
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blank_lines_and_windows_line_ends_say_nothing() {
        let text = "\u{feff}# talks\r\n\r\na b.mp4\r\n  \nsub/c.webm\n";
        assert_eq!(entries(text).collect::<Vec<_>>(), [(3, "a b.mp4"), (5, "sub/c.webm")]);
    }
}
