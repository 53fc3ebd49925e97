//! `pg_stat_activity`: a row for each client of this node. Others' statements can be read by everybody, as by a superuser.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::datasource::TableProvider;
use datafusion::logical_expr::expr_fn::SimpleScalarUDF;
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarUDF, Signature, TableType, Volatility};
use datafusion::physical_plan::ExecutionPlan;

use super::relations::{DATABASE_OID, OWNER_OID, Row, filled};
use crate::session::activity::{Activity, Sessions, State, instant};

/// The view's name.
pub(super) const NAME: &str = "pg_stat_activity";

/// Its columns, which are PostgreSQL's. What is not known here is NULL in every row: nobody waits for locks, and transactions have no
/// numbers.
pub(super) static COLUMNS: LazyLock<SchemaRef> = LazyLock::new(|| {
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let columns = [
        ("datid", DataType::Int32),
        ("datname", DataType::Utf8),
        ("pid", DataType::Int32),
        ("leader_pid", DataType::Int32),
        ("usesysid", DataType::Int32),
        ("usename", DataType::Utf8),
        ("application_name", DataType::Utf8),
        ("client_addr", DataType::Utf8),
        ("client_hostname", DataType::Utf8),
        ("client_port", DataType::Int32),
        ("backend_start", instant.clone()),
        ("xact_start", instant.clone()),
        ("query_start", instant.clone()),
        ("state_change", instant),
        ("wait_event_type", DataType::Utf8),
        ("wait_event", DataType::Utf8),
        ("state", DataType::Utf8),
        ("backend_xid", DataType::Int32),
        ("backend_xmin", DataType::Int32),
        ("query_id", DataType::Int64),
        ("query", DataType::Utf8),
        ("backend_type", DataType::Utf8),
    ];
    Arc::new(Schema::new(columns.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec()))
});

/// The view. Its rows are those of the moment when a query begins to run: when it was planned, its own session did something else.
#[derive(Debug)]
pub(super) struct ActivityTable(pub(super) Arc<Sessions>);

#[async_trait]
impl TableProvider for ActivityTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&COLUMNS)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows: Vec<Row> = self.0.all().iter().map(|activity| row(activity)).collect();
        filled(&COLUMNS, &rows)?.scan(state, projection, filters, limit).await
    }
}

fn row(activity: &Activity) -> Row {
    let now = activity.now();
    let application = activity.settings.lock().get("application_name").unwrap_or_default();
    let waits_for_client = now.state != State::Active;
    let mut row = Row::from([
        ("datid", DATABASE_OID.into()),
        ("datname", activity.database.as_str().into()),
        ("pid", now.pid.into()),
        ("usesysid", OWNER_OID.into()),
        ("usename", activity.user.as_str().into()),
        ("application_name", application.as_str().into()),
        ("backend_start", instant(Some(activity.began))),
        ("xact_start", instant(now.transaction_began)),
        ("query_start", instant(now.query_began)),
        ("state_change", instant(Some(now.changed))),
        ("state", now.state.name().into()),
        ("query", (&*now.query).into()),
        ("backend_type", "client backend".into()),
    ]);
    if let Some(client) = now.client {
        row.insert("client_addr", client.ip().to_string().as_str().into());
        row.insert("client_port", i32::from(client.port()).into());
    }
    if waits_for_client {
        row.insert("wait_event_type", "Client".into());
        row.insert("wait_event", "ClientRead".into());
    }
    row
}

/// `statement_timestamp()`: when the statement that asks began, also within a block.
pub(super) fn statement_timestamp(activity: &Arc<Activity>) -> Arc<ScalarUDF> {
    let activity = Arc::clone(activity);
    let answer = Arc::new(move |_: &[ColumnarValue]| {
        let began = activity.now().query_began;
        Ok(ColumnarValue::Scalar(instant(began.or_else(|| Some(chrono::Utc::now())))))
    });
    let signature = Signature::exact(Vec::new(), Volatility::Stable);
    let data_type = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(ScalarUDF::from(SimpleScalarUDF::new_with_signature("statement_timestamp", signature, data_type, answer)))
}
