//! Which files are media: folders are walked, lists are read, and everything left out has a reason.
//!
//! Links to files are followed; links to folders are not, so a walk always ends and never leaves its tree.
//! Not here: what is in the media (`probe`), what has been done already (`done`).

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::list;

/// Endings of media files: what the transcription scripts take.
pub const MEDIA: &[&str] = &[
    "3gp", "aac", "aiff", "amr", "avi", "flac", "flv", "m4a", "m4v", "mka", "mkv", "mov", "mp2", "mp3",
    "mp4", "mpeg", "mpg", "mts", "oga", "ogg", "ogv", "opus", "ts", "wav", "webm", "wma", "wmv",
];

/// Endings of files that hold other files.
pub const ARCHIVES: &[&str] =
    &["zim", "zip", "tar", "tgz", "tbz2", "txz", "gz", "bz2", "xz", "zst", "7z", "rar", "iso"];

/// Endings of files that are still being fetched.
const PARTIAL: &[&str] =
    &["part", "partial", "crdownload", "download", "ytdl", "tmp", "temp", "aria2", "!qb"];

/// A media file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// Absolute, in a folder whose links are resolved.
    pub path: PathBuf,
    /// Below the folder that all paths of the command line have in common.
    pub relative: PathBuf,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The media, by path.
    pub media: Vec<Media>,
    /// What was left out.
    pub passed_over: Vec<PassedOver>,
    /// The folder that all paths of the command line have in common.
    pub base: PathBuf,
}

/// A file or folder that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub why: Why,
}

/// Why something was left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the sentences below say it")]
pub enum Why {
    NotMedia,
    Hidden,
    Partial,
    Archive,
    Empty,
    LinkedFolder,
    BrokenLink,
    NotAFile,
    NameNotUtf8,
    NamedTwice,
    Unreadable(String),
}

impl Why {
    /// The name used in JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NotMedia => "not_media",
            Self::Hidden => "hidden",
            Self::Partial => "partial",
            Self::Archive => "archive",
            Self::Empty => "empty",
            Self::LinkedFolder => "linked_folder",
            Self::BrokenLink => "broken_link",
            Self::NotAFile => "not_a_file",
            Self::NameNotUtf8 => "name_not_utf8",
            Self::NamedTwice => "named_twice",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotMedia => "not media by its name",
            Self::Hidden => "hidden",
            Self::Partial => "still being fetched, by its name",
            Self::Archive => "an archive; archives cannot be read yet, unpack it",
            Self::Empty => "an empty file",
            Self::LinkedFolder => "a link to a folder, which is not followed; name the folder itself",
            Self::BrokenLink => "a link to nothing",
            Self::NotAFile => "not a regular file",
            Self::NameNotUtf8 => "the name is not UTF-8, rename it",
            Self::NamedTwice => "named twice, taken once",
            Self::Unreadable(error) => return write!(f, "cannot be read: {error}"),
        })
    }
}

/// Finds the media that the paths of the command line name.
///
/// # Errors
/// [`Failure::Input`] when a path is missing, an archive, or no media file, or when all of them together hold none.
pub fn gather(paths: &[PathBuf]) -> Result<Found, Failure> {
    let mut roots = Vec::new();
    for path in paths {
        match list::is_list(path) {
            Some(file) => roots.extend(list::read(&file)?),
            None => roots.push(list::Named { path: path.clone(), line: None }),
        }
    }
    let mut search = Search::default();
    let mut folders = Vec::new();
    for root in roots {
        folders.push(search.root(&root)?);
    }
    let base = common_folder(&folders);
    if search.media.is_empty() {
        return Err(no_media(paths, &search.passed_over));
    }
    let media = search.media.into_keys().map(|path| Media {
        relative: path.strip_prefix(&base).map_or_else(|_| path.clone(), Path::to_owned),
        path,
    });
    Ok(Found { media: media.collect(), passed_over: search.passed_over, base })
}

#[derive(Default)]
struct Search {
    media: BTreeMap<PathBuf, ()>,
    passed_over: Vec<PassedOver>,
}

impl Search {
    /// Takes in what one path names, and gives the folder it lies in or is.
    fn root(&mut self, named: &list::Named) -> Result<PathBuf, Failure> {
        let path = &named.path;
        let refuse = |why: String| Failure::input(path, named.about(why));
        let metadata = fs::metadata(path).map_err(|error| refuse(crate::words::io(&error)))?;
        if metadata.is_dir() {
            let folder = path.canonicalize().map_err(|error| refuse(crate::words::io(&error)))?;
            self.folder(&folder);
            return Ok(folder);
        }
        if ends_with(path, ARCHIVES) {
            return Err(refuse(
                "this is an archive, and archives cannot be read yet; unpack it and name the folder".into(),
            ));
        }
        let name = path.file_name().ok_or_else(|| refuse("this names no file".into()))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = parent.canonicalize().map_err(|error| refuse(crate::words::io(&error)))?;
        let file = folder.join(name);
        match judge(&file, &metadata) {
            None => self.take(file),
            Some(Why::NotMedia) if ends_with(path, &["txt", "lst", "list", "m3u", "m3u8"]) => {
                let name = path.display();
                return Err(refuse(format!("not media by its name; is it a list? then write `@{name}`")));
            }
            Some(why) => return Err(refuse(format!("{why}"))),
        }
        Ok(folder)
    }

    /// All of a folder, without recursion in the program: trees can be deep.
    fn folder(&mut self, root: &Path) {
        let mut open = vec![root.to_owned()];
        while let Some(folder) = open.pop() {
            let entries = fs::read_dir(&folder).and_then(|entries| {
                entries.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>()
            });
            let mut entries = match entries {
                Ok(entries) => entries,
                Err(error) => {
                    self.pass_over(folder, Why::Unreadable(crate::words::io(&error)));
                    continue;
                }
            };
            // Reversed, as the folder named last is the next to be opened.
            entries.sort_by(|a, b| b.cmp(a));
            for path in entries {
                if let Some(below) = self.entry(path) {
                    open.push(below);
                }
            }
        }
    }

    /// Takes in an entry of a folder; gives it back if it is a folder to be walked.
    fn entry(&mut self, path: PathBuf) -> Option<PathBuf> {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            self.pass_over(path, Why::Hidden);
            return None;
        }
        let link = path.is_symlink();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() && link => self.pass_over(path, Why::LinkedFolder),
            Ok(metadata) if metadata.is_dir() => return Some(path),
            Ok(metadata) => match judge(&path, &metadata) {
                None => self.take(path),
                Some(why) => self.pass_over(path, why),
            },
            Err(error) if link && error.kind() == std::io::ErrorKind::NotFound => {
                self.pass_over(path, Why::BrokenLink);
            }
            Err(error) => self.pass_over(path, Why::Unreadable(crate::words::io(&error))),
        }
        None
    }

    fn take(&mut self, path: PathBuf) {
        if self.media.insert(path.clone(), ()).is_some() {
            self.pass_over(path, Why::NamedTwice);
        }
    }

    fn pass_over(&mut self, path: PathBuf, why: Why) {
        self.passed_over.push(PassedOver { path, why });
    }
}

/// Why a file is not a medium; nothing if it is one.
fn judge(path: &Path, metadata: &Metadata) -> Option<Why> {
    if ends_with(path, PARTIAL) {
        return Some(Why::Partial);
    }
    if ends_with(path, ARCHIVES) {
        return Some(Why::Archive);
    }
    if !ends_with(path, MEDIA) {
        return Some(Why::NotMedia);
    }
    if path.to_str().is_none() {
        return Some(Why::NameNotUtf8);
    }
    if !metadata.is_file() {
        return Some(Why::NotAFile);
    }
    if metadata.len() == 0 {
        return Some(Why::Empty);
    }
    (ends_with(path, &["ts", "mts"]) && !is_transport_stream(path)).then_some(Why::NotMedia)
}

/// `.ts` is also the ending of TypeScript: a transport stream has its sync byte in front, or after a time code.
fn is_transport_stream(path: &Path) -> bool {
    let mut start = [0; 5];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_err() || start[0] == 0x47 || start[4] == 0x47
}

/// Whether the name ends with one of these, in either case.
#[must_use]
pub fn ends_with(path: &Path, endings: &[&str]) -> bool {
    path.extension().is_some_and(|ending| endings.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// The deepest folder that holds all of `folders`, or is one of them.
fn common_folder(folders: &[PathBuf]) -> PathBuf {
    let Some(first) = folders.first() else { return PathBuf::from("/") };
    let holds_all = |candidate: &&Path| folders.iter().all(|folder| folder.starts_with(candidate));
    first.ancestors().find(holds_all).unwrap_or(Path::new("/")).to_owned()
}

fn no_media(paths: &[PathBuf], passed_over: &[PassedOver]) -> Failure {
    let mut why = "no media in it".to_owned();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for one in passed_over {
        *reasons.entry(one.why.to_string()).or_default() += 1;
    }
    let reasons: Vec<String> = reasons.iter().map(|(why, n)| format!("{n} {why}")).collect();
    if reasons.is_empty() {
        why.push_str(", it is empty");
    } else {
        why = format!("{why} (left out: {})", reasons.join("; "));
    }
    Failure::input(paths.first().cloned().unwrap_or_default(), why)
}

#[cfg(test)]
mod tests;
