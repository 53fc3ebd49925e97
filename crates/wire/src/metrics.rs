//! Counters of the door, in the process's registry.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

/// Upper ends of the buckets of statement times, in seconds.
const STATEMENT_SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0];

/// The counters.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) connections: IntGauge,
    pub(crate) logins: IntCounter,
    pub(crate) refused: IntCounter,
    pub(crate) statements: IntCounter,
    pub(crate) errors: IntCounter,
    pub(crate) statement_seconds: Histogram,
    pub(crate) rows_sent: IntCounter,
    pub(crate) bytes_sent: IntCounter,
    pub(crate) copy_bytes: IntCounter,
    pub(crate) copy_rows: IntCounter,
}

impl Metrics {
    /// Registers the counters.
    pub(crate) fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let connections = IntGauge::new("annal_connections", "PostgreSQL connections now.")?;
        registry.register(Box::new(connections.clone()))?;
        let seconds = HistogramOpts::new(
            "annal_statement_seconds",
            "From the begin of a statement to the last of its rows, or to the first pause the client asked for.",
        );
        let statement_seconds = Histogram::with_opts(seconds.buckets(STATEMENT_SECONDS.to_vec()))?;
        registry.register(Box::new(statement_seconds.clone()))?;
        Ok(Metrics {
            connections,
            logins: counter("annal_connections_total", "PostgreSQL connections taken since start.")?,
            refused: counter("annal_connections_refused_total", "Connections refused because there were too many.")?,
            statements: counter("annal_statements_total", "Statements begun since start.")?,
            errors: counter("annal_statement_errors_total", "Statements that failed since start.")?,
            statement_seconds,
            rows_sent: counter("annal_rows_sent_total", "Rows sent to clients since start.")?,
            bytes_sent: counter("annal_bytes_sent_total", "Bytes sent to clients since start.")?,
            copy_bytes: counter("annal_copy_bytes_total", "Bytes of COPY data received since start.")?,
            copy_rows: counter("annal_copy_rows_total", "Rows taken by COPY since start.")?,
        })
    }
}
