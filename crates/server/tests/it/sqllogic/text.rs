//! PostgreSQL's text form of values that came in binary, so that one expectation serves both protocols.
//!
//! Written from PostgreSQL's documentation of its output formats, on purpose not shared with the server: the two must agree.

use tokio_postgres::types::Type;

const MICROS_PER_DAY: i64 = 86_400_000_000;
/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL's binary times begin.
const EPOCH_DAYS: i64 = 10_957;

/// Whether [`render`] knows the type.
pub(super) fn is_known(of: &Type) -> bool {
    [
        Type::BOOL,
        Type::INT2,
        Type::INT4,
        Type::INT8,
        Type::FLOAT4,
        Type::FLOAT8,
        Type::TEXT,
        Type::VARCHAR,
        Type::NAME,
        Type::TIMESTAMP,
        Type::TIMESTAMPTZ,
        Type::DATE,
        Type::TIME,
        Type::BYTEA,
        Type::UUID,
        Type::JSON,
        Type::JSONB,
        Type::OID,
    ]
    .contains(of)
}

/// The text PostgreSQL prints for a binary value under time zone UTC.
pub(super) fn render(of: &Type, raw: &[u8]) -> String {
    match *of {
        Type::BOOL => (if raw == [1] { "t" } else { "f" }).to_string(),
        Type::INT2 => i16::from_be_bytes(fixed(raw)).to_string(),
        Type::INT4 => i32::from_be_bytes(fixed(raw)).to_string(),
        Type::OID => u32::from_be_bytes(fixed(raw)).to_string(),
        Type::INT8 => i64::from_be_bytes(fixed(raw)).to_string(),
        Type::FLOAT4 => {
            let v = f32::from_be_bytes(fixed(raw));
            float(v.is_nan(), v.is_infinite(), v.is_sign_negative(), &format!("{v:e}"), 6)
        }
        Type::FLOAT8 => {
            let v = f64::from_be_bytes(fixed(raw));
            float(v.is_nan(), v.is_infinite(), v.is_sign_negative(), &format!("{v:e}"), 15)
        }
        Type::TIMESTAMP => timestamp(i64::from_be_bytes(fixed(raw)), ""),
        Type::TIMESTAMPTZ => timestamp(i64::from_be_bytes(fixed(raw)), "+00"),
        Type::DATE => date(i32::from_be_bytes(fixed(raw))),
        Type::TIME => clock(i64::from_be_bytes(fixed(raw))),
        Type::BYTEA => format!("\\x{}", hexadecimal(raw)),
        Type::UUID => {
            let digits = hexadecimal(&fixed::<16>(raw));
            [0..8, 8..12, 12..16, 16..20, 20..32].map(|group| &digits[group]).join("-")
        }
        Type::JSONB => {
            assert_eq!(raw.first(), Some(&1), "the version of jsonb's binary form");
            String::from_utf8(raw[1..].to_vec()).expect("the server sends UTF-8")
        }
        _ => String::from_utf8(raw.to_vec()).expect("the server sends UTF-8"),
    }
}

/// A value of the wrong width fails the record's test and prints as what it is.
fn fixed<const N: usize>(raw: &[u8]) -> [u8; N] {
    raw.try_into().unwrap_or_else(|_| panic!("a value of {N} bytes came with {}", raw.len()))
}

/// Lays out the shortest digits (`scientific` is Rust's `{:e}`) as PostgreSQL does: scientific below 1e-4 and from 10^`wide` on.
fn float(nan: bool, infinite: bool, negative: bool, scientific: &str, wide: i32) -> String {
    if nan {
        return "NaN".into();
    }
    if infinite {
        return (if negative { "-Infinity" } else { "Infinity" }).into();
    }
    let (mantissa, exponent) = scientific.split_once('e').expect("{:e} has an exponent");
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    let exponent: i32 = exponent.parse().unwrap();
    let digits = mantissa.replace('.', "");
    if !(-4..wide).contains(&exponent) {
        let point = if mantissa.len() > 1 { mantissa.to_string() } else { digits };
        return format!("{sign}{point}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat((-exponent - 1) as usize));
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        return format!("{sign}{digits}{}", "0".repeat(whole - digits.len()));
    }
    format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
}

fn timestamp(micros: i64, zone: &str) -> String {
    match micros {
        i64::MAX => return "infinity".into(),
        i64::MIN => return "-infinity".into(),
        _ => {}
    }
    let (days, of_day) = (micros.div_euclid(MICROS_PER_DAY), micros.rem_euclid(MICROS_PER_DAY));
    let (day, era) = civil(days + EPOCH_DAYS);
    format!("{day} {}{zone}{era}", clock(of_day))
}

/// A time of day.
fn clock(micros: i64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let mut clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction != 0 {
        clock.push_str(format!(".{fraction:06}").trim_end_matches('0'));
    }
    clock
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn date(days: i32) -> String {
    match days {
        i32::MAX => return "infinity".into(),
        i32::MIN => return "-infinity".into(),
        _ => {}
    }
    let (day, era) = civil(i64::from(days) + EPOCH_DAYS);
    format!("{day}{era}")
}

/// The proleptic Gregorian date of a day since 1970-01-01, and ` BC` before year 1.
/// The arithmetic is Howard Hinnant's `civil_from_days` (chrono-compatible low-level date algorithms).
fn civil(days: i64) -> (String, &'static str) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if year > 0 {
        (format!("{year:04}-{month:02}-{day:02}"), "")
    } else {
        (format!("{:04}-{month:02}-{day:02}", 1 - year), " BC")
    }
}

#[test]
fn values_print_as_postgresql_prints_them() {
    let double = |v: f64| render(&Type::FLOAT8, &v.to_be_bytes());
    assert_eq!(
        [0.1, 1e15, 123456789012345.0, 1e-5, 0.0001, -2.5, 100.0, f64::NEG_INFINITY].map(double),
        ["0.1", "1e+15", "123456789012345", "1e-05", "0.0001", "-2.5", "100", "-Infinity"]
    );
    assert_eq!(render(&Type::FLOAT4, &1e6f32.to_be_bytes()), "1e+06");
    assert_eq!(render(&Type::TIMESTAMPTZ, &(-1_500_000i64).to_be_bytes()), "1999-12-31 23:59:58.5+00");
    assert_eq!(render(&Type::DATE, &(-730_485i32).to_be_bytes()), "0001-01-01 BC");
}
