//! How long media are, by ffprobe: many at once, none for longer than 5 seconds.
//!
//! A length that cannot be read is unknown, never guessed; the item is submitted all the same.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A container whose head takes longer than this to read is broken, or on a disk that is.
const PROBE_TIME_MAX: Duration = Duration::from_secs(5);

/// A length beyond this is a broken header: ten years.
const MEDIA_S_MAX: f64 = 315_360_000.0;

/// How many ffprobes run at once.
const AT_ONCE_MAX: usize = 8;

/// Media lengths.
#[derive(Clone, Debug, PartialEq)]
pub struct Lengths {
    /// In seconds, in the order of the question.
    pub media_s: Vec<Option<f64>>,
    /// Why none could be read at all.
    pub why_none: Option<String>,
}

/// Reads the lengths of all of these with the program `ffprobe`; `tell` hears how many have been read.
///
/// # Panics
/// Never: a probing thread only computes.
pub fn lengths(ffprobe: &Path, media: &[&Path], tell: &(dyn Fn(usize) + Sync)) -> Lengths {
    let mut lengths = Lengths { media_s: vec![None; media.len()], why_none: None };
    if let Err(error) = version(ffprobe) {
        lengths.why_none = Some(error);
        return lengths;
    }
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let found = Mutex::new(&mut lengths.media_s);
    let at_once = thread::available_parallelism().map_or(2, usize::from).clamp(2, AT_ONCE_MAX);
    thread::scope(|scope| {
        for _ in 0..at_once.min(media.len()) {
            scope.spawn(|| {
                while let Some((index, path)) = take(&next, media) {
                    let length = length(ffprobe, path);
                    if let Ok(mut found) = found.lock() {
                        found[index] = length;
                    }
                    tell(done.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    lengths
}

fn take<'a>(next: &AtomicUsize, media: &[&'a Path]) -> Option<(usize, &'a Path)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    media.get(index).map(|path| (index, *path))
}

fn version(ffprobe: &Path) -> Result<(), String> {
    let missing = "install ffmpeg to see media lengths, speed and the time left";
    match command(ffprobe, &["-version"]).stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{}` does not work ({status}); {missing}", ffprobe.display())),
        Err(error) => {
            Err(format!("`{}` cannot be run: {}; {missing}", ffprobe.display(), crate::words::io(&error)))
        }
    }
}

fn command(ffprobe: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(ffprobe);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// The length of one medium in seconds.
fn length(ffprobe: &Path, media: &Path) -> Option<f64> {
    // `file:` and the whitelist keep a playlist from naming other hosts.
    let mut input = std::ffi::OsString::from("file:");
    input.push(media);
    let what = ["-v", "error", "-protocol_whitelist", "file", "-show_entries", "format=duration"];
    let mut child = command(ffprobe, &what)
        .args(["-of", "default=nw=1:nk=1"])
        .arg(input)
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let ended = end_in_time(&mut child);
    let mut text = String::new();
    child.stdout.take()?.take(4_096).read_to_string(&mut text).ok()?;
    if ended { seconds(&text) } else { None }
}

/// Waits for the child, which writes less than a pipe holds; ends it when its time is over.
fn end_in_time(child: &mut Child) -> bool {
    let deadline = Instant::now() + PROBE_TIME_MAX;
    let mut pause = Duration::from_millis(4);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < deadline => thread::sleep(pause),
            _ => {
                // Both fail only for a child that has ended.
                drop(child.kill());
                drop(child.wait());
                return false;
            }
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// What ffprobe printed, as a usable length.
fn seconds(text: &str) -> Option<f64> {
    let seconds: f64 = text.trim().parse().ok()?;
    (seconds.is_finite() && seconds > 0.0 && seconds < MEDIA_S_MAX)
        .then(|| (seconds * 1_000.0).round() / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_usable_length_is_one() {
        assert_eq!(seconds("12.3456789\n"), Some(12.346));
        for text in ["N/A\n", "", "-1", "0", "inf", "1e12", "12 seconds"] {
            assert_eq!(seconds(text), None, "{text:?}");
        }
    }

    #[test]
    fn without_ffprobe_all_lengths_are_unknown_and_it_says_so() {
        let media = Path::new("/nowhere/a.mp4");
        let lengths = lengths(Path::new("/nowhere/ffprobe"), &[media], &|_| ());
        assert_eq!(lengths.media_s, [None]);
        assert!(lengths.why_none.is_some_and(|why| why.contains("install ffmpeg")));
    }
}
