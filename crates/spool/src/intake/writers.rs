//! Who has a file open for writing: asked only when a file is about to be rejected.
//!
//! The kernel would tell through a lease (`F_SETLEASE`), which the safe bindings in use here do not have; `/proc` says
//! the same of every process whose files we may see, which are those that could have written into our folders.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use model::Millis;

/// How long one look through `/proc` holds, in milliseconds: thousands of files may be rejected at once.
const HOLDS_MS: i64 = 500;

/// Files that are open for writing, by device and inode.
#[derive(Debug, Default)]
pub(super) struct Writers {
    open: HashSet<(u64, u64)>,
    seen_at: Option<Millis>,
}

impl Writers {
    /// Whether somebody had this file open for writing a moment ago.
    pub(super) fn has(&mut self, device: u64, inode: u64, now: Millis) -> bool {
        if self.seen_at.is_none_or(|seen| (now - seen).0 >= HOLDS_MS || now < seen) {
            self.open = look();
            self.seen_at = Some(now);
        }
        self.open.contains(&(device, inode))
    }
}

fn look() -> HashSet<(u64, u64)> {
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let folders = processes.filter(|entry| {
        entry.file_name().to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
    });
    let mut open = HashSet::new();
    for process in folders {
        // Other users' processes do not show theirs, and a process may end while we look.
        let files = fs::read_dir(process.path().join("fd")).into_iter().flatten().filter_map(Result::ok);
        for file in files {
            let info = process.path().join("fdinfo").join(file.file_name());
            if let Ok(meta) = fs::metadata(file.path())
                && meta.is_file()
                && writes(&info)
            {
                open.insert((meta.dev(), meta.ino()));
            }
        }
    }
    open
}

/// Whether the descriptor's flags (in octal) allow writing.
fn writes(info: &Path) -> bool {
    const ACCESS_MODE: u32 = 0o3;
    let text = fs::read_to_string(info).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| matches!(flags & ACCESS_MODE, 1 | 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_pen_is_seen_and_an_open_book_is_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let meta = file.as_file().metadata().unwrap();
        let at = Millis(5_000);
        assert!(Writers::default().has(meta.dev(), meta.ino(), at));
        let path = file.into_temp_path();
        let reader = fs::File::open(&path).unwrap();
        assert!(!Writers::default().has(meta.dev(), meta.ino(), at));
        drop(reader);
    }
}
