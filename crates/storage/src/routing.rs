//! Which split each row of a batch belongs to, and which shard.

mod sharding;
#[cfg(test)]
mod tests;

pub use self::sharding::{can_shard_by, shard_of, shard_rows};

use arrow::array::{Array, AsArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::record_batch::RecordBatch;
use event::split::split_of;
use event::{SplitId, TableDefinition};

use crate::Error;

/// Rows of one batch that fall into one split, in their original order.
#[derive(Clone, Debug)]
pub struct SplitRows {
    /// The split.
    pub split: SplitId,
    /// The rows, with all columns of the batch.
    pub rows: RecordBatch,
    /// Smallest event time in microseconds; `None` for reference tables.
    pub time_min_us: Option<i64>,
    /// Largest event time in microseconds; `None` for reference tables.
    pub time_max_us: Option<i64>,
}

/// Cuts a batch (the table's columns, and any after them) into its splits, in ascending order of the splits.
///
/// Costs one pass over the times when all rows fall into one split, and copies nothing when each split's rows are adjacent.
///
/// # Errors
/// [`Error::Columns`] when the time column is missing, of another type, or has NULLs.
pub fn split_rows(table: &TableDefinition, batch: &RecordBatch) -> Result<Vec<SplitRows>, Error> {
    if batch.num_rows() == 0 {
        return Ok(Vec::new());
    }
    let Some(options) = table.event() else {
        return Ok(vec![SplitRows { split: SplitId(0), rows: batch.clone(), time_min_us: None, time_max_us: None }]);
    };
    let interval = options.split_interval_us;
    let times = event_times(table, batch)?;
    let (min, max) = bounds(times);
    if split_of(min, interval) == split_of(max, interval) {
        return Ok(vec![one_split(batch.clone(), min, max, interval)]);
    }
    let mut runs = runs_by_split(times, interval);
    runs.sort_by_key(|run| (run.split, run.start));
    let mut routed = Vec::new();
    for same in runs.chunk_by(|a, b| a.split == b.split) {
        let rows = match same {
            [run] => batch.slice(run.start, run.end - run.start),
            many => {
                let rows = many.iter().flat_map(|run| run.start..run.end);
                let rows = UInt32Array::from_iter_values(rows.map(|row| row as u32));
                take_record_batch(batch, &rows).map_err(|error| Error::Columns(error.to_string()))?
            }
        };
        let (min, max) = bounds(event_times(table, &rows)?);
        routed.push(one_split(rows, min, max, interval));
    }
    Ok(routed)
}

/// The values of the time column, none of them NULL.
pub(crate) fn event_times<'a>(table: &TableDefinition, batch: &'a RecordBatch) -> Result<&'a [i64], Error> {
    let options = table.event().ok_or_else(|| Error::Columns(format!("table \"{}\" has no time", table.name)))?;
    let column = batch.columns().get(options.time_column);
    let times = column.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    match times {
        Some(times) if times.null_count() == 0 => Ok(times.values()),
        _ => Err(Error::Columns(format!("the time column of table \"{}\" is no column of times", table.name))),
    }
}

fn one_split(rows: RecordBatch, min: i64, max: i64, interval: i64) -> SplitRows {
    SplitRows { split: split_of(min, interval), rows, time_min_us: Some(min), time_max_us: Some(max) }
}

/// Smallest and largest of at least one time.
fn bounds(times: &[i64]) -> (i64, i64) {
    times.iter().fold((i64::MAX, i64::MIN), |(min, max), time| (min.min(*time), max.max(*time)))
}

/// Adjacent rows of one split.
struct Run {
    split: SplitId,
    start: usize,
    end: usize,
}

fn runs_by_split(times: &[i64], interval: i64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (row, time) in times.iter().enumerate() {
        let split = split_of(*time, interval);
        match runs.last_mut() {
            Some(run) if run.split == split => run.end = row + 1,
            _ => runs.push(Run { split, start: row, end: row + 1 }),
        }
    }
    runs
}
