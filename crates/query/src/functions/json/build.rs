//! What makes JSON: `to_json`, `json_build_object`, `json_build_array`, and the aggregates' last step. Each for `jsonb` as well.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use event::ColumnType;

use super::value::quoted;
use crate::error::{Condition, Error};
use crate::functions::forms;
use crate::text::{Zone, parse_json};

/// `json_agg(x)` is this over `array_agg(to_json(x))`, with the type in front.
pub(crate) const LIST: &str = "annal_list";
/// The same of rows, each in a line of its own.
pub(crate) const LINES: &str = "annal_lines";
/// What `row_to_json` makes of a row: its names and values in turn.
pub(crate) const ROW: &str = "annal_row";
/// `json_object_agg(k, v)` is this over `array_agg(k)` and `array_agg(to_json(v))`, with the type in front.
pub(crate) const OBJECT: &str = "annal_object";

/// All of them.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    let makes = [Make::Value, Make::Object, Make::Row, Make::Array, Make::List, Make::Lines, Make::Members];
    let function = |make: Make, json: ColumnType| {
        let name = match make {
            Make::Value => format!("to_{json}"),
            Make::Object => format!("{json}_build_object"),
            Make::Row => format!("{json}_{ROW}"),
            Make::Array => format!("{json}_build_array"),
            Make::List => format!("{json}_{LIST}"),
            Make::Lines => format!("{json}_{LINES}"),
            Make::Members => format!("{json}_{OBJECT}"),
        };
        let forms = vec![TypeSignature::VariadicAny, TypeSignature::Nullary];
        let signature = Signature::one_of(forms, Volatility::Stable);
        Arc::new(ScalarUDF::from(Build { make, json, name, signature }))
    };
    [ColumnType::Json, ColumnType::Jsonb].into_iter().flat_map(|json| makes.map(|make| function(make, json))).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Make {
    /// Of any value.
    Value,
    /// Of names and values in turn.
    Object,
    /// The same, as a row is written.
    Row,
    /// Of values.
    Array,
    /// Of an array of JSON texts.
    List,
    /// The same, each in a line of its own.
    Lines,
    /// Of an array of names and one of JSON texts.
    Members,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Build {
    make: Make,
    json: ColumnType,
    name: String,
    signature: Signature,
}

impl ScalarUDFImpl for Build {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        match (self.make, arguments.arg_fields.len()) {
            (Make::Value | Make::List | Make::Lines, 1) | (Make::Members, 2) | (Make::Array, _) => {}
            (Make::Object | Make::Row, count) if count % 2 == 0 => {}
            (Make::Object, _) => {
                let error = Error::hinted(
                    Condition::InvalidParameterValue,
                    "argument list must have even number of elements",
                    format!("The arguments of {}() must consist of alternating keys and values.", self.name),
                );
                return Err(DataFusionError::External(Box::new(error)));
            }
            _ => return plan_err!("{} takes other arguments", self.name),
        }
        Ok(Arc::new(self.json.field(&self.name, true)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let zone = Zone::of_session(&arguments.config_options);
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let rows = arrays.first().map_or(arguments.number_rows, |array| array.len());
        let writers = arrays.iter().zip(&arguments.arg_fields).map(|(array, field)| writer(array, field, zone));
        let writers = writers.collect::<Result<Vec<_>>>()?;
        let names = match self.make {
            Make::Object | Make::Row => {
                arrays.iter().step_by(2).map(|names| forms::texts(names, zone)).collect::<Result<_>>()?
            }
            _ => Vec::new(),
        };
        let mut texts = StringBuilder::new();
        for row in 0..rows {
            let written = match self.make {
                Make::Value => arrays[0].is_valid(row).then(|| writers[0](row)),
                Make::Array => {
                    let values: Vec<String> = writers.iter().map(|write| write(row)).collect();
                    Some(format!("[{}]", values.join(", ")))
                }
                Make::Object => Some(object(&arrays, &names, &writers, row)?),
                Make::Row => Some(whole_row(&names, &writers, row)),
                Make::List => list(&arrays[0], row, ", "),
                Make::Lines => list(&arrays[0], row, ", \n "),
                Make::Members => members(&arrays, row)?,
            };
            texts.append_option(written.map(|text| self.canonical(text)).transpose()?);
        }
        Ok(ColumnarValue::Array(Arc::new(texts.finish())))
    }
}

impl Build {
    /// The text of a jsonb is the one that PostgreSQL prints.
    fn canonical(&self, text: String) -> Result<String> {
        if self.json == ColumnType::Json {
            return Ok(text);
        }
        match parse_json(&text, ColumnType::Jsonb) {
            Ok(datafusion::common::ScalarValue::Utf8(Some(text))) => Ok(text),
            Ok(_) => Ok(text),
            Err(refused) => Err(DataFusionError::External(Box::new(Error::Reported(refused)))),
        }
    }
}

/// Gives the JSON of a row's value.
type Writer = Box<dyn Fn(usize) -> String>;

fn writer(array: &ArrayRef, field: &Field, zone: Zone) -> Result<Writer> {
    let array = Arc::clone(array);
    let of_valid: Writer = if ColumnType::json_of(field).is_some() {
        let texts = cast(&array, &DataType::Utf8)?.as_string::<i32>().clone();
        Box::new(move |row| texts.value(row).to_owned())
    } else {
        match array.data_type() {
            DataType::Null => Box::new(|_| "null".to_owned()),
            DataType::Boolean => {
                let values = array.as_boolean().clone();
                Box::new(move |row| values.value(row).to_string())
            }
            DataType::List(element) => {
                let lists = array.as_list::<i32>().clone();
                let write = writer(lists.values(), element, zone)?;
                Box::new(move |row| {
                    let offsets = lists.value_offsets();
                    let values = (offsets[row]..offsets[row + 1]).map(|at| write(at as usize));
                    format!("[{}]", values.collect::<Vec<_>>().join(","))
                })
            }
            DataType::Struct(fields) => {
                let values = array.as_struct().clone();
                let writers = fields
                    .iter()
                    .zip(values.columns())
                    .map(|(field, column)| Ok((quoted(field.name()), writer(column, field, zone)?)));
                let writers = writers.collect::<Result<Vec<_>>>()?;
                Box::new(move |row| {
                    let members = writers.iter().map(|(name, write)| format!("{name}:{}", write(row)));
                    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
                })
            }
            data_type => {
                let numeric = data_type.is_numeric();
                let moment = matches!(data_type, DataType::Timestamp(..));
                let zoned = matches!(data_type, DataType::Timestamp(_, Some(_)));
                let texts = forms::texts(&array, zone)?;
                Box::new(move |row| {
                    let text = texts.value(row);
                    match (numeric, moment) {
                        (true, _)
                            if text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && !text.contains('I') =>
                        {
                            text.to_owned()
                        }
                        (_, true) => quoted(&iso(text, zoned)),
                        _ => quoted(text),
                    }
                })
            }
        }
    };
    Ok(Box::new(move |row| if array.is_null(row) { "null".to_owned() } else { of_valid(row) }))
}

/// `2013-01-01 00:00:00+02` as `2013-01-01T00:00:00+02:00`.
fn iso(text: &str, zoned: bool) -> String {
    let text = text.replacen(' ', "T", 1);
    let offset = text.rfind(['+', '-']).map_or(0, |at| text.len() - at);
    if zoned && offset == "+00".len() { format!("{text}:00") } else { text }
}

fn object(arrays: &[ArrayRef], names: &[StringArray], writers: &[Writer], row: usize) -> Result<String> {
    let mut out = String::from("{");
    for (at, (name, pair)) in names.iter().zip(writers.chunks(2)).enumerate() {
        if arrays[2 * at].is_null(row) || arrays[2 * at].data_type().is_null() {
            let message = format!("argument {} cannot be null", 2 * at + 1);
            let error = Error::hinted(Condition::InvalidParameterValue, message, "Object keys should be text.");
            return Err(DataFusionError::External(Box::new(error)));
        }
        // Writing to a String cannot fail.
        let _ok = write!(out, "{}{} : {}", if at > 0 { ", " } else { "" }, quoted(name.value(row)), pair[1](row));
    }
    out.push('}');
    Ok(out)
}

fn whole_row(names: &[StringArray], writers: &[Writer], row: usize) -> String {
    let members =
        names.iter().zip(writers.chunks(2)).map(|(name, pair)| format!("{}:{}", quoted(name.value(row)), pair[1](row)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// The JSON texts of a row's array.
fn texts_of(array: &ArrayRef, row: usize) -> Option<StringArray> {
    let lists = array.as_list_opt::<i32>()?;
    lists.is_valid(row).then(|| lists.value(row).as_string_opt::<i32>().cloned()).flatten()
}

fn list(array: &ArrayRef, row: usize, comma: &str) -> Option<String> {
    let texts = texts_of(array, row)?;
    let values: Vec<&str> = texts.iter().map(|text| text.unwrap_or("null")).collect();
    Some(format!("[{}]", values.join(comma)))
}

fn members(arrays: &[ArrayRef], row: usize) -> Result<Option<String>> {
    let (Some(names), Some(values)) = (texts_of(&arrays[0], row), texts_of(&arrays[1], row)) else { return Ok(None) };
    let mut out = String::from("{ ");
    for at in 0..names.len() {
        if names.is_null(at) {
            let error = Error::report(Condition::InvalidParameterValue, "field name must not be null");
            return Err(DataFusionError::External(Box::new(error)));
        }
        let value = if values.is_valid(at) { values.value(at) } else { "null" };
        let _ok = write!(out, "{}{} : {value}", if at > 0 { ", " } else { "" }, quoted(names.value(at)));
    }
    out.push_str(" }");
    Ok(Some(out))
}
