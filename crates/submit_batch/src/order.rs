//! From what was found and what is wished to the manifests that the spool accepts.
//!
//! Not here: reading any file but the outputs' dates. The ids are given, the lengths are given.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::batch::{BATCH_SCHEMA_VERSION, BatchHeader, BatchItem, Manifest};
use model::config::{Config, ScriptEntry};
use model::fault::did_you_mean;
use model::id::{BadId, BatchId};
use model::{TaskClass, Timestamp};
use serde_json::{Map, Value};

use crate::arguments::Wish;
use crate::done::is_finished;
use crate::failure::Failure;
use crate::label;
use crate::naming::Naming;
use crate::walk::{Found, Media};

/// Media by what is to be done with them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sorted {
    /// To be submitted.
    pub fresh: Vec<Item>,
    /// All wanted outputs are there.
    pub finished: Vec<Media>,
    /// An earlier batch has not ended with them.
    pub live: Vec<(Media, BatchId)>,
}

/// A medium to be submitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The medium.
    pub media: Media,
    /// Files to write, by format.
    pub outputs: BTreeMap<String, PathBuf>,
    /// Its length in seconds, where it is known.
    pub media_s: Option<f64>,
}

/// The script's entry in the configuration.
///
/// # Errors
/// [`Failure::Script`] with the names there are.
pub fn script<'a>(
    name: &str,
    config: &'a Config,
    config_path: Option<&Path>,
) -> Result<&'a ScriptEntry, Failure> {
    config.scripts.get(name).ok_or_else(|| {
        let meant = did_you_mean(name, config.scripts.keys().map(String::as_str))
            .map(|meant| format!("did you mean `{meant}`? "))
            .unwrap_or_default();
        let place = match config_path {
            Some(path) => format!("registered in `{}` are: {}", path.display(), config.script_names()),
            None => "no config.json was found; run this beside it, or name it with --config".to_owned(),
        };
        Failure::Script(format!("no script is called `{}`; {meant}{place}", crate::words::safe(name)))
    })
}

/// Sorts the media into those to be submitted, those that are done, and those in a batch that still runs.
pub fn sort(found: &Found, wish: &Wish, live: &BTreeMap<PathBuf, BatchId>) -> Sorted {
    let mut naming = Naming::new(&wish.formats, wish.output_dir.as_deref());
    let mut sorted = Sorted::default();
    for media in found.media.iter().cloned() {
        let outputs = naming.outputs(&media);
        if let Some(batch) = live.get(&media.path) {
            sorted.live.push((media, batch.clone()));
        } else if !wish.overwrite && is_finished(&media.path, &outputs) {
            sorted.finished.push(media);
        } else {
            sorted.fresh.push(Item { media, outputs, media_s: None });
        }
    }
    sorted
}

/// The manifests of the items, in parts of at most `--batch-size`.
///
/// # Errors
/// [`BadId`] when the id is too long for the number of parts.
pub fn manifests(
    wish: &Wish,
    items: &[Item],
    id: &BatchId,
    source: &Path,
    created_at: Timestamp,
) -> Result<Vec<Manifest>, BadId> {
    let size = wish.batch_size.unwrap_or(items.len()).max(1);
    let parts = items.chunks(size).enumerate();
    parts
        .map(|(index, part)| {
            let batch_id = label::part(id, index + 1)?;
            Ok(Manifest {
                header: header(wish, batch_id, source, created_at),
                items: part.iter().map(item).collect(),
            })
        })
        .collect()
}

fn header(wish: &Wish, batch_id: BatchId, source: &Path, created_at: Timestamp) -> BatchHeader {
    BatchHeader {
        schema_version: BATCH_SCHEMA_VERSION,
        batch_id,
        task_class: TaskClass::Script,
        task_type: wish.kind,
        script: wish.script.clone(),
        model: wish.model.clone(),
        gpu_mode: wish.gpu_mode,
        priority: wish.priority,
        created_at,
        formats: wish.formats.clone(),
        output_dir: wish.output_dir.as_deref().map(text),
        script_args: script_args(wish),
        source: text(source),
    }
}

/// Only what was asked for: a script's own habits hold for the rest.
fn script_args(wish: &Wish) -> Map<String, Value> {
    let mut args = Map::new();
    if let Some(language) = &wish.language {
        args.insert("language".into(), Value::String(language.clone()));
    }
    for (key, value, habit) in [
        ("word_timestamps", wish.word_timestamps, false),
        ("vad_filter", wish.vad, true),
        ("overwrite", wish.overwrite, false),
    ] {
        if value != habit {
            args.insert(key.into(), Value::Bool(value));
        }
    }
    args
}

fn item(item: &Item) -> BatchItem {
    BatchItem {
        video_path: text(&item.media.path),
        media_s: item.media_s,
        outputs: item.outputs.iter().map(|(kind, path)| (kind.clone(), text(path))).collect(),
    }
}

/// Media and output folders have been checked to be UTF-8.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
