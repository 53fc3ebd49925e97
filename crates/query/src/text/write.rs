//! PostgreSQL's text forms on the way out: results, COPY and casts to text.

use std::fmt::Write;

use super::Zone;

const US_PER_SECOND: i64 = 1_000_000;
const US_PER_DAY: i64 = 86_400 * US_PER_SECOND;
/// From this decimal exponent on, a double is written with an exponent; a real from the other.
const DOUBLE_EXPONENT: i32 = 15;
const REAL_EXPONENT: i32 = 6;

/// A double: the shortest digits that read back as the same value.
pub fn double(out: &mut String, value: f64) {
    if is_plain(value.abs(), 1e15) {
        plain(out, ryu::Buffer::new().format_finite(value));
    } else if value.is_finite() {
        shortest(out, &format!("{value:e}"), DOUBLE_EXPONENT);
    } else {
        special(out, value);
    }
}

/// A real, likewise.
pub fn real(out: &mut String, value: f32) {
    if is_plain(f64::from(value.abs()), 1e6) {
        plain(out, ryu::Buffer::new().format_finite(value));
    } else if value.is_finite() {
        shortest(out, &format!("{value:e}"), REAL_EXPONENT);
    } else {
        special(out, f64::from(value));
    }
}

/// Whether a number is written without an exponent, by the library as well. Zero has a sign of its own.
fn is_plain(magnitude: f64, end: f64) -> bool {
    (1e-4..end).contains(&magnitude)
}

/// The library writes whole numbers with a fraction.
fn plain(out: &mut String, written: &str) {
    out.push_str(written.strip_suffix(".0").unwrap_or(written));
}

fn special(out: &mut String, value: f64) {
    out.push_str(match (value.is_nan(), value > 0.0) {
        (true, _) => "NaN",
        (false, true) => "Infinity",
        (false, false) => "-Infinity",
    });
}

/// From Rust's `-1.25e-7` to PostgreSQL's form.
fn shortest(out: &mut String, scientific: &str, exponent_limit: i32) {
    let (mantissa, exponent) = scientific.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    if exponent < -4 || exponent >= exponent_limit {
        let sign = if exponent < 0 { '-' } else { '+' };
        // Writing to a String cannot fail.
        let _ok = write!(out, "{mantissa}e{sign}{:02}", exponent.abs());
        return;
    }
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |mantissa| ("-", mantissa));
    let digits = mantissa.replace('.', "");
    out.push_str(sign);
    match usize::try_from(exponent) {
        Ok(exponent) => {
            let whole = exponent + 1;
            if digits.len() <= whole {
                out.push_str(&digits);
                out.extend(std::iter::repeat_n('0', whole - digits.len()));
            } else {
                out.push_str(&digits[..whole]);
                out.push('.');
                out.push_str(&digits[whole..]);
            }
        }
        Err(_) => {
            out.push_str("0.");
            out.extend(std::iter::repeat_n('0', exponent.unsigned_abs() as usize - 1));
            out.push_str(&digits);
        }
    }
}

/// A decimal with `scale` digits after the point.
pub fn decimal(out: &mut String, value: i128, scale: i8) {
    let digits = value.unsigned_abs().to_string();
    if value < 0 {
        out.push('-');
    }
    match usize::try_from(scale) {
        Ok(0) => out.push_str(&digits),
        Ok(scale) => {
            let padded = format!("{digits:0>width$}", width = scale + 1);
            let (whole, fraction) = padded.split_at(padded.len() - scale);
            out.push_str(whole);
            out.push('.');
            out.push_str(fraction);
        }
        Err(_) => {
            out.push_str(&digits);
            out.extend(std::iter::repeat_n('0', usize::from(scale.unsigned_abs())));
        }
    }
}

/// Days since 1970-01-01.
pub fn date(out: &mut String, days: i32) {
    match days {
        i32::MAX => out.push_str("infinity"),
        i32::MIN => out.push_str("-infinity"),
        days => {
            let era = day(out, i64::from(days));
            out.push_str(era);
        }
    }
}

/// Microseconds since 1970-01-01, no zone.
pub fn timestamp(out: &mut String, us: i64) {
    if !infinite(out, us) {
        let era = clock(out, us);
        out.push_str(era);
    }
}

/// Microseconds since 1970-01-01 UTC, shown in `zone`.
pub fn timestamptz(out: &mut String, us: i64, zone: &Zone) {
    if infinite(out, us) {
        return;
    }
    let offset = zone.offset_at(us);
    let era = clock(out, us.saturating_add(i64::from(offset) * US_PER_SECOND));
    let (sign, offset) = if offset < 0 { ('-', -offset) } else { ('+', offset) };
    let _ok = write!(out, "{sign}{:02}", offset / 3600);
    if offset % 3600 != 0 {
        let _ok = write!(out, ":{:02}", offset / 60 % 60);
    }
    if offset % 60 != 0 {
        let _ok = write!(out, ":{:02}", offset % 60);
    }
    out.push_str(era);
}

/// Microseconds since midnight.
pub fn time(out: &mut String, us: i64) {
    let seconds = us / US_PER_SECOND;
    let hours = seconds / 3600;
    if hours < 100 {
        two_digits(out, hours);
    } else {
        integer(out, hours);
    }
    out.push(':');
    two_digits(out, seconds / 60 % 60);
    out.push(':');
    two_digits(out, seconds % 60);
    fraction(out, us % US_PER_SECOND);
}

/// `1 year 2 mons 3 days 04:05:06.7`
pub fn interval(out: &mut String, months: i32, days: i32, us: i64) {
    let begin = out.len();
    let mut negative_before = false;
    for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if value != 0 {
            let space = if out.len() > begin { " " } else { "" };
            // After a negative part a positive one says its sign.
            let plus = if negative_before && value > 0 { "+" } else { "" };
            let plural = if value == 1 { "" } else { "s" };
            let _ok = write!(out, "{space}{plus}{value} {unit}{plural}");
            negative_before = value < 0;
        }
    }
    if us != 0 || out.len() == begin {
        let space = if out.len() > begin { " " } else { "" };
        let sign = match (us < 0, negative_before) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        };
        let _ok = write!(out, "{space}{sign}");
        time(out, i64::try_from(us.unsigned_abs()).unwrap_or(i64::MAX));
    }
}

/// Appends bytes as `\x` and hexadecimal digits.
pub fn bytea(out: &mut String, bytes: &[u8]) {
    out.push_str("\\x");
    for byte in bytes {
        let _ok = write!(out, "{byte:02x}");
    }
}

/// Appends sixteen bytes in groups of eight, four, four, four and twelve digits.
pub fn uuid(out: &mut String, value: &[u8]) {
    for (at, byte) in value.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        let _ok = write!(out, "{byte:02x}");
    }
}

/// An element of an array in braces; quoted where it would be read otherwise.
pub fn element(out: &mut String, text: &str) {
    let special = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | ',' | '"' | '\\');
    if !text.is_empty() && !text.contains(special) && !text.eq_ignore_ascii_case("null") {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

fn infinite(out: &mut String, us: i64) -> bool {
    match us {
        i64::MAX => out.push_str("infinity"),
        i64::MIN => out.push_str("-infinity"),
        _ => return false,
    }
    true
}

/// Date and time of day; gives what follows everything else.
fn clock(out: &mut String, us: i64) -> &'static str {
    let era = day(out, us.div_euclid(US_PER_DAY));
    out.push(' ');
    time(out, us.rem_euclid(US_PER_DAY));
    era
}

fn fraction(out: &mut String, us: i64) {
    if us != 0 {
        let digits = format!("{us:06}");
        out.push('.');
        out.push_str(digits.trim_end_matches('0'));
    }
}

/// `2013-01-31`; gives ` BC` when the year needs it.
fn day(out: &mut String, days: i64) -> &'static str {
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": civil_from_days, with the era's 400 years as unit.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    if year < 10_000 {
        two_digits(out, year / 100);
        two_digits(out, year % 100);
    } else {
        integer(out, year);
    }
    out.push('-');
    two_digits(out, month);
    out.push('-');
    two_digits(out, day);
    era
}

/// 0 to 99, with a zero before a single digit.
fn two_digits(out: &mut String, number: i64) {
    for digit in [number / 10, number % 10] {
        out.push(char::from(b'0' + u8::try_from(digit).expect("the number has two digits at most")));
    }
}

/// An integer of any size.
pub fn integer(out: &mut String, number: impl itoa::Integer) {
    out.push_str(itoa::Buffer::new().format(number));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn floats_are_shortest_with_postgresqls_exponents() {
        // Taken from PostgreSQL 15.
        let doubles = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (100.0, "100"),
            (0.1, "0.1"),
            (12.345, "12.345"),
            (-1234.5, "-1234.5"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e15, "1e+15"),
            (1.5e300, "1.5e+300"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (value, expected) in doubles {
            assert_eq!(text(|out| double(out, value)), expected);
        }
        for (value, expected) in [(123_456.0, "123456"), (1e6, "1e+06"), (0.1, "0.1"), (3.4e38, "3.4e+38")] {
            assert_eq!(text(|out| real(out, value)), expected);
        }
    }

    #[test]
    fn floats_are_written_one_way_whichever_is_taken() {
        for value in [0.0001, 0.001_234_5, 1.0, 99.0, 5e-324, 123_456_789_012_345.6, 999_999_999_999_999.9, 1e15, 0.3] {
            for value in [value, -value] {
                let mut slow = String::new();
                shortest(&mut slow, &format!("{value:e}"), DOUBLE_EXPONENT);
                assert_eq!(text(|out| double(out, value)), slow);
            }
        }
        for value in [0.0001_f32, 0.1, 1.0, 999_999.9, 1e6, 123.25, 3.0e-5] {
            let mut slow = String::new();
            shortest(&mut slow, &format!("{value:e}"), REAL_EXPONENT);
            assert_eq!(text(|out| real(out, value)), slow);
        }
    }

    #[test]
    fn instants_show_their_zone_and_era() {
        assert_eq!(text(|out| timestamp(out, 1_357_016_400_123_400)), "2013-01-01 05:00:00.1234");
        assert_eq!(text(|out| timestamptz(out, 1_357_016_400_000_000, &Zone::UTC)), "2013-01-01 05:00:00+00");
        let new_york = Zone::parse("America/New_York").unwrap();
        assert_eq!(text(|out| timestamptz(out, 1_357_016_400_000_000, &new_york)), "2013-01-01 00:00:00-05");
        assert_eq!(text(|out| timestamptz(out, 0, &Zone::Fixed(19_800))), "1970-01-01 05:30:00+05:30");
        assert_eq!(text(|out| date(out, -719_163)), "0001-12-31 BC");
        assert_eq!(text(|out| date(out, 2_932_896)), "9999-12-31");
        assert_eq!(text(|out| timestamp(out, i64::MAX)), "infinity");
    }

    #[test]
    fn decimals_intervals_and_elements() {
        assert_eq!(text(|out| decimal(out, -5, 2)), "-0.05");
        assert_eq!(text(|out| decimal(out, 12_345, 2)), "123.45");
        assert_eq!(text(|out| decimal(out, 7, -2)), "700");
        assert_eq!(text(|out| interval(out, 14, 3, 14_706_700_000)), "1 year 2 mons 3 days 04:05:06.7");
        assert_eq!(text(|out| interval(out, 0, 0, 0)), "00:00:00");
        assert_eq!(text(|out| interval(out, -1, 2, -1_000_000)), "-1 mons +2 days -00:00:01");
        assert_eq!(text(|out| element(out, "a b")), "\"a b\"");
        assert_eq!(text(|out| element(out, "NULL")), "\"NULL\"");
        assert_eq!(text(|out| bytea(out, &[0, 255])), "\\x00ff");
    }
}
