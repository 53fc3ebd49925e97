//! From whatever an INSERT computes to validated rows of its table. The only place, beside COPY, where rows are validated.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, TimestampMicrosecondArray, new_null_array};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::ScalarValue;
use event::{Column, ColumnType, TableDefinition, UUID_BYTES};

use super::checks::Checks;
use super::defaults::DefaultValue;
use super::report;
use crate::error::{Condition, Error, Report};
use crate::functions::float_digits;
use crate::text::modifier::fit;
use crate::text::{ColumnBuilder, US_PER_SECOND, Zone, write};

/// Where the columns of an INSERT's source go, and what the other columns get.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The table.
    pub(crate) table: Arc<TableDefinition>,
    /// For each column of the source the position in the table.
    pub(crate) positions: Vec<usize>,
    /// For each column of the table what it gets when the source has none.
    pub(crate) defaults: Vec<DefaultValue>,
    /// Zone of timestamps that name none.
    pub(crate) zone: Zone,
    /// Its CHECK constraints.
    pub(crate) checks: Option<Arc<Checks>>,
}

impl Target {
    /// Makes rows of the table: assignment casts, defaults, NOT NULL, CHECK.
    ///
    /// # Errors
    /// 22xxx for a value that does not fit its column, 23502 for a NULL where none may be, 23514 for a row that breaks a constraint.
    pub(crate) fn rows(&self, source: &RecordBatch) -> Result<RecordBatch, Error> {
        let count = source.num_rows();
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.table.columns.len()];
        for (array, position) in source.columns().iter().zip(&self.positions) {
            columns[*position] = Some(assign(array, &self.table.columns[*position], self.zone)?);
        }
        let columns = columns
            .into_iter()
            .enumerate()
            .map(|(at, column)| match column {
                Some(column) => Ok(column),
                None => self.defaults[at].column(&self.table.columns[at], count),
            })
            .collect::<Result<Vec<_>, _>>()?;
        check_not_null(&self.table, &columns)?;
        let rows = build(&self.table, columns, count)?;
        self.verify(&rows)?;
        Ok(rows)
    }

    /// Refuses rows of the table that break a CHECK constraint.
    ///
    /// # Errors
    /// 23514.
    pub(crate) fn verify(&self, rows: &RecordBatch) -> Result<(), Error> {
        self.checks.as_ref().map_or(Ok(()), |checks| checks.verify(rows))
    }
}

/// Puts checked columns together.
pub(crate) fn build(table: &TableDefinition, columns: Vec<ArrayRef>, count: usize) -> Result<RecordBatch, Error> {
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(table.arrow_schema(), columns, &options)
        .map_err(|error| Error::report(Condition::Internal, error.to_string()))
}

/// `value` repeated, in the column's type.
pub(crate) fn default_column(value: &ScalarValue, column: &Column, count: usize) -> Result<ArrayRef, Error> {
    let data_type = column.column_type.arrow();
    if value.is_null() {
        return Ok(new_null_array(&data_type, count));
    }
    let one = value.to_array_of_size(1).map_err(|error| Error::report(Condition::Internal, error.to_string()))?;
    let one = assign(&one, column, Zone::UTC)?;
    let value = ScalarValue::try_from_array(&one, 0).expect("one value");
    value.to_array_of_size(count).map_err(|error| Error::report(Condition::Internal, error.to_string()))
}

/// Casts as PostgreSQL does on assignment; text is read in the column's own syntax.
pub(crate) fn assign(array: &ArrayRef, column: &Column, zone: Zone) -> Result<ArrayRef, Error> {
    let wanted = column.column_type.arrow();
    let as_it_is = !matches!(column.column_type, ColumnType::Json | ColumnType::Jsonb);
    if *array.data_type() == wanted && as_it_is {
        return Ok(fit(Arc::clone(array), column.modifier)?);
    }
    match array.data_type() {
        DataType::Utf8 => read_text(array.as_string::<i32>().iter(), column, zone),
        DataType::LargeUtf8 => read_text(array.as_string::<i64>().iter(), column, zone),
        DataType::Utf8View => read_text(array.as_string_view().iter(), column, zone),
        DataType::Null => Ok(new_null_array(&wanted, array.len())),
        DataType::List(_) | DataType::LargeList(_) if matches!(column.column_type, ColumnType::Array(_)) => {
            assign_elements(array, column, zone)
        }
        found => {
            if !assignable(found, &wanted) {
                let message = format!(
                    "column \"{}\" is of type {} but expression is of type {}",
                    column.name,
                    column.column_type,
                    sql_name(found)
                );
                let hint = "You will need to rewrite or cast the expression.";
                return Err(Error::hinted(Condition::DatatypeMismatch, message, hint));
            }
            let array = &seen_from(zone, array, &wanted)?;
            let rounded = match wanted {
                DataType::Decimal128(precision, scale) => float_digits::numerics(array, precision, scale)?,
                _ => round_for(array, &wanted)?,
            };
            let options = CastOptions { safe: false, ..CastOptions::default() };
            let cast = cast_with_options(&rounded, &wanted, &options).map_err(|error| {
                let mut out = report::arrow(&error);
                if out.condition == Condition::InvalidTextRepresentation {
                    out = out_of_range(column);
                }
                Error::Reported(Box::new(out))
            })?;
            Ok(fit(cast, column.modifier)?)
        }
    }
}

/// Arrays whose elements are of another type.
fn assign_elements(array: &ArrayRef, column: &Column, zone: Zone) -> Result<ArrayRef, Error> {
    let ColumnType::Array(element) = column.column_type else { unreachable!("only arrays have elements") };
    let internal = |error: ArrowError| Error::report(Condition::Internal, error.to_string());
    let lists = match array.data_type() {
        DataType::LargeList(field) => {
            cast_with_options(array, &DataType::List(Arc::clone(field)), &CastOptions::default()).map_err(internal)?
        }
        _ => Arc::clone(array),
    };
    let lists = lists.as_list::<i32>();
    if matches!(lists.value_type(), DataType::List(_) | DataType::LargeList(_)) {
        let message = "arrays of more than one dimension are not supported";
        return Err(Error::report(Condition::FeatureNotSupported, message));
    }
    let column = Column { column_type: element.get(), ..column.clone() };
    let elements = assign(lists.values(), &column, zone)?;
    let nulls = lists.nulls().cloned();
    let lists = ListArray::try_new(element.field(), lists.offsets().clone(), elements, nulls).map_err(internal)?;
    Ok(Arc::new(lists))
}

fn out_of_range(column: &Column) -> Report {
    let message = format!("{} out of range", column.column_type);
    Report::new(Condition::NumericOutOfRange, message)
}

fn read_text<'a>(texts: impl Iterator<Item = Option<&'a str>>, column: &Column, zone: Zone) -> Result<ArrayRef, Error> {
    let mut builder = ColumnBuilder::of_usual(column, zone);
    for text in texts {
        match text {
            Some(text) => builder.append_text(text)?,
            None => builder.append_null(),
        }
    }
    Ok(builder.finish())
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64)
}

fn assignable(from: &DataType, to: &DataType) -> bool {
    (is_number(from) && is_number(to))
        || (is_time(from) && is_time(to))
        || *to == DataType::Utf8
        || (matches!(from, DataType::Dictionary(_, _)))
        || from == to
}

/// What clocks of the zone show becomes the instant at which they do where an instant is wanted, and an instant what they show then.
fn seen_from(zone: Zone, array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, Error> {
    let is_instant = |data_type: &DataType| matches!(data_type, DataType::Timestamp(_, Some(_)));
    if zone == Zone::UTC || !is_time(array.data_type()) || is_instant(array.data_type()) == is_instant(wanted) {
        return Ok(Arc::clone(array));
    }
    let to = |array: &ArrayRef, zone: Option<&str>| {
        let data_type = DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(array, &data_type, &options).map_err(|error| Error::Reported(Box::new(report::arrow(&error))))
    };
    let too_far = || Error::report(Condition::DatetimeOverflow, "timestamp out of range");
    let other: TimestampMicrosecondArray = if is_instant(wanted) {
        let shown = to(array, None)?;
        shown.as_primitive::<TimestampMicrosecondType>().try_unary(|us| zone.to_utc(us).ok_or_else(too_far))?
    } else {
        let instants = to(array, Some("UTC"))?;
        let shown = |us: i64| us.checked_add(i64::from(zone.offset_at(us)) * US_PER_SECOND).ok_or_else(too_far);
        instants.as_primitive::<TimestampMicrosecondType>().try_unary(shown)?
    };
    Ok(match wanted {
        DataType::Timestamp(_, Some(zone)) => Arc::new(other.with_timezone(Arc::clone(zone))),
        _ => Arc::new(other),
    })
}

/// Floats become integers by rounding to the nearest even, not by cutting off.
fn round_for(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, Error> {
    use arrow::array::Float64Array;
    use arrow::datatypes::{Float32Type, Float64Type};
    if !wanted.is_integer() {
        return Ok(Arc::clone(array));
    }
    match array.data_type() {
        DataType::Float64 => {
            let rounded: Float64Array = array.as_primitive::<Float64Type>().unary(f64::round_ties_even);
            Ok(Arc::new(rounded))
        }
        DataType::Float32 => {
            let rounded = array.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::round_ties_even);
            Ok(Arc::new(rounded))
        }
        // A cast of a numeric to one without a fraction rounds, one to an integer cuts off.
        DataType::Decimal128(_, 1..) => {
            let whole = DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0);
            cast(array, &whole).map_err(|error| Error::Reported(Box::new(report::arrow(&error))))
        }
        _ => Ok(Arc::clone(array)),
    }
}

/// The first row with a NULL where none may be, as PostgreSQL reports it.
pub(crate) fn check_not_null(table: &TableDefinition, columns: &[ArrayRef]) -> Result<(), Error> {
    for (column, array) in table.columns.iter().zip(columns) {
        if column.takes_null() || array.null_count() == 0 {
            continue;
        }
        let row = (0..array.len()).find(|row| array.is_null(*row)).expect("the array has a NULL");
        let message = format!(
            "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
            column.name, table.name
        );
        let report = Report::new(Condition::NotNullViolation, message).of_column(table, &column.name);
        return Err(report.detailed(failing_row(columns, row)).into());
    }
    Ok(())
}

/// PostgreSQL's DETAIL about a row that a constraint refuses.
pub(crate) fn failing_row(columns: &[ArrayRef], row: usize) -> String {
    let values: Vec<String> = columns.iter().map(|column| shown(column, row)).collect();
    format!("Failing row contains ({}).", values.join(", "))
}

fn shown(column: &ArrayRef, row: usize) -> String {
    if column.is_valid(row) {
        let mut text = String::new();
        match column.data_type() {
            DataType::Binary => write::bytea(&mut text, column.as_binary::<i32>().value(row)),
            DataType::FixedSizeBinary(_) => write::uuid(&mut text, column.as_fixed_size_binary().value(row)),
            _ => {}
        }
        if !text.is_empty() {
            return text;
        }
    }
    let options = FormatOptions::default()
        .with_null("null")
        .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
        .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f+00"));
    match ArrayFormatter::try_new(column, &options) {
        Ok(formatter) => {
            let text = formatter.value(row).to_string();
            match column.data_type() {
                DataType::Float32 | DataType::Float64 => text.strip_suffix(".0").map_or(text.clone(), str::to_owned),
                DataType::Boolean => text[..1].to_owned(),
                _ => text,
            }
        }
        Err(_) => "?".to_owned(),
    }
}

/// What PostgreSQL calls an Arrow type.
pub(crate) fn sql_name(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Boolean => "boolean",
        DataType::Int8 | DataType::Int16 => "smallint",
        DataType::Int32 => "integer",
        DataType::Int64 | DataType::UInt32 => "bigint",
        DataType::Float32 => "real",
        DataType::Float64 => "double precision",
        DataType::Decimal128(_, _) | DataType::Decimal256(_, _) | DataType::UInt64 => "numeric",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytea",
        DataType::FixedSizeBinary(UUID_BYTES) => "uuid",
        DataType::Time32(_) | DataType::Time64(_) => "time without time zone",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Timestamp(_, None) => "timestamp without time zone",
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone",
        DataType::Interval(_) => "interval",
        DataType::Struct(_) => "record",
        DataType::Null => "unknown",
        DataType::List(element) | DataType::LargeList(element) => {
            return format!("{}[]", sql_name(element.data_type()));
        }
        other => return other.to_string(),
    };
    name.to_owned()
}
