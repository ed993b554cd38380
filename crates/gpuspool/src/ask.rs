//! Asking the brain through its folder, and waiting for the answer.

use std::time::{Duration, Instant};

use model::request::{Answer, Request, Verb};
use spool::request::Requests;
use spool::settings::Settings;

use crate::brain::{Presence, presence};
use crate::failure::{Failure, exit};

/// Between two looks for the answer: below what a person notices.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Between two looks whether the brain still lives.
const BRAIN_CHECK_EVERY: Duration = Duration::from_secs(1);

/// How asking went.
#[derive(Debug)]
pub(crate) enum Asked {
    /// The brain answered.
    Answered(Answer),
    /// Not in time; the request still lies there.
    Unanswered,
    /// The brain has gone; the request still lies there for the next one.
    Orphaned,
}

/// A request of this process.
pub(crate) fn request(verb: Verb, ids: &[String]) -> Request {
    let by = format!("uid {}, pid {}", rustix::process::getuid().as_raw(), std::process::id());
    Request::new(verb, ids, by)
}

/// Leaves a request where the next brain finds it.
pub(crate) fn leave(settings: &Settings, request: &Request) -> Result<(), Failure> {
    let requests = Requests::new(settings.layout.clone(), settings.config.durability);
    requests.ask(request).map(drop).map_err(|error| Failure::io("leave a request for the brain", &error))
}

/// The brain answers what it need only look up at once, or it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks a living brain something that it need only look up.
pub(crate) fn answered(settings: &Settings, request: &Request) -> Result<Answer, Failure> {
    match ask(settings, request, PATIENCE, true)? {
        Asked::Answered(answer) => Ok(answer),
        Asked::Unanswered => {
            let message = format!("the brain did not answer within {} s", PATIENCE.as_secs());
            Err(Failure::new(exit::TRY_AGAIN, message)
                .next("`gpuspool status` shows when it last drew the picture"))
        }
        Asked::Orphaned => {
            Err(Failure::new(exit::TRY_AGAIN, "the brain left before it could answer").next("try again"))
        }
    }
}

/// Asks, and waits at most `patience` for the answer. An unanswered question is taken back if `forget` says so.
pub(crate) fn ask(
    settings: &Settings,
    request: &Request,
    patience: Duration,
    forget: bool,
) -> Result<Asked, Failure> {
    let failed = |error: std::io::Error| Failure::io("ask the brain", &error);
    let requests = Requests::new(settings.layout.clone(), settings.config.durability);
    let id = requests.ask(request).map_err(failed)?;
    let begun = Instant::now();
    let mut brain_checked = begun;
    let outcome = loop {
        if let Some(answer) = requests.answer_of(&id).map_err(failed)? {
            return Ok(Asked::Answered(answer));
        }
        if begun.elapsed() >= patience {
            break Asked::Unanswered;
        }
        if brain_checked.elapsed() >= BRAIN_CHECK_EVERY {
            brain_checked = Instant::now();
            if presence(&settings.layout) == Presence::Absent {
                // It may have answered with its last breath.
                match requests.answer_of(&id).map_err(failed)? {
                    Some(answer) => return Ok(Asked::Answered(answer)),
                    None => break Asked::Orphaned,
                }
            }
        }
        std::thread::sleep(LOOK_EVERY);
    };
    if forget {
        requests.withdraw(&id).map_err(failed)?;
    }
    Ok(outcome)
}
