//! What makes a JSON value out of another: `jsonb_set`, `jsonb_insert`, `jsonb_pretty`, `json_strip_nulls`, and the functions of the operators
//! `||`, `-` and `#-`, under PostgreSQL's names for them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use event::ColumnType;

use super::parts::read;
use super::tree::{Tree, put_member};
use crate::error::{Condition, Error};

/// All of them.
pub(super) fn all() -> Vec<Arc<ScalarUDF>> {
    use ColumnType::{Json, Jsonb};
    let functions = [
        (Change::Set, Jsonb),
        (Change::Insert, Jsonb),
        (Change::Join, Jsonb),
        (Change::Delete, Jsonb),
        (Change::DeletePath, Jsonb),
        (Change::StripNulls, Jsonb),
        (Change::StripNulls, Json),
        (Change::Pretty, Jsonb),
    ];
    functions.into_iter().map(|(change, json)| function(change, json)).collect()
}

/// `||` of two jsonb.
pub(super) fn join() -> Arc<ScalarUDF> {
    function(Change::Join, ColumnType::Jsonb)
}

/// `-` behind a jsonb: without a member or an element, or without several.
pub(super) fn delete() -> Arc<ScalarUDF> {
    function(Change::Delete, ColumnType::Jsonb)
}

/// `#-`: without what lies at the end of a path.
pub(super) fn delete_path() -> Arc<ScalarUDF> {
    function(Change::DeletePath, ColumnType::Jsonb)
}

fn function(change: Change, json: ColumnType) -> Arc<ScalarUDF> {
    let name = format!("{json}_{}", change.name());
    Arc::new(ScalarUDF::from(Changing {
        change,
        json,
        name,
        signature: Signature::variadic_any(Volatility::Immutable),
    }))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Change {
    Set,
    Insert,
    Join,
    Delete,
    DeletePath,
    StripNulls,
    Pretty,
}

impl Change {
    fn name(self) -> &'static str {
        match self {
            Change::Set => "set",
            Change::Insert => "insert",
            Change::Join => "concat",
            Change::Delete => "delete",
            Change::DeletePath => "delete_path",
            Change::StripNulls => "strip_nulls",
            Change::Pretty => "pretty",
        }
    }

    /// How many arguments it takes.
    fn takes(self, count: usize) -> bool {
        match self {
            Change::Set | Change::Insert => matches!(count, 3 | 4),
            Change::Join | Change::Delete | Change::DeletePath => count == 2,
            Change::StripNulls | Change::Pretty => count == 1,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Changing {
    change: Change,
    json: ColumnType,
    name: String,
    signature: Signature,
}

impl ScalarUDFImpl for Changing {
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
        let fields = arguments.arg_fields;
        if !self.change.takes(fields.len()) {
            return plan_err!("{} takes other arguments", self.name);
        }
        // A literal is read as JSON; a column must be some.
        let is_json = |at: usize| {
            let literal = matches!(arguments.scalar_arguments.get(at), Some(Some(_)));
            fields[at].data_type().is_null() || literal || ColumnType::json_of(&fields[at]) == Some(self.json)
        };
        let others = match self.change {
            Change::Set | Change::Insert => 2..3,
            Change::Join => 1..2,
            _ => 0..0,
        };
        if !std::iter::once(0).chain(others).all(is_json) {
            return plan_err!("{} takes a value of type {}", self.name, self.json);
        }
        Ok(Arc::new(match self.change {
            Change::Pretty => Field::new(&self.name, DataType::Utf8, true),
            _ => self.json.field(&self.name, true),
        }))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let rows = arrays.first().map_or(0, |array| array.len());
        let json = |at: usize| -> Result<StringArray> {
            let texts = cast(&arrays[at], &DataType::Utf8)?;
            match ColumnType::json_of(&arguments.arg_fields[at]) {
                Some(_) => Ok(texts.as_string::<i32>().clone()),
                None => read(texts.as_string::<i32>(), self.json),
            }
        };
        let (values, given) =
            (json(0)?, |row: usize| arrays.iter().all(|array| array.is_valid(row) && !array.data_type().is_null()));
        let compute: Box<dyn Fn(usize, Tree) -> Result<Tree>> = match self.change {
            Change::Set | Change::Insert => {
                let (paths, puts) = (Paths::of(&arrays[1])?, json(2)?);
                let flags = arrays.get(3).map(|flags| cast(flags, &DataType::Boolean)).transpose()?;
                let flags: Option<BooleanArray> = flags.map(|flags| flags.as_boolean().clone());
                let is_set = self.change == Change::Set;
                Box::new(move |row, tree| {
                    let flag = flags.as_ref().map(|flags| flags.value(row));
                    let put = match (is_set, flag) {
                        (true, Some(false)) => Put::Replace,
                        (true, _) => Put::Set,
                        (false, Some(true)) => Put::After,
                        (false, _) => Put::Before,
                    };
                    changed(tree, &paths.path(row), put, &Tree::of(puts.value(row)))
                })
            }
            Change::DeletePath => {
                let paths = Paths::of(&arrays[1])?;
                Box::new(move |row, tree| changed(tree, &paths.path(row), Put::Nothing, &Tree::Array(Vec::new())))
            }
            Change::Join => {
                let others = json(1)?;
                Box::new(move |row, tree| Ok(joined(tree, Tree::of(others.value(row)))))
            }
            Change::Delete => {
                let places = Places::of(&arrays[1])?;
                Box::new(move |row, tree| places.deleted(tree, row))
            }
            Change::StripNulls => Box::new(|_, tree| Ok(tree.without_nulls())),
            Change::Pretty => Box::new(|_, tree| Ok(tree)),
        };
        let texts = (0..rows).map(|row| {
            if !given(row) {
                return Ok(None);
            }
            let tree = compute(row, Tree::of(values.value(row)))?;
            Ok(Some(match (self.change, self.json) {
                (Change::Pretty, _) => tree.lines(),
                (_, ColumnType::Json) => tree.compact(),
                _ => tree.text(),
            }))
        });
        Ok(ColumnarValue::Array(Arc::new(texts.collect::<Result<StringArray>>()?)))
    }
}

/// Paths of names and indexes.
struct Paths(ArrayRef);

impl Paths {
    fn of(array: &ArrayRef) -> Result<Paths> {
        match array.as_list_opt::<i32>() {
            Some(lists) if lists.values().data_type() == &DataType::Utf8 => Ok(Paths(Arc::clone(array))),
            _ if array.data_type().is_null() => Ok(Paths(Arc::clone(array))),
            _ => plan_err!("a path is an array of texts"),
        }
    }

    fn path(&self, row: usize) -> Vec<Option<String>> {
        let steps = self.0.as_list::<i32>().value(row);
        steps.as_string::<i32>().iter().map(|step| step.map(str::to_owned)).collect()
    }
}

/// What is put at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Put {
    /// Nothing, and what is there goes.
    Nothing,
    /// In the place of what is there.
    Replace,
    /// The same, or where nothing is.
    Set,
    /// Before the element that is there, or where no member is.
    Before,
    /// Behind it.
    After,
}

impl Put {
    fn adds(self) -> bool {
        matches!(self, Put::Set | Put::Before | Put::After)
    }
}

/// The value with `new` at the end of the path.
fn changed(tree: Tree, path: &[Option<String>], put: Put, new: &Tree) -> Result<Tree> {
    match &tree {
        Tree::Scalar(_) if put == Put::Nothing => return Err(refused("cannot delete path in scalar")),
        Tree::Scalar(_) => return Err(refused("cannot set path in scalar")),
        _ => {}
    }
    if path.is_empty() { Ok(tree) } else { changed_at(tree, path, 0, put, new) }
}

fn changed_at(tree: Tree, path: &[Option<String>], level: usize, put: Put, new: &Tree) -> Result<Tree> {
    let step = path[level].as_deref().ok_or_else(|| {
        let message = format!("path element at position {} is null", level + 1);
        DataFusionError::External(Box::new(Error::report(Condition::NullValueNotAllowed, message)))
    })?;
    let is_last = level + 1 == path.len();
    match tree {
        Tree::Object(mut members) => {
            match members.iter().position(|(known, _)| known == step) {
                Some(at) if !is_last => {
                    let inner = std::mem::replace(&mut members[at].1, Tree::Array(Vec::new()));
                    members[at].1 = changed_at(inner, path, level + 1, put, new)?;
                }
                Some(at) => match put {
                    Put::Nothing => drop(members.remove(at)),
                    Put::Replace | Put::Set => members[at].1 = new.clone(),
                    Put::Before | Put::After => {
                        let hint = "Try using the function jsonb_set to replace key value.";
                        let error =
                            Error::hinted(Condition::InvalidParameterValue, "cannot replace existing key", hint);
                        return Err(DataFusionError::External(Box::new(error)));
                    }
                },
                None if is_last && put.adds() => put_member(&mut members, step.to_owned(), new.clone()),
                None => {}
            }
            Ok(Tree::Object(members))
        }
        Tree::Array(mut values) => {
            let Ok(index) = step.trim_ascii_start().parse::<i32>() else {
                let message = format!("path element at position {} is not an integer: \"{step}\"", level + 1);
                let error = Error::report(Condition::InvalidTextRepresentation, message);
                return Err(DataFusionError::External(Box::new(error)));
            };
            let place = place(i64::from(index), values.len());
            match usize::try_from(place) {
                Ok(at) if at < values.len() && !is_last => {
                    let inner = std::mem::replace(&mut values[at], Tree::Array(Vec::new()));
                    values[at] = changed_at(inner, path, level + 1, put, new)?;
                }
                Ok(at) if at < values.len() => match put {
                    Put::Nothing => drop(values.remove(at)),
                    Put::Replace | Put::Set => values[at] = new.clone(),
                    Put::Before => values.insert(at, new.clone()),
                    Put::After => values.insert(at + 1, new.clone()),
                },
                // Beyond an end, what is added comes to that end.
                Ok(_) if is_last && put.adds() => values.push(new.clone()),
                Err(_) if is_last && put.adds() => values.insert(0, new.clone()),
                _ => {}
            }
            Ok(Tree::Array(values))
        }
        scalar => Ok(scalar),
    }
}

/// An index counted from the front, negative where it is before the first element.
fn place(index: i64, count: usize) -> i64 {
    if index < 0 { index + count as i64 } else { index }
}

/// The members of both, of one name the second's; or the elements of both, where what is no array counts as one element.
fn joined(one: Tree, other: Tree) -> Tree {
    let elements = |tree: Tree| match tree {
        Tree::Array(values) => values,
        single => vec![single],
    };
    match (one, other) {
        (Tree::Object(mut members), Tree::Object(others)) => {
            others.into_iter().for_each(|(name, value)| put_member(&mut members, name, value));
            Tree::Object(members)
        }
        (one, other) => {
            let mut values = elements(one);
            values.extend(elements(other));
            Tree::Array(values)
        }
    }
}

/// What is to go.
enum Places {
    Indexes(Int64Array),
    Names(StringArray),
    Lists(ArrayRef),
    None,
}

impl Places {
    fn of(array: &ArrayRef) -> Result<Places> {
        match array.data_type() {
            DataType::Null => Ok(Places::None),
            DataType::List(element) if element.data_type() == &DataType::Utf8 => Ok(Places::Lists(Arc::clone(array))),
            integer if integer.is_integer() => {
                Ok(Places::Indexes(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone()))
            }
            text if text.is_string() => Ok(Places::Names(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())),
            _ => plan_err!("a jsonb has names and indexes"),
        }
    }

    fn deleted(&self, tree: Tree, row: usize) -> Result<Tree> {
        match (self, tree) {
            (_, Tree::Scalar(_)) => Err(refused("cannot delete from scalar")),
            (Places::Indexes(_), Tree::Object(_)) => Err(refused("cannot delete from object using integer index")),
            (Places::Indexes(indexes), Tree::Array(mut values)) => {
                let at = usize::try_from(place(indexes.value(row), values.len())).ok();
                if let Some(at) = at.filter(|at| *at < values.len()) {
                    values.remove(at);
                }
                Ok(Tree::Array(values))
            }
            (Places::Names(names), tree) => Ok(without(tree, &[names.value(row)])),
            (Places::Lists(lists), tree) => {
                let names = lists.as_list::<i32>().value(row);
                Ok(without(tree, &names.as_string::<i32>().iter().flatten().collect::<Vec<_>>()))
            }
            (Places::None, tree) => Ok(tree),
        }
    }
}

/// Without members of those names, or without elements that are strings of them.
fn without(tree: Tree, names: &[&str]) -> Tree {
    match tree {
        Tree::Object(members) => {
            Tree::Object(members.into_iter().filter(|(name, _)| !names.contains(&name.as_str())).collect())
        }
        Tree::Array(values) => {
            let kept = values.into_iter().filter(|value| !names.iter().any(|name| value.is_string(name)));
            Tree::Array(kept.collect())
        }
        scalar => scalar,
    }
}

fn refused(message: &str) -> DataFusionError {
    DataFusionError::External(Box::new(Error::report(Condition::InvalidParameterValue, message)))
}
