//! One submission from the wish to the exit status. Each step is in a room of its own; this is their order.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::Local;
use model::BatchId;
use model::batch::Manifest;
use serde_json::{Value, json};
use spool::batch::{BatchError, Batches};
use spool::settings::{Settings, SettingsError};

use crate::arguments::Wish;
use crate::failure::{Failure, INTERRUPTED, NOTHING_SUBMITTED, SOME_FAILED, TIMED_OUT};
use crate::forecast::{self, Forecast};
use crate::interrupt::Interrupt;
use crate::order::{self, Sorted};
use crate::probe;
use crate::report::{self, EndedItem};
use crate::say::Voice;
use crate::wait::{self, End};
use crate::walk::{self, Found, PassedOver, Why};
use crate::{brain, label, list, live, words};

/// How often a fresh id is sought when others take it first.
const ID_TRIES: usize = 20;

/// How long a submission waits for the brain to say whom it would disturb.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long somebody waits who wants to know nothing else.
const PATIENCE_OF_A_DRY_RUN: Duration = Duration::from_secs(10);

/// What one run works with.
struct Run<'a> {
    wish: &'a Wish,
    settings: Settings,
    batches: Batches,
    ffprobe: &'a Path,
    interrupt: &'a Interrupt,
    voice: &'a mut Voice,
}

/// Does what is wished, and gives the exit status. `ffprobe` is the program that reads media lengths.
///
/// # Errors
/// A [`Failure`] when nothing, or not all, could be submitted.
pub fn run(wish: &Wish, ffprobe: &Path, interrupt: &Interrupt, voice: &mut Voice) -> Result<u8, Failure> {
    let settings =
        Settings::find(wish.spool.as_deref(), wish.config.as_deref()).map_err(|error| setting(&error))?;
    for warning in &settings.warnings {
        voice.note(&format!("warning: {warning}"));
    }
    order::script(&wish.script, &settings.config, settings.config_path.as_deref())?;
    let wish = &placed(wish)?;
    let found = walk::gather(&wish.paths)?;
    let batches = Batches::new(settings.layout.clone(), settings.config.durability);
    let mut run = Run { wish, settings, batches, ffprobe, interrupt, voice };
    let live = live::media(&run.batches).map_err(|error| spool_failure(&error))?;
    let mut sorted = order::sort(&found, wish, &live);
    run.measure(&mut sorted);
    if wish.dry_run {
        return run.show(&found, &sorted);
    }
    let accepted = if sorted.fresh.is_empty() {
        Vec::new()
    } else {
        run.agree(&found, &sorted)?;
        run.submit(&found, &sorted)?
    };
    run.end(&found, &sorted, accepted)
}

/// The wish with an absolute output folder, which must not be a file.
fn placed(wish: &Wish) -> Result<Wish, Failure> {
    let mut wish = wish.clone();
    if let Some(dir) = &wish.output_dir {
        let absolute = std::path::absolute(dir).map_err(|error| Failure::input(dir, words::io(&error)))?;
        if absolute.is_file() {
            return Err(Failure::input(dir, "--output-dir names a file, not a folder"));
        }
        if absolute.to_str().is_none() {
            return Err(Failure::input(dir, "the name of --output-dir is not UTF-8"));
        }
        // Resolved where it exists, so that the same place has one name.
        wish.output_dir = Some(absolute.canonicalize().unwrap_or(absolute));
    }
    Ok(wish)
}

impl Run<'_> {
    /// Reads the lengths of what is to be submitted.
    fn measure(&mut self, sorted: &mut Sorted) {
        if sorted.fresh.is_empty() {
            return;
        }
        let paths: Vec<&Path> = sorted.fresh.iter().map(|item| item.media.path.as_path()).collect();
        let bar = self.voice.on_terminal().then(|| {
            let bar = indicatif::ProgressBar::new(u64::try_from(paths.len()).unwrap_or(u64::MAX));
            if let Ok(style) = indicatif::ProgressStyle::with_template("reading media lengths {pos}/{len}") {
                bar.set_style(style);
            }
            bar
        });
        let lengths = probe::lengths(self.ffprobe, &paths, &|_| {
            if let Some(bar) = &bar {
                bar.inc(1);
            }
        });
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        if let Some(why) = lengths.note {
            self.voice.note(&format!("not all media lengths are known: {why}"));
        }
        for (item, length) in sorted.fresh.iter_mut().zip(lengths.media_s) {
            item.media_s = length;
        }
    }

    /// The manifests under the first id that is free.
    fn manifests(&self, found: &Found, sorted: &Sorted) -> Result<Vec<Manifest>, Failure> {
        let given = self.wish.name.clone();
        let name = given.unwrap_or_else(|| label::name_of(&self.wish.paths, &found.base));
        let bad = |error: model::id::BadId| Failure::Usage(format!("{error}; choose another --name"));
        let wanted = label::wanted(&self.wish.script, &name, Local::now().date_naive()).map_err(bad)?;
        let id = self.batches.fresh_id(wanted.as_str()).map_err(bad)?;
        let source = match self.wish.paths.as_slice() {
            [one] => {
                let named = list::is_list(one).unwrap_or_else(|| one.clone());
                std::path::absolute(&named).unwrap_or(named)
            }
            _ => found.base.clone(),
        };
        order::manifests(self.wish, &sorted.fresh, &id, &source, spool::clock::wall()).map_err(bad)
    }

    fn show(&mut self, found: &Found, sorted: &Sorted) -> Result<u8, Failure> {
        let manifests = if sorted.fresh.is_empty() { Vec::new() } else { self.manifests(found, sorted)? };
        let forecast = forecast::of(&manifests, &self.settings, PATIENCE_OF_A_DRY_RUN);
        if self.wish.json {
            let mut document = self.document(found, sorted, &manifests);
            document["dry_run"] = json!(true);
            document["forecast"] = match &forecast {
                Forecast::Known(told) => json!(told),
                Forecast::NoBrain | Forecast::Silent(_) => Value::Null,
            };
            document["items"] =
                manifests.iter().flat_map(|manifest| &manifest.items).map(|item| json!(item)).collect();
            self.say_json(&document);
        } else {
            // What is decided by stands last, where it does not scroll away.
            let mut text = report::items_table(&manifests, &found.base);
            text.push_str(&report::skipped(sorted, &found.passed_over, &found.base));
            text.push_str(&report::batches("would submit", &manifests, self.exclusive_from()));
            if !manifests.is_empty() {
                text.push_str(&forecast.text(&manifests, &self.settings.config));
            }
            self.voice.result(&text);
        }
        if manifests.is_empty() { Ok(self.nothing(sorted)) } else { Ok(0) }
    }

    /// Says which LLMs that are in use would be taken away, if any, and asks whoever sits there.
    fn agree(&mut self, found: &Found, sorted: &Sorted) -> Result<(), Failure> {
        let manifests = self.manifests(found, sorted)?;
        let forecast = forecast::of(&manifests, &self.settings, PATIENCE);
        if !forecast.takes_llms_in_use() {
            return Ok(());
        }
        self.voice.note(&forecast.text(&manifests, &self.settings.config));
        let agreed = self.wish.yes || self.voice.ask("submit it all the same?").unwrap_or(true);
        if agreed { Ok(()) } else { Err(Failure::Declined) }
    }

    /// Hands the batches to the spool, one after the other.
    fn submit(&mut self, found: &Found, sorted: &Sorted) -> Result<Vec<Manifest>, Failure> {
        self.settings.prepare().map_err(|error| match error {
            SettingsError::Unwritable { ref source, .. } if is_full(source) => {
                Failure::DiskFull(error.to_string())
            }
            error => setting(&error),
        })?;
        let mut manifests = self.manifests(found, sorted)?;
        self.interrupt.defer();
        let mut tries = 0;
        let mut accepted = 0;
        while accepted < manifests.len() {
            match self.batches.accept(&manifests[accepted]) {
                Ok(()) => accepted += 1,
                Err(BatchError::Exists(_)) if accepted == 0 && tries < ID_TRIES => {
                    tries += 1;
                    manifests = self.manifests(found, sorted)?;
                }
                Err(error) => return Err(stopped(&manifests, accepted, &error)),
            }
            if self.interrupt.is_wanted() && accepted < manifests.len() {
                return Err(Failure::Interrupted(format!(
                    "interrupted: {}; run the same command again to submit the rest",
                    extent(&manifests, accepted)
                )));
            }
        }
        Ok(manifests)
    }

    /// Says what was accepted; waits if that is wished; gives the exit status.
    fn end(&mut self, found: &Found, sorted: &Sorted, accepted: Vec<Manifest>) -> Result<u8, Failure> {
        if !self.wish.json {
            self.voice.result(&report::batches("accepted", &accepted, self.exclusive_from()));
            // What was never meant is of interest in a dry run only.
            let meant = |one: &&PassedOver| !matches!(one.why, Why::NotMedia | Why::Hidden);
            let passed_over: Vec<PassedOver> = found.passed_over.iter().filter(meant).cloned().collect();
            self.voice.note_unless_empty(&report::skipped(sorted, &passed_over, &found.base));
        }
        let watched = self.watched(sorted, &accepted)?;
        let up = brain::is_up(&self.settings.layout);
        if !self.wish.wait || watched.is_empty() {
            return Ok(self.leave(found, sorted, &accepted, up));
        }
        self.interrupt.defer();
        let end = wait::until_over(
            &self.settings.layout,
            &self.batches,
            &watched,
            self.wish.timeout,
            self.interrupt,
            self.voice,
        )
        .map_err(|error| spool_failure(&error))?;
        let mut ended = Vec::new();
        for manifest in &watched {
            ended.extend(
                wait::ended_items(&self.settings.layout, manifest).map_err(|error| spool_failure(&error))?,
            );
        }
        if self.wish.json {
            let mut document = self.document(found, sorted, &accepted);
            document["outcome"] = json!(outcome(end));
            document["items"] = ended.iter().map(item_json).collect();
            self.say_json(&document);
        } else {
            self.voice.result(&report::summary(&ended, &found.base));
        }
        Ok(self.judge(end, &ended, &watched))
    }

    /// The exit status of a wait, and what to do next.
    fn judge(&mut self, end: End, ended: &[EndedItem], watched: &[Manifest]) -> u8 {
        let ids = ids(watched);
        let goes_on = format!("the batch goes on without this command; to end it: gpuspool cancel {ids}");
        match end {
            End::Interrupted => {
                self.voice.note(&format!("interrupted: {goes_on}"));
                INTERRUPTED
            }
            End::TimedOut => {
                let most = self.wish.timeout.unwrap_or(Duration::ZERO);
                self.voice.note(&format!("{} are over; {goes_on}", words::clock(most.as_secs_f64())));
                TIMED_OUT
            }
            End::Over if ended.iter().any(|item| item.status != "complete") => {
                self.voice.note("the same command again submits the failed items once more");
                SOME_FAILED
            }
            End::Over => 0,
        }
    }

    /// What is followed: the new batches, and those that already have some of the media.
    fn watched(&self, sorted: &Sorted, accepted: &[Manifest]) -> Result<Vec<Manifest>, Failure> {
        let mut watched = accepted.to_vec();
        let others: BTreeSet<&BatchId> = sorted.live.iter().map(|(_, batch)| batch).collect();
        for id in others {
            watched.extend(self.batches.manifest(id).map_err(|error| spool_failure(&error))?);
        }
        Ok(watched)
    }

    /// The last words without a wait.
    fn leave(&mut self, found: &Found, sorted: &Sorted, accepted: &[Manifest], up: bool) -> u8 {
        if self.wish.json {
            let mut document = self.document(found, sorted, accepted);
            document["brain"] = json!(if up { "running" } else { "not_running" });
            self.say_json(&document);
        }
        if accepted.is_empty() {
            return self.nothing(sorted);
        }
        if !up {
            self.voice.note("queued, brain not running: `gpuspool up` starts it");
        }
        0
    }

    /// Why there is nothing to submit, and the exit status of that.
    fn nothing(&mut self, sorted: &Sorted) -> u8 {
        if sorted.live.is_empty() {
            let all = words::items(sorted.finished.len());
            self.voice.note(&format!("nothing to do: {all}, all finished; --overwrite does them again"));
            return 0;
        }
        self.voice
            .note("nothing was submitted: batches that are not done yet have the rest; --wait follows them");
        NOTHING_SUBMITTED
    }

    const fn exclusive_from(&self) -> u32 {
        self.settings.config.resource_manager.batch_settings.auto_exclusive_threshold
    }

    fn document(&self, found: &Found, sorted: &Sorted, manifests: &[Manifest]) -> Value {
        let batches: Vec<Value> = manifests
            .iter()
            .map(|manifest| {
                let (media_s, unknown) = manifest.media_s();
                json!({
                    "batch_id": manifest.header.batch_id, "total_items": manifest.items.len(),
                    "gpu_mode": manifest.header.gpu_mode, "media_s": media_s, "media_unknown": unknown,
                })
            })
            .collect();
        let finished: Vec<&PathBuf> = sorted.finished.iter().map(|media| &media.path).collect();
        let live: Vec<Value> = sorted
            .live
            .iter()
            .map(|(media, batch)| json!({ "path": media.path, "batch_id": batch }))
            .collect();
        let passed_over: Vec<Value> = found
            .passed_over
            .iter()
            .map(|one| json!({ "path": one.path.to_string_lossy(), "why": one.why.name() }))
            .collect();
        json!({
            "schema_version": 1, "script": self.wish.script, "batches": batches,
            "submitted": sorted.fresh.len(), "finished": finished, "live": live, "passed_over": passed_over,
        })
    }

    fn say_json(&mut self, document: &Value) {
        self.voice.result(&format!("{document:#}\n"));
    }
}

const fn outcome(end: End) -> &'static str {
    match end {
        End::Over => "over",
        End::TimedOut => "timed_out",
        End::Interrupted => "interrupted",
    }
}

fn item_json(item: &EndedItem) -> Value {
    json!({
        "path": item.media, "status": item.status, "media_s": item.media_s, "took_s": item.took_s,
        "outputs": item.outputs,
        "error": item.error.as_ref().map(|(code, message)| json!({ "code": code, "message": message })),
    })
}

fn ids(manifests: &[Manifest]) -> String {
    manifests.iter().map(|manifest| manifest.header.batch_id.as_str()).collect::<Vec<_>>().join(" ")
}

/// How much of a submission was accepted: each batch is, whole, or is not.
fn extent(manifests: &[Manifest], accepted: usize) -> String {
    let (done, rest) = manifests.split_at(accepted);
    match (done, rest) {
        ([], _) => "nothing was submitted".into(),
        (_, []) => format!("all was submitted: {}", ids(done)),
        _ => format!("submitted: {}; not submitted: {}", ids(done), ids(rest)),
    }
}

fn stopped(manifests: &[Manifest], accepted: usize, error: &BatchError) -> Failure {
    let said = format!("{error} ({})", extent(manifests, accepted));
    match error {
        BatchError::Io { source, .. } if is_full(source) => Failure::DiskFull(said),
        _ => Failure::Spool(said),
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

fn setting(error: &SettingsError) -> Failure {
    Failure::Setting { message: error.to_string(), code: error.exit_code() }
}

fn spool_failure(error: &std::io::Error) -> Failure {
    Failure::Spool(format!("failed to read the spool: {}", words::io(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    fn three() -> Vec<Manifest> {
        let line = "submit_batch transcribe /m --batch-size 1".split(' ').map(Into::into);
        let Ok(crate::arguments::Asked::Batch(wish)) = crate::arguments::parse(line) else {
            panic!("a wish")
        };
        let item = |name: &str| order::Item {
            media: walk::Media { path: name.into(), relative: name.into() },
            outputs: std::collections::BTreeMap::new(),
            media_s: None,
        };
        let items = ["/m/a.mp4", "/m/b.mp4", "/m/c.mp4"].map(item);
        let id = BatchId::new("whisper-m-2025-02-05").unwrap();
        order::manifests(&wish, &items, &id, Path::new("/m"), spool::clock::wall()).unwrap()
    }

    fn refusal(kind: ErrorKind) -> BatchError {
        BatchError::Io { id: BatchId::new("whisper-m-2025-02-05").unwrap(), source: Error::from(kind) }
    }

    #[test]
    fn a_full_disk_says_which_batches_were_accepted_before() {
        for (accepted, said) in [
            (0, "nothing was submitted"),
            (
                1,
                "submitted: whisper-m-2025-02-05; not submitted: whisper-m-2025-02-05-2 whisper-m-2025-02-05-3",
            ),
        ] {
            let failure = stopped(&three(), accepted, &refusal(ErrorKind::StorageFull));
            assert_eq!(failure.exit_code(), 75);
            assert!(failure.to_string().contains(said), "{failure}");
        }
        let other = stopped(&three(), 0, &refusal(ErrorKind::PermissionDenied));
        assert_eq!(other.exit_code(), 74);
    }
}
