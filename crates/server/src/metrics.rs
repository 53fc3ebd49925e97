//! `/metrics`: the node's counters, read when asked, in Prometheus' text format.
//!
//! The counters live where the work is done; this page only names them. Connections and statements come from the
//! registry of `wire`, which is printed after.

use cluster::NodeStatistics;
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Encoder, Gauge, Opts, Registry, TextEncoder};

use crate::allocator::Allocated;

/// The page for `statistics`, what the process holds, and the families `wire` gathered.
pub(crate) fn page(
    statistics: &NodeStatistics,
    memory: Allocated,
    wire: Vec<MetricFamily>,
) -> Result<Vec<u8>, prometheus::Error> {
    let mut families = node_families(statistics, memory)?;
    families.extend(wire);
    let mut page = Vec::new();
    TextEncoder::new().encode(&families, &mut page)?;
    Ok(page)
}

fn node_families(statistics: &NodeStatistics, memory: Allocated) -> Result<Vec<MetricFamily>, prometheus::Error> {
    let registry = Registry::new();
    let log = &statistics.log;
    #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles, exact up to 2^53")]
    let counters = [
        ("annal_ingest_rows_total", "Rows appended since start.", statistics.rows_appended as f64),
        ("annal_log_bytes_total", "Bytes written to the log since start.", log.bytes_written as f64),
        ("annal_log_records_total", "Records written to the log since start.", log.records as f64),
        ("annal_log_syncs_total", "Times the log was synced to disk since start.", log.syncs as f64),
        ("annal_log_sync_seconds_total", "Time spent in those syncs.", log.sync_us as f64 / 1e6),
        ("annal_seals_total", "Seals applied since start.", statistics.seals as f64),
        ("annal_segments_written_total", "Segments written since start.", statistics.segments_written as f64),
        ("annal_segment_bytes_total", "Bytes of those segments.", statistics.segment_bytes_written as f64),
    ];
    for (name, help, value) in counters {
        let counter = Counter::with_opts(Opts::new(name, help))?;
        counter.inc_by(value);
        registry.register(Box::new(counter))?;
    }
    #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles, exact up to 2^53")]
    let gauges = [
        ("annal_memtable_bytes", "Bytes in memtables, frozen rows included.", statistics.memtable_bytes as f64),
        ("annal_memory_allocated_bytes", "Bytes the process has allocated.", memory.allocated as f64),
        ("annal_memory_limit_bytes", "Bytes of the memory budget.", statistics.memory_limit as f64),
        ("annal_memory_resident_bytes", "Bytes the allocator holds of the system.", memory.resident as f64),
        ("annal_memory_used_bytes", "Bytes taken of the memory budget.", statistics.memory_used as f64),
    ];
    for (name, help, value) in gauges {
        let gauge = Gauge::with_opts(Opts::new(name, help))?;
        gauge.set(value);
        registry.register(Box::new(gauge))?;
    }
    Ok(registry.gather())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_page_names_unit_and_meaning_of_each_counter() {
        let mut statistics = NodeStatistics { rows_appended: 7, memtable_bytes: 512, ..NodeStatistics::default() };
        statistics.log.sync_us = 2_500_000;
        let page = String::from_utf8(page(&statistics, Allocated { allocated: 40, resident: 50 }, Vec::new()).unwrap())
            .unwrap();
        let lines: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
        expect![[r#"
            annal_ingest_rows_total 7
            annal_log_bytes_total 0
            annal_log_records_total 0
            annal_log_sync_seconds_total 2.5
            annal_log_syncs_total 0
            annal_memory_allocated_bytes 40
            annal_memory_limit_bytes 0
            annal_memory_resident_bytes 50
            annal_memory_used_bytes 0
            annal_memtable_bytes 512
            annal_seals_total 0
            annal_segment_bytes_total 0
            annal_segments_written_total 0"#]]
        .assert_eq(&lines.join("\n"));
        assert!(page.contains("# HELP annal_ingest_rows_total Rows appended since start."));
    }
}
