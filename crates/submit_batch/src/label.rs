//! What a batch is called: `whisper-urban-prepper-2025-02-05`, from the script, the folder, and the day.

use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use model::id::{BadId, BatchId};

use crate::list;
use crate::walk::{ARCHIVES, MEDIA, ends_with};

/// Longest name within an id: an id has 128 bytes, and `-12.b.123456` still has to follow.
const NAME_BYTES_MAX: usize = 60;

/// The id a batch would like to have.
///
/// # Errors
/// [`BadId`] when the script's name makes no legal id.
pub fn wanted(script: &str, name: &str, day: NaiveDate) -> Result<BatchId, BadId> {
    let first = script.split('_').next().unwrap_or(script);
    let (first, name) = (slug(first), slug(name));
    BatchId::new(format!("{}-{}-{day}", if first.is_empty() { "batch" } else { &first }, or_media(&name)))
}

/// The id of part `number`, from 1, of a batch that was cut by `--batch-size`.
///
/// # Errors
/// [`BadId`] when the number makes it too long.
pub fn part(id: &BatchId, number: usize) -> Result<BatchId, BadId> {
    if number <= 1 { Ok(id.clone()) } else { BatchId::new(format!("{id}-{number}")) }
}

/// The name of what the command line names: of the folder, the file, the list; of many, that of the folder `base`
/// that holds them all.
#[must_use]
pub fn name_of(paths: &[PathBuf], base: &Path) -> String {
    let own = match paths {
        [one] => match list::is_list(one) {
            Some(list) => list.file_stem().map(|stem| stem.to_string_lossy().into_owned()),
            None => one.file_name().map(|_| bare_name(one)),
        },
        _ => None,
    };
    own.unwrap_or_else(|| bare_name(base))
}

/// A file's name without the ending that says what it is; a folder may be called `talks.zim` after what it was.
fn bare_name(path: &Path) -> String {
    let ending = ends_with(path, MEDIA) || ends_with(path, ARCHIVES);
    let name = if ending { path.file_stem() } else { path.file_name() };
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Lower-case letters, digits, and single hyphens between them.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() >= NAME_BYTES_MAX {
            break;
        }
    }
    slug.trim_end_matches('-').to_owned()
}

fn or_media(name: &str) -> &str {
    if name.is_empty() { "media" } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(script: &str, path: &str) -> String {
        let name = name_of(&[PathBuf::from(path)], Path::new("/base"));
        let day = NaiveDate::from_ymd_opt(2025, 2, 5).unwrap();
        wanted(script, &name, day).unwrap().to_string()
    }

    #[test]
    fn the_id_is_that_of_the_design() {
        assert_eq!(
            id("whisper_transcribe", "/path/to/urban-prepper.zim"),
            "whisper-urban-prepper-2025-02-05"
        );
        assert_eq!(id("whisper_transcribe", "/videos/Urban Prepper/"), "whisper-urban-prepper-2025-02-05");
        assert_eq!(id("sphinx_transcribe", "talk.one.mp4"), "sphinx-talk-one-2025-02-05");
        assert_eq!(id("whisper_transcribe", "@lists/monday.txt"), "whisper-monday-2025-02-05");
        assert_eq!(id("whisper_transcribe", "."), "whisper-base-2025-02-05");
        assert_eq!(id("whisper_transcribe", "/録音"), "whisper-media-2025-02-05");
    }

    #[test]
    fn many_paths_are_named_after_the_folder_that_holds_them() {
        let paths = ["/talks/a", "/talks/b"].map(PathBuf::from);
        assert_eq!(name_of(&paths, Path::new("/talks")), "talks");
    }

    #[test]
    fn a_long_name_still_leaves_room_for_parts_and_items() {
        let long = id("whisper_transcribe", &"x".repeat(200));
        let part = part(&BatchId::new(format!("{long}.b")).unwrap(), 12_345).unwrap();
        assert!(model::TaskId::new(format!("{part}.123456")).is_ok());
    }
}
