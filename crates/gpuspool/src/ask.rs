//! Asking the brain through its folder, and waiting for the answer.

use std::time::Duration;

use model::request::{Answer, Request, Verb};
pub(crate) use spool::request::Asked;
use spool::request::Requests;
use spool::settings::Settings;

use crate::failure::{Failure, exit};

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
    let requests = Requests::new(settings.layout.clone(), settings.config.durability);
    let asked = requests.ask_and_wait(request, patience, forget);
    asked.map_err(|error| Failure::io("ask the brain", &error))
}
