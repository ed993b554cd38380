//! How a running unit learns that it should end: softly, at its next boundary, or now. The harder word replaces the
//! softer.
//!
//! Not here: what ends it (`scripts`, `llm`), and why (`model::link::StopWhy`).

use std::future::pending;

use model::link::StopWhy;
use tokio::sync::watch;

/// The end that orders speak into.
#[derive(Debug)]
pub(crate) struct Halt(watch::Sender<Option<StopWhy>>);

/// The end that a unit listens to.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<Option<StopWhy>>);

/// A pair of them.
pub(crate) fn stop() -> (Halt, Stop) {
    let (halt, stop) = watch::channel(None);
    (Halt(halt), Stop(stop))
}

impl Halt {
    /// Says why it should end. Only giving way is replaced by something else; all the rest ends it at once anyhow.
    pub(crate) fn say(&self, why: StopWhy) {
        self.0.send_if_modified(|said| {
            let softer = matches!(said, None | Some(StopWhy::Yield)) && *said != Some(why);
            if softer {
                *said = Some(why);
            }
            softer
        });
    }
}

impl Stop {
    /// Ready once it should end, be it at its next boundary or now.
    pub(crate) async fn give_way(self) {
        self.until(|_| true).await;
    }

    /// Ready once it should end now.
    pub(crate) async fn now(self) -> StopWhy {
        self.until(|why| why != StopWhy::Yield).await
    }

    /// Ready once it should end, for units that can be left at any time.
    pub(crate) async fn any(self) -> StopWhy {
        self.until(|_| true).await
    }

    async fn until(mut self, wanted: impl Fn(StopWhy) -> bool) -> StopWhy {
        let said = self.0.wait_for(|said| said.is_some_and(&wanted)).await.map(|said| *said);
        match said {
            Ok(Some(why)) => why,
            // Whoever could have said so is gone: it goes on.
            _ => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_harder_word_replaces_giving_way_and_nothing_else() {
        let (halt, stop) = stop();
        halt.say(StopWhy::Yield);
        stop.clone().give_way().await;
        let mut now = tokio_test(stop.clone().now());
        assert!(now.try_recv().is_err(), "it has not reached its boundary");
        halt.say(StopWhy::Cancel);
        assert_eq!(now.await, Ok(StopWhy::Cancel));
        halt.say(StopWhy::TakenBack);
        assert_eq!(stop.any().await, StopWhy::Cancel);
    }

    fn tokio_test(
        future: impl Future<Output = StopWhy> + Send + 'static,
    ) -> tokio::sync::oneshot::Receiver<StopWhy> {
        let (say, heard) = tokio::sync::oneshot::channel();
        tokio::spawn(async move { say.send(future.await) });
        heard
    }
}
