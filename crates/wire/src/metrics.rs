//! Counters of the door, in the process's registry.

use prometheus::{IntCounter, IntGauge, Registry};

/// The counters.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) connections: IntGauge,
    pub(crate) logins: IntCounter,
    pub(crate) refused: IntCounter,
    pub(crate) statements: IntCounter,
    pub(crate) errors: IntCounter,
    pub(crate) rows_sent: IntCounter,
    pub(crate) copy_bytes: IntCounter,
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
        Ok(Metrics {
            connections,
            logins: counter("annal_connections_total", "PostgreSQL connections taken since start.")?,
            refused: counter("annal_connections_refused_total", "Connections refused because there were too many.")?,
            statements: counter("annal_statements_total", "Statements begun since start.")?,
            errors: counter("annal_statement_errors_total", "Statements that failed since start.")?,
            rows_sent: counter("annal_rows_sent_total", "Rows sent to clients since start.")?,
            copy_bytes: counter("annal_copy_bytes_total", "Bytes of COPY data received since start.")?,
        })
    }
}
