//! `/metrics`: the node's counters, read when asked, in Prometheus' text format.
//!
//! The counters live where the work is done; this page only names them. Connections and statements come from the
//! registry of `wire`, which is printed after.

use cluster::{NodeStatistics, ReplicaStatus};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Encoder, Gauge, GaugeVec, Opts, Registry, TextEncoder};

use crate::allocator::Allocated;

/// The page for `statistics`, what the process holds, and the families `wire` gathered.
pub(crate) fn page(
    statistics: &NodeStatistics,
    replicas: &[ReplicaStatus],
    memory: Allocated,
    wire: Vec<MetricFamily>,
) -> Result<Vec<u8>, prometheus::Error> {
    let mut families = node_families(statistics, memory)?;
    families.extend(replica_families(replicas)?);
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
        ("annal_admission_admitted_total", "Statements admitted since start.", statistics.admission.admitted as f64),
        (
            "annal_admission_refused_total",
            "Statements refused since start because too many were in flight.",
            statistics.admission.refused as f64,
        ),
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
        (
            "annal_admission_in_flight_bytes",
            "Bytes of statements in flight, each at least 16 KiB.",
            statistics.admission.in_flight_bytes as f64,
        ),
        (
            "annal_admission_limit_bytes",
            "Bytes of statements that may be in flight now.",
            statistics.admission.limit_bytes as f64,
        ),
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

/// How far the node's replicas are, by group.
fn replica_families(replicas: &[ReplicaStatus]) -> Result<Vec<MetricFamily>, prometheus::Error> {
    type Figure = fn(&ReplicaStatus) -> f64;
    #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles, exact up to 2^53")]
    let figures: [(&str, &str, Figure); 7] = [
        ("annal_replica_applied_index", "Last entry applied.", |replica| replica.applied as f64),
        ("annal_replica_checkpoint_index", "Last entry of the newest checkpoint.", |replica| replica.checkpoint as f64),
        ("annal_replica_committed_index", "Last entry known to be committed.", |replica| replica.committed as f64),
        ("annal_replica_leader", "Node that leads the group, 0 when none is known.", |replica| {
            replica.leader.map_or(0.0, |leader| leader.0 as f64)
        }),
        (
            "annal_replica_quorum",
            "Whether the group can go on, as far as the replica knows: its majority has answered, or its leader was heard, within 3 seconds.",
            |replica| f64::from(u8::from(replica.quorum)),
        ),
        ("annal_replica_term", "Raft term.", |replica| replica.term as f64),
        ("annal_replica_votes", "Whether the replica votes.", |replica| f64::from(u8::from(replica.votes))),
    ];
    let registry = Registry::new();
    for (name, help, figure) in figures {
        let gauge = GaugeVec::new(Opts::new(name, help), &["group"])?;
        for replica in replicas {
            gauge.with_label_values(&[&replica.group.to_string()]).set(figure(replica));
        }
        registry.register(Box::new(gauge))?;
    }
    Ok(registry.gather())
}

#[cfg(test)]
mod tests {
    use event::{GroupId, NodeId};
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_page_names_unit_and_meaning_of_each_counter() {
        let mut statistics = NodeStatistics { rows_appended: 7, memtable_bytes: 512, ..NodeStatistics::default() };
        statistics.log.sync_us = 2_500_000;
        statistics.admission.refused = 3;
        let replica = ReplicaStatus {
            group: GroupId(1),
            leader: Some(NodeId(2)),
            term: 3,
            last: 9,
            committed: 8,
            applied: 7,
            checkpoint: 4,
            votes: true,
            quorum: false,
        };
        let page = page(&statistics, &[replica], Allocated { allocated: 40, resident: 50 }, Vec::new());
        let page = String::from_utf8(page.unwrap()).unwrap();
        let lines: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
        expect![[r#"
            annal_admission_admitted_total 0
            annal_admission_in_flight_bytes 0
            annal_admission_limit_bytes 0
            annal_admission_refused_total 3
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
            annal_segments_written_total 0
            annal_replica_applied_index{group="1"} 7
            annal_replica_checkpoint_index{group="1"} 4
            annal_replica_committed_index{group="1"} 8
            annal_replica_leader{group="1"} 2
            annal_replica_quorum{group="1"} 0
            annal_replica_term{group="1"} 3
            annal_replica_votes{group="1"} 1"#]]
        .assert_eq(&lines.join("\n"));
        assert!(page.contains("# HELP annal_ingest_rows_total Rows appended since start."));
    }
}
