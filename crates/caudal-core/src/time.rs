//! Instants and dates as the stores keep them: microseconds and days since 2000-01-01, PostgreSQL's own epoch, so that the
//! bytes of a row need no conversion on the way in or out.

/// Microseconds between 1970-01-01 and 2000-01-01.
pub const EPOCH_SHIFT_MICROS: i64 = 946_684_800_000_000;
const EPOCH_SHIFT_DAYS: i64 = 10_957;
const DAY_MICROS: i64 = 86_400_000_000;
/// 0001-01-01T00:00:00Z and the last microsecond of 9999, in microseconds since 1970.
const FIRST: i64 = -62_135_596_800_000_000;
const LAST: i64 = 253_402_300_799_999_999;

/// An instant: microseconds since 2000-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub i64);

impl Instant {
    /// Any number is taken, because it may be what somebody wrote into a header; those beyond the calendar wrap, and come back
    /// from [`unix_micros`](Self::unix_micros) as they were.
    pub fn from_unix_micros(micros: i64) -> Self {
        Self(micros.wrapping_sub(EPOCH_SHIFT_MICROS))
    }

    pub fn unix_micros(self) -> i64 {
        self.0.wrapping_add(EPOCH_SHIFT_MICROS)
    }

    /// The day in UTC.
    pub fn date(self) -> Date {
        Date(self.0.div_euclid(DAY_MICROS) as i32)
    }

    /// The nearest instant from year 1 to 9999: what both stores keep and every reader understands.
    pub fn within_calendar(self) -> Self {
        // Compared on the scale of the field: the other one wraps at its ends.
        Self(self.0.clamp(FIRST - EPOCH_SHIFT_MICROS, LAST - EPOCH_SHIFT_MICROS))
    }

    pub fn unix_millis(self) -> i64 {
        self.unix_micros().div_euclid(1000)
    }

    /// RFC 3339 in UTC, with as many fraction digits as are not zero, in the form PostgreSQL's JSON has:
    /// `2013-01-01T05:00:00.5+00:00`. Sorted as text these sort by time, which SQLite's columns rely on.
    /// PostgreSQL's two instants outside all time are written as it writes them.
    pub fn write_to(self, out: &mut Vec<u8>) {
        if let Some(word) = infinity(self.0 == i64::MAX, self.0 == i64::MIN) {
            return out.extend_from_slice(word);
        }
        let days = self.0.div_euclid(DAY_MICROS);
        let mut rest = self.0.rem_euclid(DAY_MICROS);
        Date(days as i32).write_to(out);
        let micros = rest % 1_000_000;
        rest /= 1_000_000;
        out.push(b'T');
        two(out, rest / 3600);
        out.push(b':');
        two(out, rest / 60 % 60);
        out.push(b':');
        two(out, rest % 60);
        if micros != 0 {
            out.push(b'.');
            for pair in [micros / 10_000, micros / 100 % 100, micros % 100] {
                two(out, pair);
            }
            while out.last() == Some(&b'0') {
                out.pop();
            }
        }
        out.extend_from_slice(b"+00:00");
    }

    /// Reads RFC 3339 (`date-time` of JSON Schema). A zone is required; second 60, years outside 1–9999 and impossible
    /// dates are refused. Digits beyond microseconds are cut, not rounded.
    pub fn parse(text: &str) -> Option<Self> {
        let b = text.as_bytes();
        if b.len() < 20 || !matches!(b[10], b'T' | b't' | b' ') || b[13] != b':' || b[16] != b':' {
            return None;
        }
        let date = Date::parse(text.get(..10)?)?;
        let (hour, minute, second) = (digits(&b[11..13])?, digits(&b[14..16])?, digits(&b[17..19])?);
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let mut at = 19;
        let mut micros = 0;
        if b[at] == b'.' {
            let start = at + 1;
            at = start + b[start..].iter().take_while(|c| c.is_ascii_digit()).count();
            if at == start {
                return None;
            }
            for i in 0..6 {
                micros = micros * 10 + b[start..at].get(i).map_or(0, |c| i64::from(c - b'0'));
            }
        }
        let offset_minutes = zone(&b[at..])?;
        let seconds = hour * 3600 + minute * 60 + second - offset_minutes * 60;
        let instant = Self(i64::from(date.0) * DAY_MICROS + seconds * 1_000_000 + micros);
        // The offset may lead out of the years that can be written and sorted as text.
        (FIRST..=LAST).contains(&instant.unix_micros()).then_some(instant)
    }
}

impl std::fmt::Display for Instant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = Vec::with_capacity(32);
        self.write_to(&mut out);
        f.write_str(&String::from_utf8_lossy(&out))
    }
}

fn infinity(after: bool, before: bool) -> Option<&'static [u8]> {
    match (after, before) {
        (true, _) => Some(b"infinity"),
        (_, true) => Some(b"-infinity"),
        _ => None,
    }
}

fn zone(b: &[u8]) -> Option<i64> {
    match b {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let minutes = digits(&[*h1, *h2])? * 60 + digits(&[*m1, *m2]).filter(|m| *m < 60)?;
            if minutes >= 24 * 60 {
                return None;
            }
            Some(if *sign == b'-' { -minutes } else { minutes })
        }
        _ => None,
    }
}

fn digits(b: &[u8]) -> Option<i64> {
    b.iter().try_fold(0i64, |n, c| c.is_ascii_digit().then(|| n * 10 + i64::from(c - b'0')))
}

fn two(out: &mut Vec<u8>, n: i64) {
    out.push(b'0' + (n / 10) as u8);
    out.push(b'0' + (n % 10) as u8);
}

/// A calendar date: days since 2000-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(pub i32);

impl Date {
    pub fn parse(text: &str) -> Option<Self> {
        let b = text.as_bytes();
        if b.len() != 10 || b[4] != b'-' || b[7] != b'-' {
            return None;
        }
        let (year, month, day) = (digits(&b[..4])?, digits(&b[5..7])?, digits(&b[8..])?);
        if year == 0 || !(1..=12).contains(&month) || day == 0 || day > days_in(year, month) {
            return None;
        }
        Some(Self((days_from_civil(year, month, day) - EPOCH_SHIFT_DAYS) as i32))
    }

    /// Its first instant in UTC.
    pub fn midnight(self) -> Instant {
        Instant(i64::from(self.0) * DAY_MICROS)
    }

    pub fn write_to(self, out: &mut Vec<u8>) {
        if let Some(word) = infinity(self.0 == i32::MAX, self.0 == i32::MIN) {
            return out.extend_from_slice(word);
        }
        let (year, month, day) = civil_from_days(i64::from(self.0) + EPOCH_SHIFT_DAYS);
        match year {
            0..=9999 => {
                two(out, year / 100);
                two(out, year % 100);
            }
            _ => out.extend_from_slice(format!("{year:04}").as_bytes()),
        }
        out.push(b'-');
        two(out, month);
        out.push(b'-');
        two(out, day);
    }
}

impl std::fmt::Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = Vec::with_capacity(10);
        self.write_to(&mut out);
        f.write_str(&String::from_utf8_lossy(&out))
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a proleptic Gregorian date. Algorithm: H. Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `days_from_civil`.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`], same source.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}
