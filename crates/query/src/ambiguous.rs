//! Filters are not pushed through what gives two columns of one name.
//!
//! The library finds the column of a filter in the operator below by its name. Of a join's two columns `id` it takes the first, or the last where a
//! projection has put them in order again: `p.id IS NULL` above an outer join became `q.id IS NULL` below it, and rows were lost. While its rule runs
//! every operator that gives a name twice is therefore under a cover that takes no filter. What is filtered below it goes on being pushed down.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::internal_err;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

/// How the names of the library's rules begin that push filters down.
const PUSHDOWN: &str = "FilterPushdown";

/// Puts covers around the rules that push filters down.
pub(crate) fn cover_names(rules: &mut [Arc<dyn PhysicalOptimizerRule + Send + Sync>]) {
    for rule in rules.iter_mut().filter(|rule| rule.name().starts_with(PUSHDOWN)) {
        *rule = Arc::new(ByUniqueNames(Arc::clone(rule)));
    }
}

/// A rule that finds columns by their names.
#[derive(Debug)]
struct ByUniqueNames(Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for ByUniqueNames {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let covered = plan.transform_up(|plan| {
            Ok(match is_ambiguous(plan.as_ref()) {
                true => Transformed::yes(Arc::new(Cover(plan)) as Arc<dyn ExecutionPlan>),
                false => Transformed::no(plan),
            })
        });
        let pushed = self.0.optimize(covered.data()?, config)?;
        let bare = pushed.transform_up(|plan| {
            Ok(match plan.downcast_ref::<Cover>() {
                Some(Cover(covered)) => Transformed::yes(Arc::clone(covered)),
                None => Transformed::no(plan),
            })
        });
        bare.data()
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// Whether two of its columns have one name.
fn is_ambiguous(plan: &dyn ExecutionPlan) -> bool {
    let (schema, mut names) = (plan.schema(), HashSet::new());
    !schema.fields().iter().all(|field| names.insert(field.name().as_str()))
}

/// Gives what is below it, and takes no filter. It is never run.
#[derive(Debug)]
struct Cover(Arc<dyn ExecutionPlan>);

impl DisplayAs for Cover {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cover")
    }
}

impl ExecutionPlan for Cover {
    fn name(&self) -> &'static str {
        "Cover"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.0.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.0]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        over(children)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        over(children)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.0.execute(partition, context)
    }
}

/// A cover of what was put in the place of what is covered.
fn over(children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
    match <[_; 1]>::try_from(children) {
        Ok([child]) => Ok(Arc::new(Cover(child))),
        Err(_) => internal_err!("a cover has one child"),
    }
}
