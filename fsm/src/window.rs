//! Maintenance windows: when what takes a broker out of service may begin.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// A window that opens by a schedule and closes after some minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Cron expression of five fields.
    pub schedule: String,
    /// IANA name of the time zone of the schedule.
    pub time_zone: String,
    /// How long it stays open, in minutes.
    pub minutes: u32,
}

impl Window {
    fn read(&self) -> Result<(Cron, Tz), String> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser
            .parse(&self.schedule)
            .map_err(|error| format!("schedule {:?} is no cron expression of five fields: {error}", self.schedule))?;
        let zone = Tz::from_str(&self.time_zone)
            .map_err(|_| format!("timeZone {:?} is no time zone; write one such as Europe/Berlin", self.time_zone))?;
        Ok((cron, zone))
    }

    /// What is wrong with it, for a person: the schedule, the zone, or that it never opens.
    pub fn problem(&self) -> Option<String> {
        let (cron, zone) = match self.read() {
            Ok(read) => read,
            Err(problem) => return Some(problem),
        };
        let never = cron.find_next_occurrence(&DateTime::UNIX_EPOCH.with_timezone(&zone), true).is_err();
        never.then(|| format!("schedule {:?} never comes", self.schedule))
    }

    /// How long until it is open: nothing, if it is. `None`: never, or it cannot be read.
    fn opens_in(&self, now: DateTime<Utc>) -> Option<Duration> {
        let (cron, zone) = self.read().ok()?;
        // Whatever opened after this is still open.
        let since = now.checked_sub_signed(TimeDelta::minutes(self.minutes.into()))?.with_timezone(&zone);
        let opening = cron.find_next_occurrence(&since, false).ok()?;
        Some(opening.with_timezone(&Utc).signed_duration_since(now).to_std().unwrap_or_default())
    }
}

/// How long until one of the windows is open: nothing, if one is or there are none. `None`: none ever opens.
pub fn opens_in(windows: &[Window], now: DateTime<Utc>) -> Option<Duration> {
    if windows.is_empty() {
        return Some(Duration::ZERO);
    }
    windows.iter().filter_map(|window| window.opens_in(now)).min()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn window(schedule: &str, time_zone: &str, minutes: u32) -> Window {
        Window { schedule: schedule.to_owned(), time_zone: time_zone.to_owned(), minutes }
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn minutes(windows: &[Window], now: &str) -> Option<u64> {
        opens_in(windows, at(now)).map(|wait| wait.as_secs() / 60)
    }

    #[test]
    fn a_window_is_open_from_its_schedule_for_its_minutes() {
        let nightly = [window("0 2 * * *", "UTC", 60)];
        assert_eq!(minutes(&nightly, "2026-03-01T01:00:00Z"), Some(60));
        assert_eq!(minutes(&nightly, "2026-03-01T02:00:00Z"), Some(0));
        assert_eq!(minutes(&nightly, "2026-03-01T02:59:59Z"), Some(0));
        assert_eq!(minutes(&nightly, "2026-03-01T03:00:00Z"), Some(23 * 60));
    }

    #[test]
    fn the_schedule_is_of_its_time_zone_also_when_clocks_change() {
        let berlin = [window("30 3 * * *", "Europe/Berlin", 30)];
        assert_eq!(minutes(&berlin, "2026-01-10T02:30:00Z"), Some(0), "winter");
        assert_eq!(minutes(&berlin, "2026-07-10T01:30:00Z"), Some(0), "summer");
        assert_eq!(minutes(&berlin, "2026-07-10T02:30:00Z"), Some(23 * 60));
    }

    #[test]
    fn of_several_windows_one_is_enough_and_none_is_always() {
        let two = [window("0 2 * * 6", "UTC", 60), window("0 4 * * *", "UTC", 10)];
        assert_eq!(minutes(&two, "2026-03-02T03:00:00Z"), Some(60));
        assert_eq!(minutes(&[], "2026-03-02T03:00:00Z"), Some(0));
    }

    #[test]
    fn what_cannot_be_read_is_said_and_never_opens() {
        for (wrong, names) in [
            (window("every night", "UTC", 60), "cron"),
            (window("0 0 2 * * *", "UTC", 60), "five"),
            (window("0 2 * * *", "Berlin", 60), "zone"),
            (window("0 2 31 2 *", "UTC", 60), "never"),
        ] {
            let problem = wrong.problem().unwrap();
            assert!(problem.contains(names), "{problem}");
            assert_eq!(opens_in(&[wrong], at("2026-03-02T03:00:00Z")), None);
        }
        assert_eq!(window("0 2 * * 1-5", "America/New_York", 60).problem(), None);
    }
}
