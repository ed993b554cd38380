//! The goals as one table: ours, the seed's policy, the simple ones, and the bound.
//!
//! ```text
//! cargo bench -p gpuspool-simulate                  every goal, as the figures are quoted (some minutes)
//! cargo bench -p gpuspool-simulate -- M 20          only goals that begin with `M`, 20 batches of each kind
//! cargo bench -p gpuspool-simulate -- E1 2 6        only E1: 2 days of each kind, of 6 hours each
//! cargo bench -p gpuspool-simulate -- E1 2 6 100    the same from seed 100 on: nothing was tuned with those
//! ```
//! Everything here is simulated time: the figures do not depend on the machine that this runs on.

use simulate::goals::{Effort, rows, table};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let (numbers, names): (Vec<_>, Vec<_>) = words.into_iter().partition(|word| word.parse::<f64>().is_ok());
    let mut effort = Effort::WHOLE;
    if let Some(count) = numbers.first() {
        effort.batches = count.parse()?;
        effort.days = count.parse()?;
    }
    if let Some(hours) = numbers.get(1) {
        effort.hours = hours.parse()?;
    }
    if let Some(from) = numbers.get(2) {
        effort.from = from.parse()?;
    }
    let wanted = |goal: &str| {
        names.is_empty() || names.iter().any(|name| goal.starts_with(name.as_str()) || name.starts_with(goal))
    };
    println!("{} batches and {} days of {} h of each kind\n", effort.batches, effort.days, effort.hours);
    let rows = rows(effort, &wanted)?;
    print!("{}", table(&rows));
    let missed = rows.iter().filter(|row| !row.is_reached()).count();
    println!("\n{} of {} reached", rows.len() - missed, rows.len());
    Ok(())
}
