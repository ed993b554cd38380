//! The texts people read: what would be submitted, what was skipped and why, and how it ended.
//!
//! Pure: everything is handed in, a text comes out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::GpuMode;
use model::batch::Manifest;
use spool::batch::longest_first;

use crate::order::Sorted;
use crate::walk::{PassedOver, Why};
use crate::words::{clock, count, items, path, safe, shorten};

/// More rows than this are cut, and said to be.
const ROWS_MAX: usize = 100;
/// Items a dry run lists: what matters more stands below them.
const ITEMS_SHOWN: usize = 10;
/// Names given as examples of what was skipped for one reason.
const EXAMPLES: usize = 3;
/// Width of the first column at most.
const NAME_WIDTH_MAX: usize = 48;

/// Names and media of some manifests in one line each.
#[must_use]
pub fn batches(verb: &str, manifests: &[Manifest], exclusive_from: u32) -> String {
    let mut text = String::new();
    for manifest in manifests.iter().take(ROWS_MAX) {
        let header = &manifest.header;
        let mode = match header.gpu_mode {
            GpuMode::Exclusive => "exclusive",
            GpuMode::Shared => "shared",
            GpuMode::Auto if u32::try_from(manifest.items.len()).is_ok_and(|n| n < exclusive_from) => {
                "shared (auto)"
            }
            GpuMode::Auto => "exclusive (auto)",
        };
        let media = media_of(manifest.media_s(), manifest.items.len());
        let line = format!("{verb} `{}`: {}, {media}, {mode}", header.batch_id, items(manifest.items.len()));
        text.push_str(&line);
        text.push('\n');
    }
    if manifests.len() > ROWS_MAX {
        let more = format!("… and {} more\n", count(manifests.len() - ROWS_MAX, "batch", "batches"));
        text.push_str(&more);
    }
    text
}

fn media_of((known_s, unknown): (f64, usize), all: usize) -> String {
    match unknown {
        0 => format!("{} of media ({:.2} h)", clock(known_s), known_s / 3_600.0),
        _ if unknown == all => "media of unknown length".into(),
        _ => format!(
            "{} of media ({:.2} h) and {unknown} of unknown length",
            clock(known_s),
            known_s / 3_600.0
        ),
    }
}

/// The first items of manifests, with lengths and outputs: of each batch the longest first.
#[must_use]
pub fn items_table(manifests: &[Manifest], base: &Path) -> String {
    let all = manifests
        .iter()
        .flat_map(|manifest| longest_first(manifest).into_iter().map(|index| &manifest.items[index]));
    let rows = all.take(ITEMS_SHOWN).map(|item| {
        [
            below(Path::new(&item.video_path), base),
            item.media_s.map_or_else(|| "unknown".into(), clock),
            outputs(item.outputs.values(), base),
        ]
    });
    let number = manifests.iter().map(|manifest| manifest.items.len()).sum();
    table(["ITEM", "MEDIA", "OUTPUTS"], rows.collect(), number)
}

/// `talk.{srt,txt}`: files that differ in their ending only.
pub fn outputs<'a>(files: impl Iterator<Item = &'a String>, base: &Path) -> String {
    let mut groups: BTreeMap<PathBuf, Vec<&str>> = BTreeMap::new();
    for file in files {
        let file = Path::new(file);
        let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        groups.entry(file.with_extension("")).or_default().push(ending);
    }
    let shown = groups.into_iter().map(|(stem, endings)| match endings.as_slice() {
        [one] => format!("{}.{one}", below(&stem, base)),
        many => format!("{}.{{{}}}", below(&stem, base), many.join(",")),
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn below(file: &Path, base: &Path) -> String {
    path(file.strip_prefix(base).unwrap_or(file))
}

/// What is not submitted, and why; empty if there is nothing of the kind.
#[must_use]
pub fn skipped(sorted: &Sorted, passed_over: &[PassedOver], base: &Path) -> String {
    let mut reasons: Vec<(String, Vec<&Path>)> = Vec::new();
    let finished: Vec<&Path> = sorted.finished.iter().map(|media| media.relative.as_path()).collect();
    reasons.push(("finished: all wanted outputs are there, none older than the media".into(), finished));
    let mut live: BTreeMap<String, Vec<&Path>> = BTreeMap::new();
    for (media, batch) in &sorted.live {
        live.entry(format!("in batch `{batch}`, which is not done yet")).or_default().push(&media.relative);
    }
    reasons.extend(live);
    let mut others: BTreeMap<&Why, Vec<&Path>> = BTreeMap::new();
    for one in passed_over {
        others.entry(&one.why).or_default().push(one.path.strip_prefix(base).unwrap_or(&one.path));
    }
    reasons.extend(others.into_iter().map(|(why, paths)| (why.to_string(), paths)));
    let mut text = String::new();
    for (why, paths) in reasons.into_iter().filter(|(_, paths)| !paths.is_empty()) {
        let examples: Vec<String> =
            paths.iter().take(EXAMPLES).map(|one| shorten(&path(one), NAME_WIDTH_MAX)).collect();
        let more = if paths.len() > EXAMPLES { ", …" } else { "" };
        let line = format!("skipped {} {}: {}{more}\n", paths.len(), safe(&why), examples.join(", "));
        text.push_str(&line);
    }
    text
}

/// How one item ended.
#[derive(Clone, Debug, PartialEq)]
pub struct EndedItem {
    /// The medium.
    pub media: PathBuf,
    /// `complete`, `failed`, or where else it is.
    pub status: String,
    /// Its length in seconds.
    pub media_s: Option<f64>,
    /// How long it took, in seconds.
    pub took_s: Option<f64>,
    /// The files written.
    pub outputs: Vec<String>,
    /// Code and message of its failure.
    pub error: Option<(String, String)>,
}

impl EndedItem {
    fn speed(&self) -> Option<f64> {
        let (media_s, took_s) = self.media_s.zip(self.took_s)?;
        (took_s > 0.0 && self.status == "complete").then_some(media_s / took_s)
    }
}

/// The table at the end: each item, or the failed ones where there are too many, and one line about all.
#[must_use]
pub fn summary(ended: &[EndedItem], base: &Path) -> String {
    let all_shown = ended.len() <= ROWS_MAX;
    let listed = || ended.iter().filter(|item| all_shown || item.error.is_some());
    let rows = listed().take(ROWS_MAX).map(|item| {
        let last = match &item.error {
            Some((code, message)) => safe(&format!("{code}: {}", message.lines().next().unwrap_or_default())),
            None => outputs(item.outputs.iter(), base),
        };
        [
            below(&item.media, base),
            item.status.clone(),
            item.media_s.map_or_else(|| "-".into(), clock),
            item.speed().map_or_else(|| "-".into(), |factor| format!("{factor:.1}x")),
            last,
        ]
    });
    let mut text =
        table(["ITEM", "STATUS", "MEDIA", "SPEED", "OUTPUTS OR REASON"], rows.collect(), listed().count());
    if !all_shown {
        text.push_str("(only failed items are listed; --json lists all)\n");
    }
    text.push_str(&totals(ended));
    text
}

/// One line about all items.
#[must_use]
pub fn totals(ended: &[EndedItem]) -> String {
    let complete = ended.iter().filter(|item| item.status == "complete").count();
    let failed = ended.iter().filter(|item| item.error.is_some() || item.status == "failed").count();
    let media_s: f64 =
        ended.iter().filter(|item| item.status == "complete").filter_map(|item| item.media_s).sum();
    let mut text = format!("{}: {complete} complete, {failed} failed", items(ended.len()));
    if complete + failed < ended.len() {
        let more = format!(", {} not ended", ended.len() - complete - failed);
        text.push_str(&more);
    }
    if media_s > 0.0 {
        let media = format!("; {} of media done", clock(media_s));
        text.push_str(&media);
    }
    text.push('\n');
    text
}

/// Columns padded to their widest cell, and how many of `all` items have no row; nothing where there are no rows.
fn table<const N: usize>(head: [&str; N], mut rows: Vec<[String; N]>, all: usize) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let cut = all.saturating_sub(rows.len());
    for row in &mut rows {
        row[0] = shorten(&row[0], NAME_WIDTH_MAX);
    }
    rows.insert(0, head.map(str::to_owned));
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if cut > 0 {
        let more = format!("… and {cut} more; --json lists all\n");
        text.push_str(&more);
    }
    text
}

#[cfg(test)]
mod tests;
