//! The thread that asks the GPUs. NVML can hang; the loop never waits for it.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use hardware::Senses;
use model::InventorySource;
use model::gpu::{Inventory, Ram};
use tokio::sync::mpsc::UnboundedSender;

use crate::inbox::Note;

/// How often measured GPUs are read.
const READ_EVERY: Duration = Duration::from_secs(1);
/// Every so many readings the GPUs are counted anew: cards come and go.
const RECOUNT_EVERY: u32 = 30;
/// Memory that moved by less than this share of all of it, in percent, is no news, unless it passed the least that a
/// script needs: the loop should not be woken each second for nothing.
const NEWS_PERCENT: u64 = 1;
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

/// Starts the thread that reads the machine's memory, and returns the first reading. It is none of NVML's, which can
/// hang. `least_mib` is what a script needs.
pub(crate) fn watch_ram(least_mib: u64, notes: UnboundedSender<Note>) -> std::io::Result<Option<Ram>> {
    let first = hardware::ram();
    let mut told = first;
    std::thread::Builder::new().name("ram".into()).spawn(move || {
        loop {
            std::thread::sleep(READ_EVERY);
            let Some(ram) = hardware::ram().filter(|ram| is_news(told, *ram, least_mib)) else {
                if notes.is_closed() {
                    return;
                }
                continue;
            };
            told = Some(ram);
            if notes.send(Note::Ram(ram)).is_err() {
                return;
            }
        }
    })?;
    Ok(first)
}

fn is_news(told: Option<Ram>, ram: Ram, least_mib: u64) -> bool {
    told.is_none_or(|told| {
        let moved = told.available_mib.abs_diff(ram.available_mib);
        let passed = (told.available_mib < least_mib) != (ram.available_mib < least_mib);
        passed || moved * 100 > ram.total_mib * NEWS_PERCENT || told.total_mib != ram.total_mib
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_news_when_it_moved_by_a_share_or_passed_the_least() {
        let of = |available_mib| Ram { total_mib: 32_000, available_mib };
        assert!(is_news(None, of(20_000), 4_000));
        assert!(!is_news(Some(of(20_000)), of(20_300), 4_000));
        assert!(is_news(Some(of(20_000)), of(19_600), 4_000));
        assert!(is_news(Some(of(4_000)), of(3_999), 4_000));
        assert!(is_news(Some(of(3_999)), of(4_000), 4_000));
    }
}
