//! What the machine and the processes on it did: load, processor time, bytes written. Read from `/proc`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

/// Ticks of processor time in a second as `/proc` counts them; 100 on every Linux (proc(5)).
const USER_HZ: f64 = 100.0;

/// The machine's load averages over 1, 5 and 15 minutes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Load {
    /// Over one minute.
    pub one: f64,
    /// Over five minutes.
    pub five: f64,
    /// Over fifteen minutes.
    pub fifteen: f64,
}

impl Load {
    /// Now; zeros where the system does not tell.
    pub fn now() -> Self {
        let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let mut numbers = text.split_whitespace().map(|word| word.parse().unwrap_or(0.0));
        let mut next = || numbers.next().unwrap_or(0.0);
        Load { one: next(), five: next(), fifteen: next() }
    }
}

/// What a process and everything below it have used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor seconds, user and system.
    pub cpu_s: f64,
    /// Bytes given to the block layer, as far as the system lets us see.
    pub written_bytes: u64,
}

impl Usage {
    /// Of the process tree below and with `pid`. Ended children count with their parent's processor time, not with their bytes: measure
    /// while connections are open.
    pub fn of_tree(pid: u32) -> Self {
        let mut total = Usage::default();
        for process in tree(pid) {
            total.cpu_s += cpu_seconds(process).unwrap_or(0.0);
            total.written_bytes += written_bytes(process).unwrap_or(0);
        }
        total
    }

    /// What was used since `earlier`.
    pub fn since(self, earlier: Usage) -> Usage {
        Usage {
            cpu_s: (self.cpu_s - earlier.cpu_s).max(0.0),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
        }
    }
}

fn tree(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Some(parent) = stat_fields(pid).and_then(|fields| fields.get(1)?.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        found.extend(children.get(&found[at]).into_iter().flatten());
        at += 1;
    }
    found
}

/// The fields of `/proc/PID/stat` after the command: state first.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_string).collect())
}

fn cpu_seconds(pid: u32) -> Option<f64> {
    let fields = stat_fields(pid)?;
    // utime, stime, cutime, cstime are fields 14 to 17 of proc(5), 11 to 14 after the command.
    let ticks: f64 = fields.get(11..15)?.iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    Some(ticks / USER_HZ)
}

fn written_bytes(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
}

/// Bytes of all files below a directory.
pub fn bytes_below(directory: &Path) -> u64 {
    let mut total = 0;
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => total += bytes_below(&entry.path()),
            Ok(metadata) => total += std::os::unix::fs::MetadataExt::blocks(&metadata) * 512,
            Err(_) => {}
        }
    }
    total
}

/// The middle of the numbers, the mean of the two middle ones for an even count; `None` of none.
pub fn median(numbers: &[f64]) -> Option<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// The geometric mean; `None` of none.
pub fn geometric_mean(numbers: &[f64]) -> Option<f64> {
    if numbers.is_empty() {
        return None;
    }
    Some((numbers.iter().map(|number| number.ln()).sum::<f64>() / numbers.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert!((geometric_mean(&[1.0, 4.0]).unwrap() - 2.0).abs() < 1e-12);
    }

    #[test]
    fn this_process_has_used_processor_time() {
        let mut sum = 0u64;
        while cpu_seconds(std::process::id()).unwrap() == 0.0 {
            sum = std::hint::black_box(sum.wrapping_add((0..1_000_000u64).sum()));
        }
        assert!(Usage::of_tree(std::process::id()).cpu_s > 0.0);
    }
}
