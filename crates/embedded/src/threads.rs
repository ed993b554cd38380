//! How many threads compute.
//!
//! candle's threads spin while they wait for each other, so one thread too many costs more than it brings: on
//! two busy cores, two threads were measured ten times slower than one. The default therefore leaves one core
//! to others and counts only cores that are idle at the start, and physical ones, since two threads of one
//! core share the unit that multiplies.
//!
//! candle and rayon read their number from the environment, once, at their first use. A program cannot change
//! its own environment safely, so this one starts itself anew with the number set: same process, same id.

use crate::failure::Failure;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The variables that rayon and candle read; both must say the same.
const VARIABLES: [&str; 2] = ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"];

/// Makes sure that the environment says how many threads compute, and returns the number. `wanted` comes from
/// the command line; without it the environment's number holds, and without that the default.
///
/// Where the environment does not say so yet, this does not return: the program starts anew.
pub(crate) fn settle(wanted: Option<NonZeroUsize>) -> Result<NonZeroUsize, Failure> {
    let in_environment = VARIABLES.map(|name| std::env::var(name).ok()?.parse().ok());
    let number = wanted.or(in_environment[0]).unwrap_or_else(default_number);
    if in_environment == [Some(number); 2] {
        return Ok(number);
    }
    let failed = |source| Failure::System { what: "start anew with the number of threads set", source };
    let program = std::env::current_exe().map_err(failed)?;
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    Err(failed(command.args(arguments).envs(VARIABLES.map(|name| (name, number.to_string()))).exec()))
}

fn default_number() -> NonZeroUsize {
    let available = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    choose(available, physical_cores(), load())
}

/// The default: idle cores less one, no more than there are physical ones, at least one.
fn choose(available: NonZeroUsize, physical: Option<NonZeroUsize>, load: Option<f64>) -> NonZeroUsize {
    // Where the load cannot be read, the cores are taken for idle.
    let busy = load.map_or(0, |load| load.round().clamp(0.0, 1e6) as usize);
    let idle_but_one = available.get().saturating_sub(busy).saturating_sub(1);
    let chosen = physical.map_or(idle_but_one, |physical| idle_but_one.min(physical.get()));
    NonZeroUsize::new(chosen).unwrap_or(NonZeroUsize::MIN)
}

/// Cores as distinct sets of sibling threads; none where the system does not tell.
fn physical_cores() -> Option<NonZeroUsize> {
    let siblings: BTreeSet<String> = std::fs::read_dir("/sys/devices/system/cpu")
        .ok()?
        .flatten()
        .filter_map(|cpu| std::fs::read_to_string(cpu.path().join("topology/thread_siblings_list")).ok())
        .collect();
    NonZeroUsize::new(siblings.len())
}

/// Average number of runnable tasks over the last minute.
fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_leaves_a_core_counts_physical_ones_and_yields_to_others() {
        let table = [
            // available, physical, load, chosen
            (1, Some(1), Some(0.0), 1),
            (2, Some(2), Some(0.0), 1),
            (8, Some(8), Some(0.2), 7),
            (16, Some(8), Some(0.0), 8),
            (16, Some(8), Some(11.6), 3),
            (16, None, None, 15),
            (8, Some(8), Some(40.0), 1),
        ];
        for (available, physical, load, chosen) in table {
            let number = |number| NonZeroUsize::new(number).expect("not zero");
            let got = choose(number(available), physical.map(number), load);
            assert_eq!(got.get(), chosen, "{available} cores, {physical:?} physical, load {load:?}");
        }
    }
}
