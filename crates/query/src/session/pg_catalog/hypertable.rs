//! `create_hypertable`: in TimescaleDB it makes a table one of events, which here is what a NOT NULL time column does. So it looks whether the
//! table is what is asked for, and says so.

use std::sync::Arc;

use arrow::array::{Array, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, IntervalMonthDayNanoType};
use cluster::{Catalog, Table};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::ScalarUDF;

use super::super::changing::Visible;
use super::functions::udf;
use crate::error::{Condition, Error};
use crate::functions::refused;
use crate::text::parse_interval;

/// What statements that say `create_hypertable` call, with all arguments in their places.
pub(crate) const HYPERTABLE: &str = "annal_hypertable";

const DAY_US: i64 = 86_400_000_000;
const NS_PER_US: i64 = 1_000;

/// `annal_hypertable(relation, time_column_name, chunk_time_interval)`; the last may be NULL.
pub(super) fn hypertable(visible: Visible) -> Arc<ScalarUDF> {
    udf(HYPERTABLE, &[3], DataType::Utf8, move |arguments| {
        let catalog = visible.catalog();
        let (names, columns) = (cast(&arguments[0], &DataType::Utf8)?, cast(&arguments[1], &DataType::Utf8)?);
        let (names, columns) = (names.as_string::<i32>(), columns.as_string::<i32>());
        let mut answers = Vec::with_capacity(names.len());
        for row in 0..names.len() {
            if names.is_null(row) || columns.is_null(row) {
                return Err(refused(Condition::NullValueNotAllowed, "neither the table nor its column may be NULL"));
            }
            let width_us = width_us(&arguments[2], row)?;
            answers.push(described(&catalog, names.value(row), columns.value(row), width_us)?);
        }
        Ok(Arc::new(StringArray::from(answers)))
    })
}

/// The record that TimescaleDB answers with: id, schema, name, and that it is made.
fn described(catalog: &Catalog, name: &str, column: &str, width_us: Option<i64>) -> Result<String> {
    let (namespace, table) = name.split_once('.').unwrap_or(("public", name));
    let Some(table) = catalog.table(namespace, table) else {
        return Err(Error::in_plan(cluster::Error::NoSuchTable(name.to_owned())));
    };
    check(table, column, width_us)?;
    let definition = &table.definition;
    Ok(format!("({},{},{},t)", definition.id, definition.namespace, definition.name))
}

fn check(table: &Table, column: &str, width_us: Option<i64>) -> Result<()> {
    let definition = &table.definition;
    let Some(at) = definition.position(column) else {
        return Err(refused(Condition::UndefinedColumn, format!("column \"{column}\" does not exist")));
    };
    let name = &definition.name;
    let Some(options) = definition.event().filter(|options| options.time_column == at) else {
        return Err(hinted(
            &format!("table \"{name}\" cannot be split by \"{column}\" any more"),
            "CREATE TABLE with that column NOT NULL, and in the primary key when there is one.",
        ));
    };
    match width_us {
        Some(width_us) if width_us != options.split_interval_us => Err(hinted(
            &format!("the width of the splits of table \"{name}\" cannot be changed"),
            "CREATE TABLE ... WITH (split_interval = '...') says it.",
        )),
        _ => Ok(()),
    }
}

/// An interval, as such or as text, or a number of microseconds.
fn width_us(widths: &Arc<dyn Array>, row: usize) -> Result<Option<i64>> {
    if widths.is_null(row) || widths.data_type().is_null() {
        return Ok(None);
    }
    let interval = match widths.data_type() {
        DataType::Interval(_) => widths.as_primitive::<IntervalMonthDayNanoType>().value(row),
        DataType::Utf8 => parse_interval(widths.as_string::<i32>().value(row))
            .map_err(|refused| DataFusionError::External(Box::new(Error::Reported(refused))))?,
        _ => return Ok(Some(cast(widths, &DataType::Int64)?.as_primitive::<Int64Type>().value(row))),
    };
    if interval.months != 0 {
        return Err(hinted("an interval of months has no fixed width", "Use days or weeks."));
    }
    Ok(Some(i64::from(interval.days) * DAY_US + interval.nanoseconds / NS_PER_US))
}

fn hinted(message: &str, hint: &str) -> DataFusionError {
    DataFusionError::External(Box::new(Error::hinted(Condition::FeatureNotSupported, message, hint)))
}
