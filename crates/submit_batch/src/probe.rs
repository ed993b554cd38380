//! How long media are, by ffprobe: many at once, none for longer than 5 seconds.
//!
//! A length that cannot be read is unknown, never guessed; the item is submitted all the same.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A container whose head takes longer than this to read is broken, or on a disk that is.
const PROBE_TIME_MAX: Duration = Duration::from_secs(5);

/// Nobody waits longer than this for the lengths of a large folder; the rest is submitted without.
const PROBE_ALL_MAX: Duration = Duration::from_secs(60);

/// A length beyond this is a broken header: ten years.
const MEDIA_S_MAX: f64 = 315_360_000.0;

/// How many ffprobes run at once.
const AT_ONCE_MAX: usize = 8;

/// Media lengths.
#[derive(Clone, Debug, PartialEq)]
pub struct Lengths {
    /// In seconds, in the order of the question.
    pub media_s: Vec<Option<f64>>,
    /// What kept lengths from being read, beside the media themselves.
    pub note: Option<String>,
}

/// Reads the lengths of all of these with the program `ffprobe`; `tell` hears how many have been read.
pub fn lengths(ffprobe: &Path, media: &[&Path], tell: &(dyn Fn(usize) + Sync)) -> Lengths {
    lengths_within(PROBE_ALL_MAX, ffprobe, media, tell)
}

fn lengths_within(
    all_max: Duration,
    ffprobe: &Path,
    media: &[&Path],
    tell: &(dyn Fn(usize) + Sync),
) -> Lengths {
    let deadline = Instant::now() + all_max;
    let done = AtomicUsize::new(0);
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Lengths { media_s: vec![None; media.len()], note: None });
    let at_once = thread::available_parallelism().map_or(2, usize::from).clamp(2, AT_ONCE_MAX);
    thread::scope(|scope| {
        for _ in 0..at_once.min(media.len()) {
            scope.spawn(|| {
                while let Some((index, path)) = take(&next, media).filter(|_| Instant::now() < deadline) {
                    let length = length(ffprobe, path, PROBE_TIME_MAX);
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    match length {
                        Ok(length) => found.media_s[index] = length,
                        Err(error) => {
                            found.note = Some(unusable(ffprobe, &error));
                            // What cannot be run once cannot be run a thousand times.
                            next.store(media.len(), Ordering::Relaxed);
                        }
                    }
                    drop(found);
                    tell(done.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    let mut lengths = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let unread = media.len() - done.into_inner();
    if lengths.note.is_none() && unread > 0 {
        let items = crate::words::items(unread);
        lengths.note = Some(format!("{items} left unread after {} s", all_max.as_secs()));
    }
    lengths
}

fn take<'a>(next: &AtomicUsize, media: &[&'a Path]) -> Option<(usize, &'a Path)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    media.get(index).map(|path| (index, *path))
}

fn unusable(ffprobe: &Path, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::NotFound => "is not installed".to_owned(),
        _ => format!("cannot be run: {}", crate::words::io(error)),
    };
    format!("`{}` {why}; install ffmpeg to see lengths, speed and the time left", ffprobe.display())
}

/// The length of one medium in seconds, where ffprobe can tell it.
///
/// # Errors
/// Where ffprobe cannot be started.
fn length(ffprobe: &Path, media: &Path, most: Duration) -> io::Result<Option<f64>> {
    // `file:` and the whitelist keep a playlist from naming other hosts.
    let mut input = std::ffi::OsString::from("file:");
    input.push(media);
    let mut child = Command::new(ffprobe)
        .args(["-v", "error", "-protocol_whitelist", "file", "-show_entries", "format=duration"])
        .args(["-of", "default=nw=1:nk=1"])
        .arg(input)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let ended = end_in_time(&mut child, most);
    let mut text = String::new();
    let read = child.stdout.take().is_some_and(|out| out.take(4_096).read_to_string(&mut text).is_ok());
    Ok(if ended && read { seconds(&text) } else { None })
}

/// Waits for the child, which writes less than a pipe holds; ends it when its time is over.
fn end_in_time(child: &mut Child, most: Duration) -> bool {
    let deadline = Instant::now() + most;
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
    fn lengths_come_in_the_order_of_the_question_and_what_hangs_is_ended() {
        let ffprobe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ffprobe");
        let names = ["/m/60.5s.mp4", "/m/broken.mp4", "/m/live.mp4", "/m/7s.mp4"].map(Path::new);
        let told = AtomicUsize::new(0);
        let lengths = lengths(&ffprobe, &names, &|_| {
            told.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(lengths, Lengths { media_s: vec![Some(60.5), None, None, Some(7.0)], note: None });
        assert_eq!(told.into_inner(), 4);
        let began = Instant::now();
        let hanging = length(&ffprobe, Path::new("/m/hangs.mp4"), Duration::from_millis(50));
        assert_eq!(hanging.unwrap(), None);
        assert!(began.elapsed() < Duration::from_secs(30), "sleep 60 was not ended");
    }

    #[test]
    fn what_is_left_when_the_time_is_over_is_unknown_and_counted() {
        let ffprobe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ffprobe");
        let names = ["/m/1s.mp4", "/m/2s.mp4"].map(Path::new);
        let lengths = lengths_within(Duration::ZERO, &ffprobe, &names, &|_| ());
        assert_eq!(lengths.media_s, [None, None]);
        assert_eq!(lengths.note.as_deref(), Some("2 items left unread after 0 s"));
    }

    #[test]
    fn without_ffprobe_all_lengths_are_unknown_and_it_says_so() {
        let media = Path::new("/nowhere/a.mp4");
        let lengths = lengths(Path::new("/nowhere/ffprobe"), &[media], &|_| ());
        assert_eq!(lengths.media_s, [None]);
        assert!(lengths.note.is_some_and(|why| why.contains("is not installed; install ffmpeg")));
    }
}
