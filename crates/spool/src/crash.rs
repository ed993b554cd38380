//! Crash points: every step of a sequence on disk has a name (`finish.F5`), at which a test can end the process.
//!
//! [`point`] stands *after* the step it names. In release builds it is nothing. In debug builds a test of this
//! process arms a point with [`at`], which unwinds from there as a death would leave the disk; a started program is
//! armed with the environment variable `GPUSPOOL_CRASH_AT=finish.F5` and kills itself.

#[cfg(any(test, debug_assertions))]
pub use armed::{Crashed, at, passed};

/// The step called `name` has been done.
#[cfg(not(any(test, debug_assertions)))]
#[inline(always)]
pub const fn point(_name: &'static str) {}

/// The step called `name` has been done.
#[cfg(any(test, debug_assertions))]
pub fn point(name: &'static str) {
    armed::point(name);
}

#[cfg(any(test, debug_assertions))]
mod armed {
    use std::cell::RefCell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::LazyLock;

    /// The armed point was reached.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Crashed(pub &'static str);

    #[derive(Default)]
    struct Trap {
        at: Option<(&'static str, usize)>,
        seen: Vec<&'static str>,
    }

    thread_local! {
        static TRAP: RefCell<Option<Trap>> = const { RefCell::new(None) };
    }
    static FROM_ENVIRONMENT: LazyLock<Option<String>> =
        LazyLock::new(|| std::env::var("GPUSPOOL_CRASH_AT").ok());

    pub(super) fn point(name: &'static str) {
        if FROM_ENVIRONMENT.as_deref() == Some(name) {
            // No destructor may run: the point is to leave what a death leaves.
            let me = rustix::process::getpid();
            let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        }
        let dies = TRAP.with_borrow_mut(|trap| {
            let Some(trap) = trap else { return false };
            trap.seen.push(name);
            let times = trap.seen.iter().filter(|seen| **seen == name).count();
            trap.at == Some((name, times))
        });
        if dies {
            // Unwinding without the panic hook: this death is expected and says nothing on the terminal.
            resume_unwind(Box::new(Crashed(name)));
        }
    }

    /// Runs `work` until it is over or has passed the point `name` for the `time`-th time (from 1).
    ///
    /// # Errors
    /// [`Crashed`] when the point was reached.
    ///
    /// # Panics
    /// As `work` does.
    pub fn at<T>(name: &'static str, time: usize, work: impl FnOnce() -> T) -> Result<T, Crashed> {
        TRAP.set(Some(Trap { at: Some((name, time)), seen: Vec::new() }));
        let done = catch_unwind(AssertUnwindSafe(work));
        TRAP.set(None);
        done.map_err(|payload| match payload.downcast::<Crashed>() {
            Ok(crashed) => *crashed,
            Err(other) => resume_unwind(other),
        })
    }

    /// Runs `work` to its end and tells which points it passed, in order.
    pub fn passed(work: impl FnOnce()) -> Vec<&'static str> {
        TRAP.set(Some(Trap::default()));
        work();
        TRAP.take().map(|trap| trap.seen).unwrap_or_default()
    }
}
