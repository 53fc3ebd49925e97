//! `json_typeof`, `json_array_length`, `json_extract_path`, `json_extract_path_text`, and what gives arrays of parts: the elements of an array,
//! the names of an object's members and their values. Each for `jsonb` as well.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListBuilder, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use event::ColumnType;

use super::value::{Kind, as_text, at_path, elements, members};
use crate::error::{Condition, Error};
use crate::text::parse_json;

/// All of them.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    let of = |json: ColumnType| {
        let prefix = json.to_string();
        [
            Part::Type,
            Part::Length,
            Part::Path { text: false },
            Part::Path { text: true },
            Part::Elements,
            Part::Texts,
            Part::Keys,
            Part::Names { of_texts: false },
            Part::Names { of_texts: true },
            Part::Values { texts: false },
            Part::Values { texts: true },
        ]
        .map(|part| (part, json, format!("{prefix}_{}", part.name())))
    };
    let named = of(ColumnType::Json).into_iter().chain(of(ColumnType::Jsonb));
    named
        .map(|(part, json, name)| {
            Arc::new(ScalarUDF::from(OfJson {
                part,
                json,
                name,
                signature: Signature::variadic_any(Volatility::Immutable),
            }))
        })
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Type,
    Length,
    Path {
        text: bool,
    },
    Elements,
    Texts,
    Keys,
    /// The names of `json_each`, or of `json_each_text`.
    Names {
        of_texts: bool,
    },
    /// The values beside them.
    Values {
        texts: bool,
    },
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Type => "typeof",
            Part::Length => "array_length",
            Part::Path { text: false } => "extract_path",
            Part::Path { text: true } => "extract_path_text",
            // What is unnested, under the names of what gives rows.
            Part::Elements => "elements_of_array",
            Part::Texts => "texts_of_array",
            Part::Keys => "keys_of_object",
            Part::Names { of_texts: false } => "names_of_each",
            Part::Names { of_texts: true } => "names_of_each_text",
            Part::Values { texts: false } => "values_of_each",
            Part::Values { texts: true } => "texts_of_each_text",
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfJson {
    part: Part,
    json: ColumnType,
    name: String,
    signature: Signature,
}

fn list() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

impl ScalarUDFImpl for OfJson {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(match self.part {
            Part::Length => DataType::Int32,
            Part::Type | Part::Path { .. } => DataType::Utf8,
            _ => list(),
        })
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let given =
            arguments.arg_fields.first().ok_or_else(|| DataFusionError::Plan(format!("{} takes JSON", self.name)))?;
        let literal = matches!(arguments.scalar_arguments.first(), Some(Some(_)));
        if ColumnType::json_of(given) != Some(self.json) && !literal && !given.data_type().is_null() {
            return plan_err!("{} takes a value of type {}", self.name, self.json);
        }
        let counts = match self.part {
            Part::Path { .. } => 1..=usize::MAX,
            _ => 1..=1,
        };
        if !counts.contains(&arguments.arg_fields.len()) {
            return plan_err!("{} takes other arguments", self.name);
        }
        Ok(Arc::new(match self.part {
            Part::Path { text: false } => self.json.field(&self.name, true),
            _ => Field::new(&self.name, self.return_type(&[])?, true),
        }))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let mut texts = arrays.iter().map(|array| Ok(cast(array, &DataType::Utf8)?)).collect::<Result<Vec<_>>>()?;
        if let (Some(first), Some(field)) = (texts.first_mut(), arguments.arg_fields.first())
            && ColumnType::json_of(field).is_none()
        {
            *first = Arc::new(read(first.as_string::<i32>(), self.json)?);
        }
        let texts: Vec<&StringArray> = texts.iter().map(|array| array.as_string::<i32>()).collect();
        let Some((jsons, path)) = texts.split_first() else { return plan_err!("{} takes JSON", self.name) };
        let answer: ArrayRef = match self.part {
            Part::Type => {
                let names = jsons.iter().map(|json| json.map(|json| Kind::of(json).name()));
                Arc::new(names.collect::<StringArray>())
            }
            Part::Length => {
                let counted = |json| elements(json).map(|all| all.len() as i32).ok_or_else(|| not_an_array(json));
                let lengths = jsons.iter().map(|json| json.map(counted).transpose());
                Arc::new(lengths.collect::<Result<Int32Array>>()?)
            }
            Part::Path { text } => {
                let found = (0..jsons.len()).map(|row| {
                    let steps = path.iter().map(|step| step.is_valid(row).then(|| step.value(row)));
                    let found = jsons.is_valid(row).then(|| at_path(jsons.value(row), steps)).flatten()?;
                    if text { as_text(found) } else { Some(found.to_owned()) }
                });
                Arc::new(found.collect::<StringArray>())
            }
            _ => Arc::new(self.lists(jsons)?.finish()),
        };
        Ok(ColumnarValue::Array(answer))
    }
}

impl OfJson {
    fn lists(&self, jsons: &StringArray) -> Result<ListBuilder<StringBuilder>> {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for json in jsons {
            let Some(json) = json else {
                lists.append_null();
                continue;
            };
            match self.part {
                Part::Keys => {
                    let members = members(json).ok_or_else(|| refusal(self.refused(Kind::of(json), "an object")))?;
                    members.into_iter().for_each(|(name, _)| lists.values().append_value(name));
                }
                Part::Names { of_texts: texts } | Part::Values { texts } => {
                    let members = members(json).ok_or_else(|| refusal(self.not_each(Kind::of(json), texts)))?;
                    for (name, value) in members {
                        match self.part {
                            Part::Names { .. } => lists.values().append_value(name),
                            _ if texts => lists.values().append_option(as_text(value.get())),
                            _ => lists.values().append_value(value.get()),
                        }
                    }
                }
                part => {
                    let elements = elements(json).ok_or_else(|| refusal(self.refused(Kind::of(json), "an array")))?;
                    for element in elements {
                        match part {
                            Part::Texts => lists.values().append_option(as_text(element.get())),
                            _ => lists.values().append_value(element.get()),
                        }
                    }
                }
            }
            lists.append(true);
        }
        Ok(lists)
    }

    fn not_each(&self, found: Kind, texts: bool) -> String {
        match (self.json, found) {
            (ColumnType::Json, Kind::Array) => "cannot deconstruct an array as an object".to_owned(),
            (ColumnType::Json, _) => "cannot deconstruct a scalar".to_owned(),
            _ => format!("cannot call jsonb_each{} on a non-object", if texts { "_text" } else { "" }),
        }
    }

    fn refused(&self, found: Kind, wanted: &str) -> String {
        match (found, wanted) {
            (Kind::Object, "an array") => "cannot extract elements from an object".to_owned(),
            (Kind::Array, "an object") => format!("cannot call {}_object_keys on an array", self.json),
            (_, "an array") => "cannot extract elements from a scalar".to_owned(),
            _ => format!("cannot call {}_object_keys on a scalar", self.json),
        }
    }
}

/// A text that is written in place of JSON is read as such.
pub(super) fn read(texts: &StringArray, json: ColumnType) -> Result<StringArray> {
    let read = texts.iter().map(|text| {
        let value = text.map(|text| parse_json(text, json)).transpose();
        match value.map_err(|refused| DataFusionError::External(Box::new(Error::Reported(refused))))? {
            Some(ScalarValue::Utf8(text)) => Ok(text),
            _ => Ok(None),
        }
    });
    read.collect()
}

fn not_an_array(json: &str) -> DataFusionError {
    refusal(match Kind::of(json) {
        Kind::Object => "cannot get array length of a non-array".to_owned(),
        _ => "cannot get array length of a scalar".to_owned(),
    })
}

fn refusal(message: String) -> DataFusionError {
    DataFusionError::External(Box::new(Error::report(Condition::InvalidParameterValue, message)))
}
