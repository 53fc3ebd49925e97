//! Data of the public Time Series Benchmark Suite's devops use case, CPU only: our own generator of its published model.
//!
//! Every host has ten gauges that start anywhere in 0..100 and walk with normal steps, kept within 0..=100; a reading is the walk cut to a
//! whole number. All hosts report at the same instants, hosts in order within one. The same seed gives the same rows.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The gauges, each a column `double precision`.
pub const METRICS: [&str; 10] = [
    "usage_user",
    "usage_system",
    "usage_idle",
    "usage_nice",
    "usage_iowait",
    "usage_irq",
    "usage_softirq",
    "usage_steal",
    "usage_guest",
    "usage_guest_nice",
];
/// 2016-01-01, where the suite begins.
pub const START_US: i64 = 1_451_606_400_000_000;
/// Width of the splits that the programs ask for.
pub const SPLIT_US: i64 = 12 * 3600 * 1_000_000;

/// The columns of table `cpu` as CREATE TABLE wants them.
pub fn columns() -> String {
    METRICS.iter().fold("time timestamptz NOT NULL, hostname text".to_string(), |mut sql, metric| {
        let _ = write!(sql, ", {metric} double precision");
        sql
    })
}

/// How much data.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Hosts that report.
    pub hosts: usize,
    /// Instants at which each reports.
    pub instants: usize,
    /// Seconds between instants.
    pub interval_s: u32,
}

impl Size {
    /// The smallest number of instants of `hosts` hosts, 10 s apart, with at least `rows` rows.
    pub fn of_rows(rows: usize, hosts: usize) -> Self {
        Size { hosts, instants: rows.div_ceil(hosts), interval_s: 10 }
    }

    /// Rows in all.
    pub fn rows(&self) -> usize {
        self.hosts * self.instants
    }

    /// Seconds from the first instant to one interval after the last.
    pub fn seconds(&self) -> u64 {
        self.instants as u64 * u64::from(self.interval_s)
    }
}

/// One reading of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Microseconds since 1970 UTC.
    pub time_us: i64,
    /// Number of the host, from 0.
    pub host: usize,
    /// The gauges in the order of [`METRICS`].
    pub usage: [u8; 10],
}

/// All readings of a size, in time order.
#[derive(Debug)]
pub struct Readings {
    size: Size,
    state: Vec<[f64; 10]>,
    random: StdRng,
    next: usize,
}

impl Readings {
    /// Starts the walks.
    pub fn new(size: Size, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let state = (0..size.hosts).map(|_| std::array::from_fn(|_| random.random::<f64>() * 100.0)).collect();
        Readings { size, state, random, next: 0 }
    }
}

impl Iterator for Readings {
    type Item = Reading;

    fn next(&mut self) -> Option<Reading> {
        if self.next == self.size.rows() {
            return None;
        }
        let (instant, host) = (self.next / self.size.hosts, self.next % self.size.hosts);
        self.next += 1;
        let gauges = &mut self.state[host];
        if instant > 0 {
            for pair in gauges.chunks_mut(2) {
                let (a, b) = normal_pair(&mut self.random);
                pair[0] = (pair[0] + a).clamp(0.0, 100.0);
                pair[1] = (pair[1] + b).clamp(0.0, 100.0);
            }
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=100 above")]
        let usage = std::array::from_fn(|metric| gauges[metric] as u8);
        let time_us = START_US + instant as i64 * i64::from(self.size.interval_s) * 1_000_000;
        Some(Reading { time_us, host, usage })
    }
}

/// Two independent standard normal numbers (Box and Muller 1958).
fn normal_pair(random: &mut StdRng) -> (f64, f64) {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    let angle = std::f64::consts::TAU * random.random::<f64>();
    (radius * angle.cos(), radius * angle.sin())
}

/// How rows are written for the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Lines for COPY … (FORMAT csv).
    Copy,
    /// One INSERT statement.
    Insert,
}

/// Cuts the readings into batches of `rows` rows, each written as `form` says, with its number of rows.
pub fn batches(readings: impl Iterator<Item = Reading>, rows: usize, form: Form) -> Vec<(bytes::Bytes, usize)> {
    let mut batches = Vec::new();
    let (mut text, mut filled) = (String::new(), 0);
    let mut clock = (i64::MIN, String::new());
    for reading in readings {
        if clock.0 != reading.time_us {
            clock = (reading.time_us, instant(reading.time_us));
        }
        write_row(&mut text, &clock.1, &reading, form, filled == 0);
        filled += 1;
        if filled == rows {
            batches.push((bytes::Bytes::from(std::mem::take(&mut text)), filled));
            filled = 0;
        }
    }
    if filled > 0 {
        batches.push((bytes::Bytes::from(text), filled));
    }
    batches
}

fn write_row(text: &mut String, instant: &str, reading: &Reading, form: Form, first: bool) {
    let _ = match (form, first) {
        (Form::Copy, _) => write!(text, "{instant},host_{}", reading.host),
        (Form::Insert, true) => write!(text, "INSERT INTO cpu VALUES ('{instant}','host_{}'", reading.host),
        (Form::Insert, false) => write!(text, ",('{instant}','host_{}'", reading.host),
    };
    for usage in reading.usage {
        let _ = write!(text, ",{usage}");
    }
    text.push(if form == Form::Copy { '\n' } else { ')' });
}

/// A time as SQL text in UTC.
pub fn instant(time_us: i64) -> String {
    let time: DateTime<Utc> = DateTime::from_timestamp_micros(time_us).expect("the workload lies in 2016");
    time.format("%Y-%m-%d %H:%M:%S+00").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_rows_in_time_order() {
        let size = Size { hosts: 3, instants: 4, interval_s: 10 };
        let rows: Vec<Reading> = Readings::new(size, 7).collect();
        assert_eq!(rows, Readings::new(size, 7).collect::<Vec<_>>());
        assert_ne!(rows, Readings::new(size, 8).collect::<Vec<_>>());
        assert_eq!(rows.len(), size.rows());
        assert!(rows.is_sorted_by_key(|reading| (reading.time_us, reading.host)));
        assert!(rows.iter().flat_map(|reading| reading.usage).all(|usage| usage <= 100));
    }

    #[test]
    fn batches_hold_every_row_once() {
        let size = Size { hosts: 3, instants: 3, interval_s: 10 };
        let copies = batches(Readings::new(size, 7), 4, Form::Copy);
        assert_eq!(copies.iter().map(|(_, rows)| *rows).collect::<Vec<_>>(), [4, 4, 1]);
        assert!(copies[0].0.starts_with(b"2016-01-01 00:00:00+00,host_0,"));
        let inserts = batches(Readings::new(size, 7), 9, Form::Insert);
        assert!(inserts[0].0.starts_with(b"INSERT INTO cpu VALUES ('2016-01-01 00:00:00+00','host_0',"));
        assert!(inserts[0].0.ends_with(b")"));
    }
}
