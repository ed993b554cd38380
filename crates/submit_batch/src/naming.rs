//! What the outputs of a medium are called: its stem, or its full name where the stem would not be its own.
//!
//! The names depend on all media that lie in a folder, not on those that are submitted, so they stay the same from
//! one run to the next. Two media never get the same output.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::walk::{MEDIA, Media, ends_with};

/// Names outputs, and remembers the folders it has looked at.
#[derive(Debug)]
pub struct Naming {
    formats: Vec<String>,
    output_dir: Option<PathBuf>,
    folders: HashMap<PathBuf, Siblings>,
}

impl Naming {
    /// Outputs of `formats`, beside the media or mirrored below `output_dir`.
    #[must_use]
    pub fn new(formats: &[String], output_dir: Option<&Path>) -> Self {
        Self {
            formats: formats.to_vec(),
            output_dir: output_dir.map(Path::to_owned),
            folders: HashMap::new(),
        }
    }

    /// The files to write for a medium, by format.
    pub fn outputs(&mut self, media: &Media) -> BTreeMap<String, PathBuf> {
        let folder = media.path.parent().unwrap_or(Path::new("/"));
        let siblings =
            self.folders.entry(folder.to_owned()).or_insert_with(|| Siblings::new(&media_names(folder)));
        let name = media.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let stem = siblings.stem_for(&name);
        let target = match &self.output_dir {
            Some(dir) => dir.join(media.relative.parent().unwrap_or(Path::new(""))),
            None => folder.to_owned(),
        };
        self.formats.iter().map(|kind| (kind.clone(), target.join(format!("{stem}.{kind}")))).collect()
    }
}

/// The names of all media of a folder; an unreadable folder has none, and each medium its own stem.
fn media_names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| ends_with(Path::new(name), MEDIA))
        .collect()
}

/// The media of a folder, as far as their names could collide. Compared without regard to case, as the outputs
/// may lie on a file system that makes no difference.
#[derive(Debug)]
pub struct Siblings {
    stems: HashMap<String, usize>,
    names: HashSet<String>,
}

impl Siblings {
    /// Of these names.
    #[must_use]
    pub fn new(names: &[String]) -> Self {
        let names: HashSet<String> = names.iter().cloned().collect();
        let mut stems: HashMap<String, usize> = HashMap::new();
        for name in &names {
            *stems.entry(stem(name).to_lowercase()).or_default() += 1;
        }
        Self { stems, names: names.iter().map(|name| name.to_lowercase()).collect() }
    }

    /// What the outputs of `name` are called before their ending.
    ///
    /// The stem is taken only if no other medium has it as its stem, or as its full name (which is what `a.mp4`
    /// falls back to beside `a.webm`, and is the stem of `a.mp4.webm`).
    #[must_use]
    pub fn stem_for<'a>(&self, name: &'a str) -> &'a str {
        let short = stem(name);
        let folded = short.to_lowercase();
        let alone = self.stems.get(&folded).is_none_or(|n| *n <= 1) && !self.names.contains(&folded);
        if alone { short } else { name }
    }
}

fn stem(name: &str) -> &str {
    Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let siblings = Siblings::new(&names);
        names.iter().map(|name| siblings.stem_for(name).to_owned()).collect()
    }

    #[test]
    fn the_stem_is_taken_where_it_is_its_own() {
        assert_eq!(named(&["a.mp4", "b.webm"]), ["a", "b"]);
        assert_eq!(named(&["a.mp4", "a.webm", "b.mp3"]), ["a.mp4", "a.webm", "b"]);
        assert_eq!(named(&["Talk.mp4", "talk.webm"]), ["Talk.mp4", "talk.webm"]);
        assert_eq!(named(&["a.mp4", "a.webm", "a.mp4.webm"]), ["a.mp4", "a.webm", "a.mp4.webm"]);
        assert_eq!(named(&["a.b.mp4", "a.mp4"]), ["a.b", "a"]);
    }

    proptest::proptest! {
        #[test]
        fn no_two_media_share_an_output(
            names in proptest::collection::hash_set("[ab]{1,2}(\\.(mp4|webm|mp3)){1,3}", 1..12)
        ) {
            let mut names: Vec<String> = names.into_iter().collect();
            let once: HashMap<String, String> = stems(&names);
            let distinct: HashSet<&String> = once.values().collect();
            proptest::prop_assert_eq!(distinct.len(), names.len(), "{:?}", once);
            names.reverse();
            proptest::prop_assert_eq!(&stems(&names), &once, "the order of the names must not matter");
        }
    }

    fn stems(names: &[String]) -> HashMap<String, String> {
        let siblings = Siblings::new(names);
        names.iter().map(|name| (name.clone(), siblings.stem_for(name).to_owned())).collect()
    }
}
