//! Functions over `bytea`: `length`, `octet_length`, `bit_length`, `substring`, which the library has for text alone, and `encode` and
//! `decode` in PostgreSQL's formats.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, Int32Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::functions::{string, unicode};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult};
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::refused;
use crate::error::{Condition, Error};
use crate::text::{base64, escape, parse_escape, parse_hexadecimal, write};

/// All of them.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    let measure = |measure, others| Arc::new(ScalarUDF::from(OfBytes::new(Operation::Measure(measure), others)));
    let coded = |coding| Arc::new(ScalarUDF::from(Coded { coding, signature: signature() }));
    vec![
        measure(Measure::Bytes, unicode::character_length()),
        measure(Measure::Bytes, string::octet_length()),
        measure(Measure::Bits, string::bit_length()),
        substring(),
        coded(Coding::Encode),
        coded(Coding::Decode),
    ]
}

fn substring() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(OfBytes::new(Operation::Substring, unicode::substr())))
}

fn signature() -> Signature {
    Signature::user_defined(Volatility::Immutable)
}

/// `substring(x FROM 2 FOR 3)` as the function here.
#[derive(Debug)]
pub(crate) struct BytesSubstring(Arc<ScalarUDF>);

impl Default for BytesSubstring {
    fn default() -> BytesSubstring {
        BytesSubstring(substring())
    }
}

impl ExprPlanner for BytesSubstring {
    fn plan_substring(&self, arguments: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        let call = ScalarFunction::new_udf(Arc::clone(&self.0), arguments);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Measure(Measure),
    /// From a position, which counts from 1, and for so many bytes or to the end.
    Substring,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Measure {
    Bytes,
    Bits,
}

/// One of the library's functions of text that takes `bytea` as well.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OfBytes {
    operation: Operation,
    /// The function of text.
    others: Arc<ScalarUDF>,
    signature: Signature,
}

impl OfBytes {
    fn new(operation: Operation, others: Arc<ScalarUDF>) -> OfBytes {
        OfBytes { operation, others, signature: signature() }
    }
}

fn is_bytes(arguments: &[DataType]) -> bool {
    arguments.first().is_some_and(is_binary)
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

impl ScalarUDFImpl for OfBytes {
    fn name(&self) -> &str {
        self.others.name()
    }

    fn aliases(&self) -> &[String] {
        self.others.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        if is_bytes(arguments) {
            let wanted = match (self.operation, arguments.len()) {
                (Operation::Measure(_), 1) => vec![DataType::Binary],
                (Operation::Substring, 2 | 3) => {
                    let numbers = vec![DataType::Int64; arguments.len() - 1];
                    std::iter::once(DataType::Binary).chain(numbers).collect()
                }
                _ => return plan_err!("function {} of bytea takes other arguments", self.name()),
            };
            let numbers = |given: &DataType| given.is_integer() || given.is_null();
            if arguments[1..].iter().all(numbers) {
                return Ok(wanted);
            }
            return plan_err!("function {} of bytea takes whole numbers", self.name());
        }
        let fields: Vec<FieldRef> =
            arguments.iter().map(|argument| Arc::new(Field::new("", argument.clone(), true))).collect();
        let coerced = fields_with_udf(&fields, self.others.as_ref())?;
        Ok(coerced.iter().map(|field| field.data_type().clone()).collect())
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match self.operation {
            _ if !is_bytes(arguments) => self.others.return_type(arguments),
            Operation::Measure(_) => Ok(DataType::Int32),
            Operation::Substring => Ok(DataType::Binary),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if !arguments.args.first().is_some_and(|bytes| is_binary(&bytes.data_type())) {
            if self.operation == Operation::Substring && arguments.args.len() == 3 {
                refuse_negative(&arguments.args)?;
            }
            return self.others.invoke_with_args(arguments);
        }
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let bytes = arrays[0].as_binary::<i32>();
        let answer: ArrayRef = match self.operation {
            Operation::Measure(measure) => Arc::new(lengths(bytes, measure)?),
            Operation::Substring => Arc::new(parts(bytes, &arrays[1..])?),
        };
        Ok(ColumnarValue::Array(answer))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.others.documentation()
    }
}

/// Of the arguments of a function that is NULL where one of them is.
fn refuse_negative(arguments: &[ColumnarValue]) -> Result<()> {
    let arrays = ColumnarValue::values_to_arrays(arguments)?;
    let counts = cast(&arrays[2], &DataType::Int64)?;
    let counts = counts.as_primitive::<Int64Type>();
    let is_negative = |row: usize| arrays.iter().all(|array| array.is_valid(row)) && counts.value(row) < 0;
    if (0..counts.len()).any(is_negative) { Err(negative_length()) } else { Ok(()) }
}

fn negative_length() -> DataFusionError {
    refused(Condition::Substring, "negative substring length not allowed")
}

fn lengths(bytes: &BinaryArray, measure: Measure) -> Result<Int32Array> {
    let unit = match measure {
        Measure::Bytes => 1,
        Measure::Bits => 8,
    };
    let length = |bytes: &[u8]| i32::try_from(bytes.len() * unit).map_err(|_| too_long());
    bytes.iter().map(|bytes| bytes.map(length).transpose()).collect()
}

fn too_long() -> DataFusionError {
    refused(Condition::NumericOutOfRange, "integer out of range")
}

fn parts(bytes: &BinaryArray, bounds: &[ArrayRef]) -> Result<BinaryArray> {
    let bound = |at: usize, row: usize| {
        let bounds = bounds.get(at)?.as_primitive::<Int64Type>();
        bounds.is_valid(row).then(|| bounds.value(row))
    };
    let mut parts = BinaryBuilder::new();
    for row in 0..bytes.len() {
        let (Some(from), true) = (bound(0, row), bytes.is_valid(row)) else {
            parts.append_null();
            continue;
        };
        let end = match (bounds.len(), bound(1, row)) {
            (1, _) => i64::MAX,
            (_, None) => {
                parts.append_null();
                continue;
            }
            (_, Some(count)) if count < 0 => {
                return Err(negative_length());
            }
            (_, Some(count)) => from.saturating_add(count),
        };
        let whole = bytes.value(row);
        let place = |position: i64| usize::try_from(position.saturating_sub(1)).unwrap_or(0).min(whole.len());
        parts.append_value(&whole[place(from)..place(end).max(place(from))]);
    }
    Ok(parts.finish())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Coding {
    /// From bytea to text.
    Encode,
    /// From text to bytea.
    Decode,
}

/// `encode(bytea, format)` and `decode(text, format)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Coded {
    coding: Coding,
    signature: Signature,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Hex,
    Base64,
    Escape,
}

impl Format {
    fn named(name: &str) -> Result<Format> {
        match name.to_ascii_lowercase().as_str() {
            "hex" => Ok(Format::Hex),
            "base64" => Ok(Format::Base64),
            "escape" => Ok(Format::Escape),
            _ => Err(refused(Condition::InvalidParameterValue, format!("unrecognized encoding: \"{name}\""))),
        }
    }

    fn encode(self, bytes: &[u8]) -> String {
        match self {
            Format::Hex => {
                let mut text = String::new();
                write::bytea(&mut text, bytes);
                text.split_off("\\x".len())
            }
            Format::Base64 => base64::encode(bytes),
            Format::Escape => escape(bytes),
        }
    }

    fn decode(self, text: &str) -> Result<Vec<u8>> {
        let decoded = match self {
            Format::Hex => parse_hexadecimal(text),
            Format::Base64 => base64::decode(text),
            Format::Escape => parse_escape(text),
        };
        decoded.map_err(|refused| DataFusionError::External(Box::new(Error::Reported(refused))))
    }
}

impl ScalarUDFImpl for Coded {
    fn name(&self) -> &'static str {
        match self.coding {
            Coding::Encode => "encode",
            Coding::Decode => "decode",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let is_text = |given: &DataType| {
            matches!(given, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
        };
        match (self.coding, arguments) {
            (Coding::Encode, [bytes, format]) if (is_binary(bytes) || bytes.is_null()) && is_text(format) => {
                Ok(vec![DataType::Binary, DataType::Utf8])
            }
            // A literal that is not said to be bytea is one all the same; Arrow would take its text for the bytes.
            (Coding::Encode, [text, format]) if is_text(text) && is_text(format) => {
                Ok(vec![DataType::Utf8, DataType::Utf8])
            }
            (Coding::Decode, [text, format]) if is_text(text) && is_text(format) => {
                Ok(vec![DataType::Utf8, DataType::Utf8])
            }
            _ => plan_err!("function {} takes other arguments", self.name()),
        }
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(match self.coding {
            Coding::Encode => DataType::Utf8,
            Coding::Decode => DataType::Binary,
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let formats = cast(&arrays[1], &DataType::Utf8)?;
        let formats = formats.as_string::<i32>();
        let answer: ArrayRef = match self.coding {
            Coding::Encode => {
                let bytes = of_literals(&arrays[0])?;
                let encoded = bytes.as_binary::<i32>().iter().zip(formats).map(|(bytes, format)| {
                    let (Some(bytes), Some(format)) = (bytes, format) else { return Ok(None) };
                    Ok(Some(Format::named(format)?.encode(bytes)))
                });
                Arc::new(encoded.collect::<Result<StringArray>>()?)
            }
            Coding::Decode => {
                let texts = cast(&arrays[0], &DataType::Utf8)?;
                let decoded = texts.as_string::<i32>().iter().zip(formats).map(|(text, format)| {
                    let (Some(text), Some(format)) = (text, format) else { return Ok(None) };
                    Ok(Some(Format::named(format)?.decode(text)?))
                });
                let decoded = decoded.collect::<Result<Vec<_>>>()?;
                Arc::new(decoded.iter().map(Option::as_deref).collect::<BinaryArray>())
            }
        };
        Ok(ColumnarValue::Array(answer))
    }
}

/// Bytes; texts are read as PostgreSQL reads those of bytea.
fn of_literals(values: &ArrayRef) -> Result<ArrayRef> {
    if is_binary(values.data_type()) {
        return Ok(Arc::clone(values));
    }
    let read = |text: Option<&str>| {
        let Some(text) = text else { return Ok(None) };
        let bytes = crate::text::parse_bytea(text);
        bytes.map(Some).map_err(|refused| DataFusionError::External(Box::new(Error::Reported(refused))))
    };
    let bytes = values.as_string::<i32>().iter().map(read).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(bytes.iter().map(Option::as_deref).collect::<BinaryArray>()))
}
