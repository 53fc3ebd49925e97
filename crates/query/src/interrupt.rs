//! Joins that can be stopped and that leave their thread to others while they compute.
//!
//! The library's joins pair whole inputs inside one poll: a nested loop whose filter lets nothing through neither gives its thread back nor
//! sees that nobody waits for it any more. [`InterruptibleJoins`] plans around that. Joins whose output outgrows their inputs are made to
//! yield as they emit, and the filter of a nested loop is wrapped in a check: it fails once the statement was dropped ([`Interrupt`]), and
//! after every [`PAIRS_PER_TURN`] pairs it hands the other tasks of its thread to another thread.
//!
//! Invariant: a statement that was cancelled, timed out or lost its client stops computing after a bounded number of pairs.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder, SortMergeJoinExec,
};
use tokio::runtime::{Handle, RuntimeFlavor};

/// Pairs of rows a nested loop looks at before it lets others run: some milliseconds of work.
const PAIRS_PER_TURN: u64 = 1 << 20;

/// The rule. It comes after all that look for joins by their type, and before filters are pushed down for the last time.
#[derive(Debug)]
pub(crate) struct InterruptibleJoins;

impl PhysicalOptimizerRule for InterruptibleJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| match interruptible(&plan)? {
            Some(join) => Ok(Transformed::yes(join)),
            None => Ok(Transformed::no(plan)),
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "InterruptibleJoins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The join that can be interrupted; `None` for every other operator.
fn interruptible(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        let filter = join.filter().map(|filter| {
            let check = Arc::new(Check::new(Arc::clone(filter.expression())));
            JoinFilter::new(check, filter.column_indices().to_vec(), Arc::clone(filter.schema()))
        });
        let join = NestedLoopJoinExecBuilder::from(join).with_filter(filter).build()?;
        return Ok(Some(Arc::new(CooperativeExec::new(Arc::new(join)))));
    }
    let grows = plan.is::<CrossJoinExec>() || plan.is::<HashJoinExec>() || plan.is::<SortMergeJoinExec>();
    Ok(grows.then(|| Arc::new(CooperativeExec::new(Arc::clone(plan))) as Arc<dyn ExecutionPlan>))
}

/// Stops a running plan. Dropping it does.
#[derive(Debug)]
pub(crate) struct Interrupt(Vec<Arc<AtomicBool>>);

impl Interrupt {
    /// The switches of all checks in `plan`.
    pub(crate) fn of(plan: &Arc<dyn ExecutionPlan>) -> Interrupt {
        let mut switches = Vec::new();
        let walked = plan.apply(|plan| {
            let filter = plan.downcast_ref::<NestedLoopJoinExec>().and_then(NestedLoopJoinExec::filter);
            let check = filter.and_then(|filter| filter.expression().downcast_ref::<Check>());
            switches.extend(check.map(|check| Arc::clone(&check.stopped)));
            Ok(TreeNodeRecursion::Continue)
        });
        debug_assert!(walked.is_ok(), "the walk itself never fails");
        Interrupt(switches)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        for stopped in &self.0 {
            stopped.store(true, Ordering::Relaxed);
        }
    }
}

/// A filter that fails once its statement was dropped.
#[derive(Debug)]
struct Check {
    filter: Arc<dyn PhysicalExpr>,
    stopped: Arc<AtomicBool>,
    /// Pairs since others were let run, of all partitions.
    pairs: AtomicU64,
}

impl Check {
    fn new(filter: Arc<dyn PhysicalExpr>) -> Check {
        Check { filter, stopped: Arc::default(), pairs: AtomicU64::new(0) }
    }

    /// Whether a turn ends with these `rows`.
    fn ends_turn(&self, rows: u64) -> bool {
        let before = self.pairs.fetch_add(rows, Ordering::Relaxed);
        before / PAIRS_PER_TURN != (before + rows) / PAIRS_PER_TURN
    }
}

/// Runs `work` after giving this thread's other tasks to another thread, where the runtime has several.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl PhysicalExpr for Check {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.filter.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.filter.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.filter.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(DataFusionError::Execution("the query was stopped".to_owned()));
        }
        if self.ends_turn(batch.num_rows() as u64) {
            return aside(|| self.filter.evaluate(batch));
        }
        self.filter.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.filter]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let filter =
            children.into_iter().next().ok_or_else(|| DataFusionError::Internal("a filter is missing".to_owned()))?;
        Ok(Arc::new(Check { filter, stopped: Arc::clone(&self.stopped), pairs: AtomicU64::new(0) }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.filter.fmt_sql(f)
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.filter.fmt(f)
    }
}

impl PartialEq for Check {
    fn eq(&self, other: &Check) -> bool {
        self.filter.eq(&other.filter) && Arc::ptr_eq(&self.stopped, &other.stopped)
    }
}

impl Eq for Check {}

impl Hash for Check {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.filter.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::session_state::SessionStateBuilder;
    use datafusion::physical_plan::displayable;
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;
    use crate::engine::physical_rules;
    use crate::run::ResultStream;

    /// Pairs of 10¹² rows: hours.
    const SIDES: &str = "FROM generate_series(1, 1000000) a(n) JOIN generate_series(1, 1000000) b(m) ON";

    async fn plan(sql: &str) -> (Arc<dyn ExecutionPlan>, Arc<datafusion::execution::TaskContext>) {
        let state = SessionStateBuilder::new_with_default_features()
            .with_config(SessionConfig::new().with_target_partitions(2))
            .with_physical_optimizer_rules(physical_rules())
            .build();
        let context = SessionContext::new_with_state(state);
        let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        (plan, context.task_ctx())
    }

    /// Starts `sql` on one thread, sees another task run there, drops it and waits until nothing is left of it.
    fn stops(sql: &str) {
        let front = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let query = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        front.block_on(async {
            let (plan, context) = plan(sql).await;
            let shown = displayable(plan.as_ref()).indent(false).to_string();
            assert!(shown.contains("CooperativeExec\n"), "{shown}");
            let rows = ResultStream::start(query.handle(), plan, context);
            for _ in 0..3 {
                query.spawn(tokio::task::yield_now()).await.unwrap();
            }
            assert!(query.metrics().num_alive_tasks() > 0, "it ended by itself: {shown}");
            drop(rows);
            while query.metrics().num_alive_tasks() > 0 {
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn a_nested_loop_that_finds_nothing_stops() {
        stops(&format!("SELECT count(*) {SIDES} a.n * b.m < a.n - b.m"));
    }

    #[test]
    fn a_cross_join_that_is_only_counted_stops() {
        stops("SELECT sum(a.n + b.m) FROM generate_series(1, 1000000) a(n), generate_series(1, 1000000) b(m)");
    }

    #[test]
    fn a_hash_join_of_one_key_stops() {
        stops(&format!("SELECT count(*) {SIDES} a.n % 1 = b.m % 1 AND a.n * b.m < a.n - b.m"));
    }

    #[test]
    fn an_outer_nested_loop_stops() {
        stops(&format!("SELECT count(b.m) {} a.n * b.m < a.n - b.m", SIDES.replace("JOIN", "FULL JOIN")));
    }
}
