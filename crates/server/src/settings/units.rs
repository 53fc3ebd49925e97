//! Sizes and durations as people write them: `64 MiB`, `10 s`.

use std::time::Duration;

use super::SettingsError;

/// Bytes in `text`: a whole number with `B`, `KiB`, `MiB`, `GiB` or `TiB`.
pub(super) fn bytes(key: &str, text: &str) -> Result<u64, SettingsError> {
    let (number, unit) = split(text);
    let scale = match unit {
        "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        "TiB" => Some(1_u64 << 40),
        _ => None,
    };
    let value = number.parse::<u64>().ok();
    value.zip(scale).and_then(|(value, scale)| value.checked_mul(scale)).ok_or_else(|| {
        SettingsError::new(format!("\"{key}\" must be a size, not \"{text}\""))
            .with_hint("a whole number with B, KiB, MiB, GiB or TiB, for example \"64 MiB\"")
    })
}

/// The duration in `text`: a whole number with `ms`, `s`, `min` or `h`.
pub(super) fn duration(key: &str, text: &str) -> Result<Duration, SettingsError> {
    let (number, unit) = split(text);
    let scale_ms = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "min" => Some(60_000),
        "h" => Some(3_600_000_u64),
        _ => None,
    };
    let value = number.parse::<u64>().ok();
    value.zip(scale_ms).and_then(|(value, scale)| value.checked_mul(scale)).map(Duration::from_millis).ok_or_else(
        || {
            SettingsError::new(format!("\"{key}\" must be a duration, not \"{text}\""))
                .with_hint("a whole number with ms, s, min or h, for example \"10 s\"")
        },
    )
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..digits], text[digits..].trim())
}
