//! What has been done already: all wanted files are there, none older than the medium.
//!
//! Outputs appear by rename, so one that exists is whole. The scripts judge each format by the same rule.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Whether every output was written after the medium last changed.
#[must_use]
pub fn is_finished(media: &Path, outputs: &BTreeMap<String, PathBuf>) -> bool {
    let Some(changed) = written(media) else { return false };
    !outputs.is_empty() && outputs.values().all(|path| written(path).is_some_and(|at| at >= changed))
}

fn written(path: &Path) -> Option<SystemTime> {
    let metadata = fs::metadata(path).ok()?;
    metadata.is_file().then(|| metadata.modified().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::Duration;

    /// A folder with files that were last changed so many seconds after a fixed moment.
    fn folder(files: &[(&str, u64)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, at) in files {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + at)).unwrap();
        }
        folder
    }

    #[test]
    fn finished_means_each_wanted_format_and_none_older_than_the_medium() {
        for (files, formats, finished) in [
            (&[("a.mp4", 10), ("a.txt", 11), ("a.srt", 12)][..], &["txt", "srt"][..], true),
            (&[("a.mp4", 10), ("a.txt", 11)], &["txt", "srt"], false),
            (&[("a.mp4", 10), ("a.txt", 11)], &["txt"], true),
            (&[("a.mp4", 10), ("a.txt", 10)], &["txt"], true),
            (&[("a.mp4", 10), ("a.txt", 9)], &["txt"], false),
            (&[("a.mp4", 10), ("a.srt", 11)], &["txt"], false),
            (&[("a.txt", 11)], &["txt"], false),
            (&[("a.mp4", 10)], &[], false),
        ] {
            let folder = folder(files);
            let outputs = formats
                .iter()
                .map(|kind| ((*kind).to_owned(), folder.path().join(format!("a.{kind}"))))
                .collect();
            assert_eq!(
                is_finished(&folder.path().join("a.mp4"), &outputs),
                finished,
                "{files:?} {formats:?}"
            );
        }
    }

    #[test]
    fn a_folder_of_that_name_is_no_output() {
        let folder = folder(&[("a.mp4", 10)]);
        let txt = folder.path().join("a.txt");
        fs::create_dir(&txt).unwrap();
        assert!(!is_finished(&folder.path().join("a.mp4"), &BTreeMap::from([("txt".to_owned(), txt)])));
    }
}
