//! The fifteen query types of the Time Series Benchmark Suite's devops CPU-only use case, with parameters drawn from a seed.
//!
//! The text runs unchanged on PostgreSQL, Annal and DataFusion.

use chrono::{DateTime, Utc};
use rand::rngs::StdRng;
use rand::seq::index::sample;
use rand::{Rng, SeedableRng};

use crate::devops::{METRICS, START_US, Size};

/// The types, named as the suite names them.
pub const TYPES: [&str; 15] = [
    "single-groupby-1-1-1",
    "single-groupby-1-1-12",
    "single-groupby-1-8-1",
    "single-groupby-5-1-1",
    "single-groupby-5-1-12",
    "single-groupby-5-8-1",
    "cpu-max-all-1",
    "cpu-max-all-8",
    "double-groupby-1",
    "double-groupby-5",
    "double-groupby-all",
    "high-cpu-all",
    "high-cpu-1",
    "lastpoint",
    "groupby-orderby-limit",
];

/// What a type asks, before the parameters are drawn.
enum Shape {
    /// Maxima of some gauges of some hosts by minute.
    SingleGroupby { metrics: usize, hosts: usize, hours: u32 },
    /// Maxima of all gauges of some hosts by hour, over eight hours.
    MaxAll { hosts: usize },
    /// Means of some gauges of every host by hour, over twelve hours.
    DoubleGroupby { metrics: usize },
    /// Readings above 90, of one host or of all, over twelve hours.
    HighCpu { hosts: Option<usize> },
    /// The last reading of every host.
    Lastpoint,
    /// The last five minutes before an instant, by minute.
    GroupbyOrderbyLimit,
}

fn shape(kind: &str) -> Option<Shape> {
    use Shape::{DoubleGroupby, GroupbyOrderbyLimit, HighCpu, Lastpoint, MaxAll, SingleGroupby};
    Some(match kind {
        "single-groupby-1-1-1" => SingleGroupby { metrics: 1, hosts: 1, hours: 1 },
        "single-groupby-1-1-12" => SingleGroupby { metrics: 1, hosts: 1, hours: 12 },
        "single-groupby-1-8-1" => SingleGroupby { metrics: 1, hosts: 8, hours: 1 },
        "single-groupby-5-1-1" => SingleGroupby { metrics: 5, hosts: 1, hours: 1 },
        "single-groupby-5-1-12" => SingleGroupby { metrics: 5, hosts: 1, hours: 12 },
        "single-groupby-5-8-1" => SingleGroupby { metrics: 5, hosts: 8, hours: 1 },
        "cpu-max-all-1" => MaxAll { hosts: 1 },
        "cpu-max-all-8" => MaxAll { hosts: 8 },
        "double-groupby-1" => DoubleGroupby { metrics: 1 },
        "double-groupby-5" => DoubleGroupby { metrics: 5 },
        "double-groupby-all" => DoubleGroupby { metrics: METRICS.len() },
        "high-cpu-all" => HighCpu { hosts: None },
        "high-cpu-1" => HighCpu { hosts: Some(1) },
        "lastpoint" => Lastpoint,
        "groupby-orderby-limit" => GroupbyOrderbyLimit,
        _ => return None,
    })
}

/// The longest window a type asks for, in hours; the data must span it.
pub const HOURS_MAX: u32 = 12;

/// The `instances` instances of a type over data of `size`, the same for the same seed.
///
/// # Panics
/// When the type is not one of [`TYPES`] or the data spans less than [`HOURS_MAX`] hours.
pub fn instances(kind: &str, size: Size, seed: u64, instances: usize) -> Vec<String> {
    let position = TYPES.iter().position(|known| *known == kind).expect("a type of the suite");
    let mut draw = Draw { size, random: StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(position as u64)) };
    let shape = shape(kind).expect("every type has a shape");
    (0..instances).map(|_| draw.statement(&shape)).collect()
}

struct Draw {
    size: Size,
    random: StdRng,
}

impl Draw {
    fn statement(&mut self, shape: &Shape) -> String {
        match *shape {
            Shape::SingleGroupby { metrics, hosts, hours } => {
                let (window, hosts) = (self.window(hours), self.hosts(hosts));
                format!(
                    "SELECT date_trunc('minute', time) AS minute, {} FROM cpu WHERE {hosts} AND {} GROUP BY 1 ORDER BY 1",
                    gauges("max", metrics),
                    between(&window)
                )
            }
            Shape::MaxAll { hosts } => {
                let (window, hosts) = (self.window(8), self.hosts(hosts));
                format!(
                    "SELECT date_trunc('hour', time) AS hour, {} FROM cpu WHERE {hosts} AND {} GROUP BY 1 ORDER BY 1",
                    gauges("max", METRICS.len()),
                    between(&window)
                )
            }
            Shape::DoubleGroupby { metrics } => format!(
                "SELECT date_trunc('hour', time) AS hour, hostname, {} FROM cpu WHERE {} GROUP BY 1, 2 ORDER BY 1, 2",
                gauges("avg", metrics),
                between(&self.window(12))
            ),
            Shape::HighCpu { hosts } => {
                let window = between(&self.window(12));
                let of = hosts.map_or(String::new(), |n| format!(" AND {}", self.hosts(n)));
                format!("SELECT * FROM cpu WHERE usage_user > 90.0 AND {window}{of}")
            }
            Shape::Lastpoint => "SELECT DISTINCT ON (hostname) * FROM cpu ORDER BY hostname, time DESC".to_string(),
            Shape::GroupbyOrderbyLimit => format!(
                "SELECT date_trunc('minute', time) AS minute, max(usage_user) AS max_usage_user FROM cpu \
                 WHERE time < '{}' GROUP BY 1 ORDER BY 1 DESC LIMIT 5",
                self.window(1).1
            ),
        }
    }

    /// A window of that many hours within the data, beginning at any second: dashboards do not ask for aligned ones.
    fn window(&mut self, hours: u32) -> (String, String) {
        let length_s = u64::from(hours) * 3600;
        assert!(self.size.seconds() >= length_s, "the data spans less than {hours} hours");
        let start_us = START_US + self.random.random_range(0..=self.size.seconds() - length_s) as i64 * 1_000_000;
        (moment(start_us), moment(start_us + length_s as i64 * 1_000_000))
    }

    fn hosts(&mut self, wanted: usize) -> String {
        let names: Vec<String> = sample(&mut self.random, self.size.hosts, wanted)
            .into_iter()
            .map(|host| format!("'host_{host}'"))
            .collect();
        format!("hostname IN ({})", names.join(", "))
    }
}

fn gauges(function: &str, metrics: usize) -> String {
    let columns: Vec<String> =
        METRICS[..metrics].iter().map(|metric| format!("{function}({metric}) AS {function}_{metric}")).collect();
    columns.join(", ")
}

fn between((start, end): &(String, String)) -> String {
    format!("time >= '{start}' AND time < '{end}'")
}

fn moment(time_us: i64) -> String {
    let time: DateTime<Utc> = DateTime::from_timestamp_micros(time_us).expect("the workload lies in 2016");
    time.format("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_drawn_again_the_same() {
        let size = Size::of_rows(100 * 6 * 60 * 24, 100);
        for kind in TYPES {
            let drawn = instances(kind, size, 7, 3);
            assert_eq!(drawn, instances(kind, size, 7, 3));
            assert!(drawn.iter().all(|sql| sql.contains("FROM cpu")), "{drawn:?}");
        }
        assert_ne!(instances("high-cpu-1", size, 7, 1), instances("high-cpu-1", size, 8, 1));
    }
}
