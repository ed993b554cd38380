//! The link: two append-only logs in a worker's folder, each with one writer and one reader; one type used twice.
//!
//! ```text
//! brain ──Writer<OrdersLine>──► orders.jsonl  ──Reader──► worker
//! brain ◄──Reader───────────── reports.jsonl ◄──Writer<ReportsLine>── worker
//! ```
//! A log is a snapshot (`whole`) and the amendments after it; the state is their fold, and anybody may fold it anew
//! at any time. Each line carries `epoch` and `n`, so lines can be repeated, lost or torn without being believed
//! twice: what was seen is ignored, what is missing is noticed and healed by another `whole`. Nobody is told
//! anything through a log that he could not read again.
//!
//! Not here: what the lines mean (`model::link`), what to write (`brain`, `worker`), who is alive (`recover`).

mod reader;
mod rotation;
mod stamp;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

pub use reader::{Fold, Foreign, Reader};
pub(crate) use rotation::make_empty;
pub use stamp::last_stamp;
pub use watch::LinkWatch;
pub use writer::{ROTATE_AT, Writer};
