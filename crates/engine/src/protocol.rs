//! What a script says on standard output: lines, bounded; the protocol's events among them; progress that only rises.
//!
//! ```text
//! in   {"task_id","attempt","args","checkpoint"?}   {"cancel":{"task_id","attempt"}}   {"yield":{"task_id","attempt"}}
//! out  {"event":"ready","yields"?}  {"event":"progress","media_s","total_s","percent"}  {"event":"checkpoint","state"}
//!      {"event":"result","result":{…}}  {"event":"error","class","code","message"}  {"event":"yielded","state"}
//! ```
//!
//! A *boundary* is where a script can be left and gone on from later: a `checkpoint` says so and carries the state that a
//! later attempt gets back. A host that says `"yields": true` when it is ready obeys `yield` with `yielded` at its next
//! boundary and stays loaded; of any other script that says checkpoints the process is ended after the next one. Nothing
//! is ever ended between boundaries to make way. A `once` script gets its checkpoint among its arguments.
//!
//! Not here: processes and pipes (`host`, `once`).

use model::task::TaskError;
use model::{AttemptKey, FailureClass};
use serde_json::{Map, Value, json};

use crate::log::{Log, printable};

/// Largest state a script can leave behind, in bytes of JSON: it travels in orders, reports and records. Larger things
/// belong into a file whose path the state names.
pub const CHECKPOINT_BYTES_MAX: usize = 64 << 10;
/// The argument in which a script of one process finds the state to go on from.
pub const CHECKPOINT_ARGUMENT: &str = "checkpoint";

/// One task for a script.
#[derive(Clone, Debug)]
pub struct Job {
    /// Which attempt.
    pub key: AttemptKey,
    /// What the script gets.
    pub args: Map<String, Value>,
    /// The state an earlier attempt left, to go on from.
    pub checkpoint: Option<Value>,
}

impl Job {
    /// The line that gives the task to a warm host.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = json!({"task_id": self.key.task_id, "attempt": self.key.attempt, "args": self.args});
        if let Some(checkpoint) = &self.checkpoint {
            line[CHECKPOINT_ARGUMENT] = checkpoint.clone();
        }
        format!("{line}\n")
    }

    /// The line that a script of one process reads: its arguments, the checkpoint among them.
    #[must_use]
    pub fn once_line(&self) -> String {
        let mut args = self.args.clone();
        if let Some(checkpoint) = &self.checkpoint {
            args.insert(CHECKPOINT_ARGUMENT.to_owned(), checkpoint.clone());
        }
        format!("{}\n", Value::Object(args))
    }

    /// The line that asks a warm host to give the task up.
    #[must_use]
    pub fn cancel_line(key: &AttemptKey) -> String {
        format!("{}\n", json!({"cancel": {"task_id": key.task_id, "attempt": key.attempt}}))
    }

    /// The line that asks a warm host to leave the task at its next boundary.
    #[must_use]
    pub fn yield_line(key: &AttemptKey) -> String {
        format!("{}\n", json!({"yield": {"task_id": key.task_id, "attempt": key.attempt}}))
    }
}

/// How far a task is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// 0 to 1; it only rises.
    pub fraction: Option<f64>,
    /// Media seconds worked off; they only rise.
    pub media_s: Option<f64>,
}

impl Progress {
    /// Takes what a script claims, clamped; returns whether anything changed.
    pub fn take(&mut self, said: &Map<String, Value>) -> bool {
        let before = *self;
        let number = |name: &str| {
            said.get(name).and_then(Value::as_f64).filter(|value| value.is_finite() && *value >= 0.0)
        };
        let media_s = number("media_s");
        let share = match (media_s, number("total_s")) {
            (Some(done), Some(total)) if total > 0.0 => Some(done / total),
            _ => None,
        };
        let fraction = number("percent").map(|percent| percent / 100.0).or(share);
        self.fraction = higher(self.fraction, fraction.map(|fraction| fraction.min(1.0)));
        self.media_s = higher(self.media_s, media_s);
        *self != before
    }
}

fn higher(old: Option<f64>, new: Option<f64>) -> Option<f64> {
    match (old, new) {
        (Some(old), Some(new)) => Some(old.max(new)),
        (old, new) => new.or(old),
    }
}

/// What a running script tells about itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// How far it is.
    Progress(Progress),
    /// A state from which a later attempt could go on.
    Checkpoint(Value),
}

/// How a running task is made to end before its time: at its next boundary, and at once.
#[derive(Debug)]
pub struct Brake<Y, S> {
    /// Ready when it should give way at its next boundary.
    pub give_way: Y,
    /// Ready when it should end now.
    pub stop: S,
}

/// The states a script says it could go on from: those that are small enough.
#[derive(Debug, Default)]
pub(crate) struct Boundary {
    complained: bool,
}

impl Boundary {
    /// Takes a state in, unless it is too large: that is said in the log, once.
    pub(crate) fn take(&mut self, state: Value, log: &mut Log) -> Option<Value> {
        let bytes = state.to_string().len();
        if bytes <= CHECKPOINT_BYTES_MAX {
            return Some(state).filter(|state| !state.is_null());
        }
        if !std::mem::replace(&mut self.complained, true) {
            let why = format!(
                "gpuspool: a checkpoint of {bytes} bytes is ignored: at most {CHECKPOINT_BYTES_MAX} are kept; put the state into a file and its path into the checkpoint\n"
            );
            log.write(why.as_bytes());
        }
        None
    }
}

/// A line of standard output.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// The host has loaded its model.
    Ready {
        /// Whether it obeys `yield`.
        yields: bool,
    },
    /// How far it is.
    Progress(Map<String, Value>),
    /// A state from which the task could go on.
    Checkpoint(Value),
    /// It has left its task at a boundary, as it was asked to.
    Yielded(Value),
    /// What came of the task.
    Result(Map<String, Value>),
    /// Why nothing came of it.
    Error(TaskError),
    /// A JSON object that is no event: the result of a script that knows no protocol, if it is the last.
    Object(Map<String, Value>),
    /// Anything else.
    Noise,
}

/// Which task an event names, if it does.
#[must_use]
pub fn named(event: &Map<String, Value>) -> Option<(&str, u64)> {
    Some((event.get("task_id")?.as_str()?, event.get("attempt")?.as_u64()?))
}

/// Reads one line; also the task it names, as far as it names one.
#[must_use]
pub fn read(line: &[u8]) -> (Said, Option<(String, u64)>) {
    let Ok(Value::Object(mut object)) = serde_json::from_slice::<Value>(line) else {
        return (Said::Noise, None);
    };
    let names = named(&object).map(|(task_id, attempt)| (task_id.to_owned(), attempt));
    let said = match object.get("event").and_then(Value::as_str) {
        None => Said::Object(object),
        Some("ready") => Said::Ready { yields: object.get("yields").and_then(Value::as_bool) == Some(true) },
        Some("progress") => Said::Progress(object),
        Some("checkpoint") => Said::Checkpoint(object.remove("state").unwrap_or(Value::Null)),
        Some("yielded") => Said::Yielded(object.remove("state").unwrap_or(Value::Null)),
        Some("result") => match object.remove("result") {
            Some(Value::Object(result)) => Said::Result(result),
            other => Said::Error(bad_result(&format!(
                "its `result` is {}, not an object",
                other.as_ref().map_or("missing", kind_of)
            ))),
        },
        Some("error") => Said::Error(error(&object)),
        Some(_) => Said::Object(object),
    };
    (said, names)
}

/// Whether a line is one of the protocol's, and so nothing for a log.
#[must_use]
pub fn is_event(line: &[u8]) -> bool {
    line.starts_with(b"{") && !matches!(read(line).0, Said::Object(_) | Said::Noise)
}

const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The error of a script whose result cannot be used.
#[must_use]
pub fn bad_result(why: &str) -> TaskError {
    TaskError::new(
        FailureClass::BadInput,
        "bad_result",
        format!("the script's result cannot be used: {why}; its log shows what it printed"),
    )
}

/// A class or code that is missing or unknown is a crash: what is not understood may be tried again.
fn error(event: &Map<String, Value>) -> TaskError {
    let text = |name: &str| event.get(name).and_then(Value::as_str).map(|text| printable(text.as_bytes()));
    let class = event.get("class").and_then(|class| serde_json::from_value(class.clone()).ok());
    let code = text("code").filter(|code| !code.is_empty()).unwrap_or_else(|| "script_error".into());
    let message = text("message").filter(|message| !message.is_empty());
    TaskError::new(
        class.unwrap_or(FailureClass::Crash),
        code.chars().take(64).collect::<String>(),
        message.unwrap_or_else(|| "the script reported an error and gave no message".into()),
    )
}

/// Cuts a stream of bytes into lines of bounded length.
#[derive(Debug)]
pub struct Lines {
    line: Vec<u8>,
    bytes_max: usize,
    too_long: bool,
}

/// A line, or what is left of one that was too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Its bytes, without the newline.
    Whole(Vec<u8>),
    /// It had more bytes than allowed; they are not kept.
    TooLong,
}

impl Lines {
    /// Lines of at most `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Self { line: Vec::new(), bytes_max, too_long: false }
    }

    /// Adds bytes and returns the lines they end.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.add(&rest[..end]);
            lines.extend(self.end());
            rest = &rest[end + 1..];
        }
        self.add(rest);
        lines
    }

    /// The last line, if the stream did not end with a newline.
    pub fn end(&mut self) -> Option<Line> {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.too_long) {
            return Some(Line::TooLong);
        }
        (!line.is_empty()).then_some(Line::Whole(line))
    }

    fn add(&mut self, bytes: &[u8]) {
        if self.too_long || self.line.len() + bytes.len() > self.bytes_max {
            self.too_long = true;
            self.line = Vec::new();
        } else {
            self.line.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn progress_stays_between_nothing_and_all_and_never_goes_back() {
        let mut so_far = Progress::default();
        assert!(so_far.take(&progress(r#"{"percent": 40, "media_s": 4}"#)));
        assert!(!so_far.take(&progress(r#"{"percent": 20, "media_s": 2}"#)));
        assert!(!so_far.take(&progress(r#"{"percent": -5, "media_s": "many"}"#)));
        assert!(so_far.take(&progress(r#"{"percent": 250}"#)));
        assert_eq!(so_far, Progress { fraction: Some(1.0), media_s: Some(4.0) });
        let mut by_media = Progress::default();
        by_media.take(&progress(r#"{"media_s": 5, "total_s": 20}"#));
        assert_eq!(by_media.fraction, Some(0.25));
    }

    #[test]
    fn lines_are_cut_wherever_the_pieces_fall_and_long_ones_are_not_kept() {
        let mut lines = Lines::new(5);
        assert_eq!(lines.push(b"ab"), []);
        assert_eq!(lines.push(b"c\n\nlonger than five\nde"), [Line::Whole(b"abc".to_vec()), Line::TooLong]);
        assert_eq!(lines.end(), Some(Line::Whole(b"de".to_vec())));
        assert_eq!(lines.end(), None);
    }

    #[test]
    fn events_are_told_from_plain_objects_and_from_noise() {
        assert_eq!(read(b"loading model\xff").0, Said::Noise);
        assert_eq!(read(br#"{"event":"ready","model":"m"}"#).0, Said::Ready { yields: false });
        assert_eq!(read(br#"{"event":"ready","yields":true}"#).0, Said::Ready { yields: true });
        assert!(matches!(read(br#"{"frames": 3}"#).0, Said::Object(object) if object["frames"] == 3));
        let (said, names) = read(br#"{"event":"result","task_id":"t","attempt":2,"result":{"a":1}}"#);
        assert!(matches!(said, Said::Result(result) if result["a"] == 1));
        assert_eq!(names, Some(("t".into(), 2)));
        assert!(matches!(read(br#"{"event":"result","result":3}"#).0,
            Said::Error(error) if error.code == "bad_result" && error.message.contains("a number")));
    }

    #[test]
    fn an_error_of_an_unknown_class_is_a_crash_and_cannot_drive_a_terminal() {
        let Said::Error(error) = read(br#"{"event":"error","class":"strange","message":"\u001b[2J"}"#).0
        else {
            panic!("not read as an error")
        };
        assert_eq!((error.class, error.code.as_str()), (FailureClass::Crash, "script_error"));
        assert_eq!(error.message, "\\x1b[2J");
        let Said::Error(error) =
            read(br#"{"event":"error","class":"oom","code":"out_of_memory","message":"m"}"#).0
        else {
            panic!("not read as an error")
        };
        assert_eq!(error.class, FailureClass::Oom);
    }

    #[test]
    fn a_task_carries_its_checkpoint_to_either_kind_of_script() {
        let key = AttemptKey { task_id: model::TaskId::new("t").unwrap(), attempt: 2 };
        let args = progress(r#"{"a": 1}"#);
        let mut job = Job { key, args, checkpoint: None };
        assert_eq!(job.line(), "{\"args\":{\"a\":1},\"attempt\":2,\"task_id\":\"t\"}\n");
        assert_eq!(job.once_line(), "{\"a\":1}\n");
        job.checkpoint = Some(json!({"at": 7}));
        assert!(job.line().contains(r#""checkpoint":{"at":7}"#), "{}", job.line());
        assert_eq!(job.once_line(), "{\"a\":1,\"checkpoint\":{\"at\":7}}\n");
    }

    #[test]
    fn a_checkpoint_that_is_too_large_is_no_boundary_and_is_complained_about_once() {
        let mut log = Log::tail_only(10_000);
        let mut boundary = Boundary::default();
        let large = json!({"text": "x".repeat(CHECKPOINT_BYTES_MAX)});
        assert_eq!(boundary.take(large.clone(), &mut log), None);
        assert_eq!(boundary.take(large, &mut log), None);
        assert_eq!(boundary.take(json!({"at": 1}), &mut log), Some(json!({"at": 1})));
        assert_eq!(boundary.take(Value::Null, &mut log), None);
        assert_eq!(log.tail().unwrap().matches("is ignored").count(), 1);
    }
}
