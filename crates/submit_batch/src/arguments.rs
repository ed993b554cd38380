//! The command line: both forms of it, checked, as one [`Wish`].
//!
//! Not here: what the paths hold (`walk`), and whether the script is registered (`order`).

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, value_parser};
use model::{GpuMode, Priority, TaskType};

use crate::failure::Failure;

/// Formats a transcript can have, in the order in which they are listed.
pub const FORMATS: [&str; 4] = ["txt", "srt", "vtt", "json"];

/// The script of `transcribe` batches that name none.
pub const TRANSCRIBE_SCRIPT: &str = "whisper_transcribe";

const USAGE: &str = "submit_batch transcribe PATH... [OPTIONS]
       submit_batch --type transcribe --input PATH [OPTIONS]";

const AFTER: &str = "\
PATH is a folder (with all folders in it), a media file, or @list.txt: a file that names one PATH a line,
relative to itself. Running the same command again redoes nothing: finished media are skipped.

Exit status: 0 all done (or accepted, without --wait), 1 some items failed, 2 nothing was submitted,
64 usage, 66 a PATH is missing, empty or without media, 75 the disk is full, 124 --timeout ran out,
130 interrupted.";

#[derive(Debug, Parser)]
#[command(
    name = "submit_batch",
    version,
    about = "Turns a folder of media into a batch of tasks",
    override_usage = USAGE,
    after_help = AFTER,
    max_term_width = 110
)]
struct CommandLine {
    /// What to do with each medium (`transcribe`), then where the media are
    #[arg(value_name = "TYPE PATH")]
    words: Vec<OsString>,
    /// What to do with each medium; instead of the first word
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Where the media are; may be given more than once
    #[arg(long, value_name = "PATH")]
    input: Vec<PathBuf>,
    /// At most N items a batch; the rest goes into <id>-2, <id>-3, …
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    batch_size: Option<u32>,
    /// `exclusive` gets all GPUs, `shared` does not, `auto` goes by the number of items
    #[arg(long, value_name = "MODE", default_value = "auto", value_parser = gpu_mode(), hide_possible_values = true)]
    gpu_mode: GpuMode,
    /// From 1 (low) to 5 (urgent)
    #[arg(long, value_name = "1..5", default_value = "3", value_parser = priority())]
    priority: Priority,
    /// The script's model, such as `turbo` or `small.en`; the configured one if absent
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// The language spoken, such as `en`; found out if absent
    #[arg(long, value_name = "CODE")]
    language: Option<String>,
    /// Time each word
    #[arg(long)]
    word_timestamps: bool,
    /// Listen to silence too, instead of leaving it out
    #[arg(long)]
    no_vad: bool,
    /// The registered script that does it
    #[arg(long, value_name = "NAME", default_value = TRANSCRIBE_SCRIPT)]
    script: String,
    /// Files to write for each medium: txt, srt, vtt, json, or all
    #[arg(long, value_name = "LIST", default_value = "txt,srt,vtt,json")]
    formats: String,
    /// Write below DIR, in folders like those of the media, instead of beside them
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Do finished media again, and replace their outputs
    #[arg(long)]
    overwrite: bool,
    /// The batch's name, instead of the folder's
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only show what would be submitted, what is skipped and why, when it would end, and which LLMs would make room
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before LLMs that are in use are taken away (without a terminal nobody is asked)
    #[arg(long, short = 'y')]
    yes: bool,
    /// Show progress until the batch is done, then a summary
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// Wait no longer than this, such as 90, 10m or 2h; the batch goes on
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = duration)]
    timeout: Option<Duration>,
    /// Say it as one JSON object
    #[arg(long)]
    json: bool,
    /// The spool folder
    #[arg(long, value_name = "DIR", env = "GPUSPOOL_SPOOL", hide_env_values = true)]
    spool: Option<PathBuf>,
    /// The configuration
    #[arg(long, value_name = "FILE", env = "GPUSPOOL_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
}

/// What is wanted, checked as far as that is possible without looking at the disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// What to do with each item.
    pub kind: TaskType,
    /// Where the items are: folders, files, or `@list` files.
    pub paths: Vec<PathBuf>,
    /// Most items of one batch.
    pub batch_size: Option<usize>,
    /// How the batch wants the GPUs.
    pub gpu_mode: GpuMode,
    /// Priority of every item.
    pub priority: Priority,
    /// The script's model.
    pub model: Option<String>,
    /// The language spoken.
    pub language: Option<String>,
    /// Whether words are timed.
    pub word_timestamps: bool,
    /// Whether silence is left out.
    pub vad: bool,
    /// The script's name.
    pub script: String,
    /// Files to write for each item.
    pub formats: Vec<String>,
    /// Where they go; beside the media if absent.
    pub output_dir: Option<PathBuf>,
    /// Whether finished items are done again.
    pub overwrite: bool,
    /// The batch's name.
    pub name: Option<String>,
    /// Whether to show only.
    pub dry_run: bool,
    /// Whether it is agreed that LLMs in use are taken away.
    pub yes: bool,
    /// Whether to wait for the end.
    pub wait: bool,
    /// Longest wait.
    pub timeout: Option<Duration>,
    /// Whether to speak JSON.
    pub json: bool,
    /// The spool folder, as named.
    pub spool: Option<PathBuf>,
    /// The configuration, as named.
    pub config: Option<PathBuf>,
}

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// A batch.
    Batch(Box<Wish>),
    /// Help or the version: a text, and nothing else.
    Text(String),
}

/// Reads a command line, the program's name included.
///
/// # Errors
/// [`Failure::Usage`] with a text for people.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Asked, Failure> {
    let line = match CommandLine::try_parse_from(words) {
        Ok(line) => line,
        Err(error) if !error.use_stderr() => return Ok(Asked::Text(error.to_string())),
        Err(error) => return Err(Failure::Usage(plain(&error.to_string()))),
    };
    wish_of(line).map(|wish| Asked::Batch(Box::new(wish)))
}

fn wish_of(line: CommandLine) -> Result<Wish, Failure> {
    let mut words = line.words.into_iter();
    let kind = match line.kind {
        Some(kind) => kind,
        None => words
            .next()
            .ok_or_else(|| usage("what is to be done with the media?"))?
            .to_string_lossy()
            .into_owned(),
    };
    let kind = kind_of(&kind)?;
    let paths: Vec<PathBuf> = words.map(PathBuf::from).chain(line.input).collect();
    if paths.is_empty() {
        return Err(usage("where are the media?"));
    }
    Ok(Wish {
        kind,
        paths,
        batch_size: line.batch_size.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        gpu_mode: line.gpu_mode,
        priority: line.priority,
        model: line.model,
        language: line.language,
        word_timestamps: line.word_timestamps,
        vad: !line.no_vad,
        script: line.script,
        formats: formats(&line.formats)?,
        output_dir: line.output_dir,
        overwrite: line.overwrite,
        name: line.name,
        dry_run: line.dry_run,
        yes: line.yes,
        wait: line.wait,
        timeout: line.timeout,
        json: line.json,
        spool: line.spool,
        config: line.config,
    })
}

fn kind_of(word: &str) -> Result<TaskType, Failure> {
    if word == TaskType::Transcribe.name() {
        return Ok(TaskType::Transcribe);
    }
    if std::path::Path::new(word).exists() {
        return Err(usage(&format!(
            "`{}` is a path; the first word says what to do with it",
            word.escape_debug()
        )));
    }
    if TaskType::ALL.iter().any(|kind| kind.name() == word) {
        return Err(usage(&format!(
            "a batch of type `{word}` does not exist, only `transcribe`; single tasks go through `gpuspool submit`"
        )));
    }
    Err(usage(&format!("`{}` is not a type of batch; there is `transcribe`", word.escape_debug())))
}

fn formats(list: &str) -> Result<Vec<String>, Failure> {
    let mut wanted: Vec<&str> = Vec::new();
    for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match FORMATS.iter().find(|known| **known == word) {
            Some(known) => wanted.push(known),
            None if word == "all" => wanted.extend(FORMATS),
            None => {
                return Err(usage(&format!(
                    "`{}` is not a format; there are {} and all",
                    word.escape_debug(),
                    FORMATS.join(", ")
                )));
            }
        }
    }
    if wanted.is_empty() {
        return Err(usage("--formats names none"));
    }
    // The order of the list above, and each once: the same wish always gives the same manifest.
    Ok(FORMATS.iter().filter(|known| wanted.contains(known)).map(|known| (*known).to_owned()).collect())
}

fn gpu_mode() -> impl TypedValueParser<Value = GpuMode> {
    PossibleValuesParser::new(["exclusive", "shared", "auto"]).map(|word| match word.as_str() {
        "exclusive" => GpuMode::Exclusive,
        "shared" => GpuMode::Shared,
        _ => GpuMode::Auto,
    })
}

fn priority() -> impl TypedValueParser<Value = Priority> {
    value_parser!(u8).range(1..=5).try_map(|level| Priority::new(level).ok_or("not within 1 to 5"))
}

/// Seconds, or a number with `s`, `m` or `h` after it.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit_s) = match text.char_indices().last() {
        Some((end, 's')) => (&text[..end], 1.0),
        Some((end, 'm')) => (&text[..end], 60.0),
        Some((end, 'h')) => (&text[..end], 3_600.0),
        _ => (text, 1.0),
    };
    let seconds = number.parse::<f64>().map_err(|_| "write it like 90, 10m or 2h")? * unit_s;
    Duration::try_from_secs_f64(seconds).map_err(|_| "write it like 90, 10m or 2h".to_owned())
}

fn usage(message: &str) -> Failure {
    Failure::Usage(format!("{message}\n\nUsage: {USAGE}\n\nFor more, try `submit_batch --help`."))
}

fn plain(text: &str) -> String {
    text.trim_start_matches("error: ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(line: &str) -> Result<Wish, Failure> {
        match parse(line.split_whitespace().map(OsString::from))? {
            Asked::Batch(wish) => Ok(*wish),
            Asked::Text(text) => panic!("{text}"),
        }
    }

    #[test]
    fn both_forms_of_the_design_ask_for_the_same() {
        let long = wish("submit_batch --type transcribe --input /path/to/zim --batch-size 125")
            .expect("the long form");
        assert_eq!(long.kind, TaskType::Transcribe);
        assert_eq!(long.paths, [PathBuf::from("/path/to/zim")]);
        assert_eq!(long.batch_size, Some(125));
        assert_eq!(long.script, "whisper_transcribe");
        let short = wish("submit_batch transcribe /path/to/urban-prepper.zim").expect("the short form");
        assert_eq!(short.paths, [PathBuf::from("/path/to/urban-prepper.zim")]);
        assert_eq!(Wish { paths: long.paths.clone(), batch_size: Some(125), ..short }, long);
    }

    #[test]
    fn words_after_the_type_are_all_paths_wherever_the_type_stands() {
        let mixed =
            wish("submit_batch a b --type transcribe --input c --priority 5 --gpu-mode exclusive").unwrap();
        assert_eq!(mixed.paths, ["a", "b", "c"].map(PathBuf::from));
        assert_eq!(mixed.priority, Priority::URGENT);
        assert_eq!(mixed.gpu_mode, GpuMode::Exclusive);
    }

    #[test]
    fn formats_are_a_set_in_one_order() {
        let formats =
            |list: &str| wish(&format!("submit_batch transcribe a --formats {list}")).unwrap().formats;
        assert_eq!(formats("srt,txt,srt"), ["txt", "srt"]);
        assert_eq!(formats("all"), FORMATS);
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error() {
        for line in [
            "submit_batch",
            "submit_batch transcribe",
            "submit_batch translate /tmp",
            "submit_batch embed x",
            "submit_batch / --wait",
            "submit_batch transcribe x --priority 6",
            "submit_batch transcribe x --batch-size 0",
            "submit_batch transcribe x --gpu-mode all",
            "submit_batch transcribe x --formats doc",
            "submit_batch transcribe x --timeout 5",
            "submit_batch transcribe x --wait --timeout soon",
            "submit_batch transcribe x --wait --dry-run",
            "submit_batch transcribe x --colour red",
        ] {
            let failure = wish(line).expect_err(line);
            assert_eq!(failure.exit_code(), 64, "{line}: {failure}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7_200)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        assert!(duration("-1").is_err() && duration("").is_err() && duration("1e999").is_err());
    }

    #[test]
    fn the_help_is_as_people_read_it() {
        let Ok(Asked::Text(help)) = parse(["submit_batch".into(), "--help".into()]) else {
            panic!("no help")
        };
        insta::assert_snapshot!(help);
    }
}
