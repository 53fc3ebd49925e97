//! Which units a predicate can match, judged by their statistics alone.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::SchemaRef;
use datafusion::common::{Column, ScalarValue};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::{PruningPredicateBuilder, PruningStatistics};
use event::TableDefinition;

use super::statistics::{Known, known};
use super::unit::ScanUnit;

/// What pruning looked at and what it left, for EXPLAIN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pruning {
    /// Splits of the snapshot.
    pub(crate) splits: Tally,
    /// Segments of the snapshot.
    pub(crate) segments: Tally,
    /// Splits with rows in memory.
    pub(crate) memory: Tally,
}

/// How many there are and how many will be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// All.
    pub(crate) total: usize,
    /// Those left.
    pub(crate) read: usize,
}

impl Tally {
    /// Those that need not be read.
    pub(crate) fn pruned(self) -> usize {
        self.total - self.read
    }
}

/// The units that may hold rows for which `predicate` (over the table's whole schema) is true. Keeps their order.
pub(crate) fn prune(
    definition: &TableDefinition,
    schema: &SchemaRef,
    units: Vec<ScanUnit>,
    predicate: Option<&Arc<dyn PhysicalExpr>>,
) -> Result<(Vec<ScanUnit>, Pruning)> {
    let keep = match predicate {
        Some(predicate) if !units.is_empty() => matching(definition, schema, &units, predicate)?,
        _ => vec![true; units.len()],
    };
    let left: Vec<ScanUnit> =
        units.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(unit, _)| unit.clone()).collect();
    let pruning = Pruning {
        splits: Tally { total: count_splits(&units), read: count_splits(&left) },
        segments: tally(&units, &left, |unit| matches!(unit, ScanUnit::Segment(_) | ScanUnit::Holed(_))),
        memory: tally(&units, &left, |unit| matches!(unit, ScanUnit::Memory { .. })),
    };
    Ok((left, pruning))
}

fn matching(
    definition: &TableDefinition,
    schema: &SchemaRef,
    units: &[ScanUnit],
    predicate: &Arc<dyn PhysicalExpr>,
) -> Result<Vec<bool>> {
    let pruning = PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema)).try_build(Arc::clone(predicate));
    // A predicate that says nothing about statistics prunes nothing; that is no error of the statement.
    let Ok(pruning) = pruning else { return Ok(vec![true; units.len()]) };
    pruning.prune(&UnitStatistics { definition, units })
}

fn count_splits(units: &[ScanUnit]) -> usize {
    units.iter().filter_map(ScanUnit::split).collect::<BTreeSet<_>>().len()
}

fn tally(all: &[ScanUnit], left: &[ScanUnit], kind: impl Fn(&ScanUnit) -> bool) -> Tally {
    let count = |units: &[ScanUnit]| units.iter().filter(|unit| kind(unit)).count();
    Tally { total: count(all), read: count(left) }
}

struct UnitStatistics<'a> {
    definition: &'a TableDefinition,
    units: &'a [ScanUnit],
}

impl UnitStatistics<'_> {
    fn bounds(&self, column: &Column, bound: impl Fn(Known) -> Option<ScalarValue>) -> Option<ArrayRef> {
        let position = self.definition.position(&column.name)?;
        let data_type = self.definition.columns[position].column_type.arrow();
        let null = ScalarValue::try_new_null(&data_type).ok()?;
        let values =
            self.units.iter().map(|unit| bound(known(unit, self.definition, position)).unwrap_or_else(|| null.clone()));
        ScalarValue::iter_to_array(values).ok()
    }
}

impl PruningStatistics for UnitStatistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |known| known.min)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |known| known.max)
    }

    fn num_containers(&self) -> usize {
        self.units.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let position = self.definition.position(&column.name)?;
        let counts = self.units.iter().map(|unit| known(unit, self.definition, position).nulls);
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.units.iter().map(|unit| Some(unit.rows())).collect::<UInt64Array>()))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
