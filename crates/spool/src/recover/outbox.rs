//! Finished records that the brain has not taken yet. A torn one does not exist.

use std::collections::BTreeMap;
use std::io;

use model::link::Outcome;
use model::{AttemptKey, FailureClass, Status, TaskId, TaskRecord};

use crate::atomic::Folder;
use crate::layout::JSON;
use crate::ledger::{RECORD_BYTES_MAX, record_of};

/// What lies in an outbox.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Whole records.
    pub(crate) whole: BTreeMap<AttemptKey, TaskRecord>,
    /// Names of files that are no whole record: torn by the death of their worker, or not ours.
    pub(crate) torn: Vec<String>,
}

/// Reads an outbox.
///
/// # Errors
/// When the folder cannot be listed or a file not read.
pub(crate) fn read(folder: &Folder) -> io::Result<Outbox> {
    let mut outbox = Outbox::default();
    for entry in std::fs::read_dir(folder.path())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let bytes = match folder.read(&name, RECORD_BYTES_MAX) {
            Ok(bytes) => bytes,
            // The living brain or worker has just moved it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Vec::new(),
            Err(error) => return Err(error),
        };
        let record: Option<TaskRecord> = record_of(&bytes);
        match (key_of(&name), record) {
            (Some(key), Some(record)) if is_record_of(&record, &key) => {
                drop(outbox.whole.insert(key, record))
            }
            _ => outbox.torn.push(name),
        }
    }
    Ok(outbox)
}

/// The attempt whose record has this file name.
pub(crate) fn key_of(name: &str) -> Option<AttemptKey> {
    let (task_id, attempt) = name.strip_suffix(JSON)?.rsplit_once('.')?;
    Some(AttemptKey { task_id: TaskId::new(task_id).ok()?, attempt: attempt.parse().ok()? })
}

/// A record ends the attempt it is named for, or it says something else and is not believed.
pub(crate) fn is_record_of(record: &TaskRecord, key: &AttemptKey) -> bool {
    let ended = matches!(record.status, Some(Status::Complete | Status::Failed));
    ended && record.task_id.as_ref() == Some(&key.task_id) && record.attempt == Some(key.attempt)
}

/// What a report of this record would say; `stopped` is whether the orders wished its end.
pub(crate) fn outcome_of(record: &TaskRecord, stopped: bool) -> Outcome {
    let failed = record.status != Some(Status::Complete);
    let error = record.error.as_ref();
    Outcome {
        failure: failed.then(|| error.map_or(FailureClass::Crash, |error| error.class)),
        code: error.map(|error| error.code.clone()),
        message: error.map(|error| error.message.clone()),
        run_ms: run_ms(record),
        media_s: record.media_s,
        checkpoint: record.checkpoint.clone(),
        stopped: stopped && failed,
    }
}

/// Milliseconds of run time: as the result says, else between start and end.
fn run_ms(record: &TaskRecord) -> u64 {
    let stated = record.result.as_ref().map(|result| model::Millis::from_secs_f64(result.duration).0);
    let between =
        record.started_at.zip(record.completed_at).map(|(start, end)| (end - start).num_milliseconds());
    // A clock that was set back between the two would give a negative time.
    stated.or(between).map_or(0, |ms| ms.max(0).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::TaskError;

    #[test]
    fn a_record_is_whole_and_is_its_attempts_own_or_does_not_exist() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let whole = r#"{"task_id":"a.b","attempt":2,"status":"failed","error":{"class":"oom","code":"vram","message":"no room"}}"#;
        put("a.b.2.json", whole);
        put("a.b.3.json", whole);
        put("c.1.json", &whole[..whole.len() - 1]);
        put("d.1.json", "");
        put("e.json", r#"{"task_id":"e","attempt":1,"status":"complete"}"#);
        put("f.1.json", r#"{"task_id":"f","attempt":1,"status":"running"}"#);
        let mut outbox = read(&Folder::open(dir.path()).unwrap()).unwrap();
        outbox.torn.sort();
        assert_eq!(outbox.torn, ["a.b.3.json", "c.1.json", "d.1.json", "e.json", "f.1.json"]);
        let (key, record) = outbox.whole.pop_first().unwrap();
        assert_eq!((key.to_string(), outbox.whole.len()), ("a.b.2".to_owned(), 0));
        let outcome = outcome_of(&record, false);
        assert_eq!((outcome.failure, outcome.code.as_deref()), (Some(FailureClass::Oom), Some("vram")));
    }

    #[test]
    fn a_result_that_was_complete_before_the_stop_was_not_stopped() {
        let done = TaskRecord { status: Some(Status::Complete), ..TaskRecord::default() };
        assert!(!outcome_of(&done, true).stopped);
        let error = Some(TaskError::new(FailureClass::Cancelled, "cancelled", "stopped"));
        let ended = TaskRecord { status: Some(Status::Failed), error, ..TaskRecord::default() };
        assert!(outcome_of(&ended, true).stopped && !outcome_of(&ended, false).stopped);
    }
}
