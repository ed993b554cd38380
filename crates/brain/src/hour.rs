//! The hour of the day, for a mind that knows no calendar. A clock that jumps is an hour that changes.

use chrono::{NaiveTime, Timelike};
use model::Millis;
use policy::event::Event;

/// What the mind was told last.
#[derive(Debug, Default)]
pub(crate) struct HourHand {
    told: Option<u32>,
}

impl HourHand {
    /// What the local time on the wall says, where it is another hour than the one told.
    pub(crate) fn look(&mut self, local: NaiveTime) -> Option<Event> {
        let hour = local.hour();
        if self.told.replace(hour) == Some(hour) {
            return None;
        }
        let past = i64::from(local.minute()) * 60 + i64::from(local.second());
        let left = Millis::from_secs((3_600 - past).max(0));
        u8::try_from(hour).ok().map(|hour| Event::Hour { hour, left })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_told_once_with_what_is_left_of_it_and_again_when_the_clock_is_set() {
        let at = |hour, minute| NaiveTime::from_hms_opt(hour, minute, 30).unwrap();
        let mut hand = HourHand::default();
        let left = Millis::from_secs(59 * 60 + 30 - 15 * 60);
        assert_eq!(hand.look(at(8, 15)), Some(Event::Hour { hour: 8, left }));
        assert_eq!(hand.look(at(8, 59)), None);
        assert!(matches!(hand.look(at(9, 0)), Some(Event::Hour { hour: 9, .. })));
        assert!(matches!(hand.look(at(3, 0)), Some(Event::Hour { hour: 3, .. })), "set back by six hours");
    }
}
