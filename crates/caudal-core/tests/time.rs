//! Instants and dates against `jiff`.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use caudal_core::time::{Date, Instant};
use jiff::Timestamp;
use jiff::civil;
use jiff::tz::{Offset, TimeZone};
use proptest::prelude::*;

/// 0001-01-01 to 9999-12-31, in Unix microseconds.
const FIRST: i64 = -62_135_596_800_000_000;
const LAST: i64 = 253_402_300_799_999_999;

fn jiff_at(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap()
}

proptest! {
    #[test]
    fn an_instant_is_written_as_jiff_reads_it_and_read_as_jiff_writes_it(micros in FIRST + 86_400_000_000..LAST - 86_400_000_000) {
        let instant = Instant::from_unix_micros(micros);
        prop_assert_eq!(instant.unix_micros(), micros);
        let written = instant.to_string();
        prop_assert_eq!(written.parse::<Timestamp>().unwrap().as_microsecond(), micros, "{}", written);
        prop_assert_eq!(Instant::parse(&written), Some(instant));
        prop_assert_eq!(Instant::parse(&jiff_at(micros).to_string()), Some(instant));
    }

    #[test]
    fn zones_are_taken_off(micros in FIRST + 200_000_000_000..LAST - 200_000_000_000, minutes in -1_439i32..1_440) {
        let zone = TimeZone::fixed(Offset::from_seconds(minutes * 60).unwrap());
        let local = jiff_at(micros).to_zoned(zone).datetime();
        let (sign, ahead) = (if minutes < 0 { '-' } else { '+' }, minutes.abs());
        let text = format!("{local}{sign}{:02}:{:02}", ahead / 60, ahead % 60);
        prop_assert_eq!(Instant::parse(&text), Some(Instant::from_unix_micros(micros)), "{}", text);
    }

    #[test]
    fn text_sorts_as_time_does(a in FIRST..LAST, b in FIRST..LAST) {
        // In whole seconds: a fraction is written as short as it is.
        let (a, b) = (a - a.rem_euclid(1_000_000), b - b.rem_euclid(1_000_000));
        let text = |micros| Instant::from_unix_micros(micros).to_string();
        prop_assert_eq!(a.cmp(&b), text(a).cmp(&text(b)));
    }

    #[test]
    fn a_date_is_what_jiff_makes_of_it(days in -719_162i32..2_932_896) {
        let date = Date(days - 10_957);
        let theirs = civil::date(1970, 1, 1).checked_add(jiff::Span::new().days(i64::from(days))).unwrap();
        prop_assert_eq!(date.to_string(), theirs.to_string());
        prop_assert_eq!(Date::parse(&theirs.to_string()), Some(date));
    }

    #[test]
    fn any_ten_digits_are_a_date_for_both_or_for_neither(year in 1i16..=9999, month in 0i8..=13, day in 0i8..=32) {
        let text = format!("{year:04}-{month:02}-{day:02}");
        prop_assert_eq!(Date::parse(&text).is_some(), civil::Date::new(year, month, day).is_ok(), "{}", text);
    }

    #[test]
    fn noise_is_refused_without_a_panic(text in "\\PC{0,40}") {
        let _ = (Instant::parse(&text), Date::parse(&text));
    }

    #[test]
    fn damaged_instants_are_refused_without_a_panic(at in 0usize..27, byte in any::<char>()) {
        let mut chars: Vec<char> = "2024-02-29T23:59:59.999999Z".chars().collect();
        chars[at] = byte;
        let text: String = chars.into_iter().collect();
        if let Some(instant) = Instant::parse(&text) {
            prop_assert_eq!(Instant::parse(&instant.to_string()), Some(instant));
        }
    }
}

#[test]
fn known_instants() {
    for (text, unix_micros) in [
        ("1970-01-01T00:00:00Z", 0),
        ("2000-01-01T00:00:00Z", 946_684_800_000_000),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2013-01-01T05:00:00.5+00:00", 1_357_016_400_500_000),
        ("2013-01-01t05:00:00z", 1_357_016_400_000_000),
        ("2013-01-01 05:00:00Z", 1_357_016_400_000_000),
        ("2024-01-01T00:00:00+05:30", 1_704_047_400_000_000),
        ("2024-01-01T00:00:00-00:00", 1_704_067_200_000_000),
        ("2024-01-01T00:00:00.123456789Z", 1_704_067_200_123_456),
        ("0001-01-01T00:00:00Z", FIRST),
        ("9999-12-31T23:59:59.999999Z", LAST),
    ] {
        assert_eq!(Instant::parse(text).map(Instant::unix_micros), Some(unix_micros), "{text}");
    }
    assert_eq!(Instant::from_unix_micros(1_357_016_400_500_000).to_string(), "2013-01-01T05:00:00.5+00:00");
    assert_eq!(Instant::from_unix_micros(-1).to_string(), "1969-12-31T23:59:59.999999+00:00");
    assert_eq!(Instant::from_unix_micros(-1).unix_millis(), -1);
}

#[test]
fn what_is_no_instant_is_refused() {
    for text in [
        "",
        "2024-01-01",
        "2024-01-01T00:00:00",
        "2024-01-01T00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:60:00Z",
        "2016-12-31T23:59:60Z",
        "2024-13-01T00:00:00Z",
        "2024-00-01T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "2024-01-00T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "+2024-01-01T00:00:00Z",
        "-2024-01-01T00:00:00Z",
        "2024-01-01T00:00:00.Z",
        "2024-01-01T00:00:00,5Z",
        "2024-01-01T00:00:00+0100",
        "2024-01-01T00:00:00+24:00",
        "2024-01-01T00:00:00+01:60",
        "2024-01-01T00:00:00+1:00",
        "2024-01-01T00:00:00 Z",
        "2024-01-01T00:00:00ZZ",
        "2024-01-01T00:00:00Z ",
        " 2024-01-01T00:00:00Z",
        "2024-1-1T00:00:00Z",
        "2024-01-01_00:00:00Z",
        "2024/01/01T00:00:00Z",
        "٢٠٢٤-01-01T00:00:00Z",
        "2024-01-01T00:00:00UTC",
        "now",
    ] {
        assert_eq!(Instant::parse(text), None, "{text}");
    }
    for text in [
        "",
        "2024-02-30",
        "2023-02-29",
        "1900-02-29",
        "0000-01-01",
        "2024-1-01",
        "24-01-01",
        "2024-01-01 ",
        "20240101",
        "2024-01-01T",
    ] {
        assert_eq!(Date::parse(text), None, "{text}");
    }
    assert!(Date::parse("2000-02-29").is_some());
}

/// An offset can carry a time beyond the years that can be written.
#[test]
fn an_offset_does_not_lead_out_of_the_calendar() {
    for text in [
        "0001-01-01T00:00:00+23:59",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-23:59",
        "9999-12-31T23:59:00-00:01",
    ] {
        assert_eq!(Instant::parse(text), None, "{text}");
    }
    for text in ["0001-01-01T23:59:00+23:59", "9999-12-31T00:00:59-23:59"] {
        assert!(Instant::parse(text).is_some(), "{text}");
    }
}

#[test]
fn the_calendar_ends_are_the_nearest_to_what_lies_beyond() {
    let ends = ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00"];
    let near = |micros| Instant::from_unix_micros(micros).within_calendar().to_string();
    assert_eq!(Instant(i64::MIN).within_calendar().to_string(), ends[0]);
    assert_eq!(Instant(i64::MAX).within_calendar().to_string(), ends[1]);
    assert_eq!(near(253_402_300_800_000_000), ends[1]);
    let today = Instant::parse("2026-11-22T19:00:00Z").unwrap();
    assert_eq!(today.within_calendar(), today);
}
