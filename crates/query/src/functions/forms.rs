//! Casts between text and the types whose text form is not Arrow's.
//!
//! No client names these functions; [`crate::session`]'s analysis puts them where a statement has a cast.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, FieldRef, Float32Type, Float64Type, IntervalMonthDayNanoType, IntervalUnit,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::utils::take_function_args;
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use event::ColumnType;

use crate::error::Error;
use crate::text::{ColumnBuilder, Zone, write};

/// The function from text to `column_type`.
pub(crate) fn from_text(column_type: ColumnType) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(FromText { column_type, signature: Signature::any(1, Volatility::Immutable) }))
}

/// The function to text, in the session's time zone; see [`has_own_text`].
pub(crate) fn to_text() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(ToText { signature: Signature::any(1, Volatility::Stable) }))
}

const NS_PER_US: i64 = 1_000;

#[derive(Debug, PartialEq, Eq, Hash)]
struct FromText {
    column_type: ColumnType,
    signature: Signature,
}

impl ScalarUDFImpl for FromText {
    fn name(&self) -> &'static str {
        "from_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.column_type.arrow())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(self.column_type.field(self.name(), true)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [texts] = take_function_args(self.name(), ColumnarValue::values_to_arrays(&arguments.args)?)?;
        let texts = cast(&texts, &DataType::Utf8)?;
        let mut builder = ColumnBuilder::new(self.column_type, Zone::UTC);
        for text in texts.as_string::<i32>() {
            match text {
                None => builder.append_null(),
                Some(text) => builder
                    .append_text(text)
                    .map_err(|refused| DataFusionError::External(Box::new(Error::Reported(refused))))?,
            }
        }
        Ok(ColumnarValue::Array(builder.finish()))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToText {
    signature: Signature,
}

impl ScalarUDFImpl for ToText {
    fn name(&self) -> &'static str {
        "to_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zone = Zone::of_session(&arguments.config_options);
        let [values] = take_function_args(self.name(), ColumnarValue::values_to_arrays(&arguments.args)?)?;
        if *values.data_type() == DataType::Utf8 {
            return Ok(ColumnarValue::Array(values));
        }
        let write = writer(&values, zone)?;
        let (mut texts, mut text) = (StringBuilder::new(), String::new());
        for row in 0..values.len() {
            text.clear();
            texts.append_option(values.is_valid(row).then(|| {
                write(&mut text, row);
                &text
            }));
        }
        Ok(ColumnarValue::Array(Arc::new(texts.finish())))
    }
}

/// Whether [`to_text`] is for the type; of the others Arrow's text is PostgreSQL's.
pub(crate) fn has_own_text(data_type: &DataType) -> bool {
    use DataType::{Binary, Date32, FixedSizeBinary, Float32, Float64, Interval, List, Time64, Timestamp};
    match data_type {
        Binary | FixedSizeBinary(_) | Float32 | Float64 | Date32 => true,
        Time64(unit) | Timestamp(unit, _) => *unit == TimeUnit::Microsecond,
        Interval(unit) => *unit == IntervalUnit::MonthDayNano,
        List(_) => true,
        _ => false,
    }
}

/// The texts that values have in a cast to text; NULLs are empty.
pub(crate) fn texts(values: &ArrayRef, zone: Zone) -> Result<StringArray> {
    let write = element_writer(values, zone)?;
    let mut text = String::new();
    Ok(StringArray::from_iter_values((0..values.len()).map(|row| {
        text.clear();
        if values.is_valid(row) {
            write(&mut text, row);
        }
        text.clone()
    })))
}

/// Appends the text of a row's value.
type Writer = Box<dyn Fn(&mut String, usize)>;

/// The writer of a column.
fn writer(values: &ArrayRef, zone: Zone) -> Result<Writer> {
    Ok(match values.data_type() {
        DataType::Binary => {
            let values = values.as_binary::<i32>().clone();
            Box::new(move |out, row| write::bytea(out, values.value(row)))
        }
        DataType::FixedSizeBinary(_) => {
            let values = values.as_fixed_size_binary().clone();
            Box::new(move |out, row| write::uuid(out, values.value(row)))
        }
        DataType::Float32 => of::<Float32Type>(values, write::real),
        DataType::Float64 => of::<Float64Type>(values, write::double),
        DataType::Date32 => of::<Date32Type>(values, write::date),
        DataType::Time64(_) => of::<Time64MicrosecondType>(values, write::time),
        DataType::Timestamp(_, None) => of::<TimestampMicrosecondType>(values, write::timestamp),
        DataType::Timestamp(_, Some(_)) => {
            of::<TimestampMicrosecondType>(values, move |out, value| write::timestamptz(out, value, &zone))
        }
        DataType::Interval(_) => of::<IntervalMonthDayNanoType>(values, |out, value| {
            write::interval(out, value.months, value.days, value.nanoseconds / NS_PER_US);
        }),
        DataType::List(_) => {
            let lists = values.as_list::<i32>().clone();
            let element = element_writer(lists.values(), zone)?;
            Box::new(move |out, row| {
                out.push('{');
                let (begin, end) = (lists.value_offsets()[row], lists.value_offsets()[row + 1]);
                let mut text = String::new();
                for at in begin..end {
                    if at > begin {
                        out.push(',');
                    }
                    let at = usize::try_from(at).expect("offsets are not negative");
                    if lists.values().is_null(at) {
                        out.push_str("NULL");
                        continue;
                    }
                    text.clear();
                    element(&mut text, at);
                    write::element(out, &text);
                }
                out.push('}');
            })
        }
        other => return internal_err!("to_text is not for {other}"),
    })
}

/// The writer of what an array holds.
fn element_writer(elements: &ArrayRef, zone: Zone) -> Result<Writer> {
    if has_own_text(elements.data_type()) {
        return writer(elements, zone);
    }
    let is_boolean = *elements.data_type() == DataType::Boolean;
    let texts = cast(elements, &DataType::Utf8)?.as_string::<i32>().clone();
    Ok(Box::new(move |out, row| {
        let text = texts.value(row);
        out.push_str(if is_boolean { &text[..1] } else { text });
    }))
}

fn of<T: ArrowPrimitiveType>(values: &ArrayRef, write: impl Fn(&mut String, T::Native) + 'static) -> Writer {
    let values = values.as_primitive::<T>().clone();
    Box::new(move |out, row| write(out, values.value(row)))
}
