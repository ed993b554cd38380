//! The thread that asks the GPUs. NVML can hang; the loop never waits for it.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use hardware::Senses;
use model::InventorySource;
use model::gpu::Inventory;
use tokio::sync::mpsc::UnboundedSender;

use crate::inbox::Note;

/// How often measured GPUs are read.
const READ_EVERY: Duration = Duration::from_secs(1);
/// Every so many readings the GPUs are counted anew: cards come and go.
const RECOUNT_EVERY: u32 = 30;
/// How long the start waits for the first answer; later answers come as notes.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// Starts the thread and returns the first inventory, or none if the driver does not answer in time.
pub(crate) fn start(mut senses: Senses, notes: UnboundedSender<Note>) -> std::io::Result<Option<Inventory>> {
    let (first, answer) = sync_channel(1);
    std::thread::Builder::new().name("senses".into()).spawn(move || {
        let inventory = senses.inventory();
        let measured = inventory.source == InventorySource::Measured;
        if first.try_send(inventory.clone()).is_err() && notes.send(Note::Inventory(inventory)).is_err() {
            return;
        }
        drop(first);
        if measured {
            keep_reading(&mut senses, &notes);
        }
    })?;
    Ok(answer.recv_timeout(FIRST_ANSWER).ok())
}

fn keep_reading(senses: &mut Senses, notes: &UnboundedSender<Note>) {
    for turn in 1_u32.. {
        let note = match senses.read() {
            Ok(readings) => Note::Readings(readings),
            Err(error) => Note::Blind(error.to_string()),
        };
        let mut heard = notes.send(note).is_ok();
        if turn.is_multiple_of(RECOUNT_EVERY) {
            heard &= notes.send(Note::Inventory(senses.inventory())).is_ok();
        }
        if !heard {
            return;
        }
        std::thread::sleep(READ_EVERY);
    }
}
