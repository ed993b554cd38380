//! Ctrl-C and SIGTERM: what they mean depends on how far the submission is, and it is always said.
//!
//! Until the first manifest is being accepted they end the program at once, as nothing has happened. From then on
//! they are a flag, looked at between two batches and while waiting.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::failure::INTERRUPTED;

/// How far the submission is, and whether somebody wants it to end.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    deferred: bool,
    wanted: bool,
}

impl Interrupt {
    /// Listens for both signals.
    ///
    /// # Errors
    /// Where no thread or handler can be had.
    pub fn listen() -> io::Result<Self> {
        let interrupt = Self::default();
        let heard = interrupt.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        thread::Builder::new().name("interrupt".into()).spawn(move || {
            runtime.block_on(async {
                use tokio::signal::unix::{SignalKind, signal};
                let (Ok(mut asked), Ok(mut told)) =
                    (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
                else {
                    return;
                };
                loop {
                    tokio::select! { _ = asked.recv() => (), _ = told.recv() => () }
                    heard.raise();
                }
            });
        })?;
        Ok(interrupt)
    }

    /// From here on a signal is only noted: something is being accepted or waited for.
    pub fn defer(&self) {
        self.lock().deferred = true;
    }

    /// Whether somebody wants it to end.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.lock().wanted
    }

    /// One signal.
    pub fn raise(&self) {
        let mut state = self.lock();
        state.wanted = true;
        if !state.deferred {
            // The lock is held to the end, so that nothing can be accepted any more.
            eprintln!("interrupted: nothing was submitted");
            std::process::exit(i32::from(INTERRUPTED));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
