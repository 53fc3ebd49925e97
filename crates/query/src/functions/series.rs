//! `generate_series` as an array: of times, each is a step after the one before on the calendar of the session's zone. Numbers are left to the
//! library.

use std::sync::Arc;

use arrow::array::{Array, ArrayBuilder, ArrayRef, AsArray, ListBuilder, TimestampMicrosecondBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use datafusion::common::Result;
use datafusion::common::utils::take_function_args;
use datafusion::functions_nested::range::gen_series_udf;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::interval::length_us;
use super::refused;
use super::shift::{moved, out_of_range};
use crate::error::Condition;
use crate::text::Zone;

/// Times of one batch of rows, which are in memory together: 256 MiB.
const TIMES_MAX: usize = 32 << 20;

/// The function.
pub(super) fn generate_series() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(Series { library: gen_series_udf() }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Series {
    library: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Series {
    fn name(&self) -> &str {
        self.library.name()
    }

    fn signature(&self) -> &Signature {
        self.library.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [DataType::Timestamp(_, zone), rest @ ..] if !rest.iter().any(DataType::is_null) => {
                let times = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
                Ok(DataType::List(Arc::new(Field::new_list_field(times, true))))
            }
            _ => self.library.inner().return_type(arguments),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let DataType::List(element) = arguments.return_field.data_type() else {
            return self.library.invoke_with_args(arguments);
        };
        let times = element.data_type().clone();
        let zone = match &times {
            DataType::Timestamp(_, Some(_)) => Zone::of_session(&arguments.config_options),
            DataType::Timestamp(_, None) => Zone::UTC,
            _ => return self.library.invoke_with_args(arguments),
        };
        let [first, last, steps] = take_function_args(self.name(), ColumnarValue::values_to_arrays(&arguments.args)?)?;
        let steps = cast(&steps, &DataType::Interval(IntervalUnit::MonthDayNano))?;
        Ok(ColumnarValue::Array(series([&cast(&first, &times)?, &cast(&last, &times)?], &steps, &zone)?))
    }
}

fn series(ends: [&ArrayRef; 2], steps: &ArrayRef, zone: &Zone) -> Result<ArrayRef> {
    let steps = steps.as_primitive::<IntervalMonthDayNanoType>();
    let times = TimestampMicrosecondBuilder::new().with_data_type(ends[0].data_type().clone());
    let [first, last] = ends.map(|times| times.as_primitive::<TimestampMicrosecondType>());
    let mut lists = ListBuilder::new(times);
    for row in 0..steps.len() {
        if first.is_null(row) || last.is_null(row) || steps.is_null(row) {
            lists.append_null();
            continue;
        }
        let (step, last) = (steps.value(row), last.value(row));
        let is_forward = match length_us(step).unwrap_or(0) {
            0 => return Err(refused(Condition::InvalidParameterValue, "step size cannot equal zero")),
            length => length > 0,
        };
        let mut time = first.value(row);
        while if is_forward { time <= last } else { time >= last } {
            if lists.values().len() == TIMES_MAX {
                return Err(refused(Condition::OutOfMemory, "the results of generate_series do not fit into memory"));
            }
            lists.values().append_value(time);
            time = moved(time, step, zone).ok_or_else(out_of_range)?;
        }
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}
