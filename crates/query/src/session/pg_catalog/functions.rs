//! Functions of `pg_catalog` that look into the node's catalog.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray, TimestampMicrosecondBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use cluster::{Catalog, Table, View};
use datafusion::common::{DataFusionError, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr_fn::{SimpleScalarUDF, create_udf};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion_pg_catalog::pg_catalog::format_type::create_format_type_udf;
use event::{ColumnType, TableDefinition, TableId};
use parking_lot::Mutex;

use super::super::changing::Visible;
use super::super::rows::sql_name;
use super::super::settings::Settings;
use super::relations::default_of;
use super::relations::{ANNAL_OID, Key, checks, keys, view_definition};
use crate::error::{Condition, Error};
use crate::text::Zone;

/// The role that owns every relation.
pub(super) const OWNER: &str = "annal";
/// See [`same_offset`].
pub(crate) const SAME_OFFSET: &str = "annal_same_offset";
/// Where tables' oids begin; those below are the system's.
const FIRST_TABLE_OID: i64 = 16_384;

/// Arrays of varchar, time, timestamp, timestamptz and numeric, with their elements: types that may have a length or a precision.
const ARRAYS_WITH_MODIFIERS: [(i32, i32); 5] = [(1015, 1043), (1183, 1083), (1115, 1114), (1185, 1184), (1231, 1700)];

/// All of them, for one session.
pub(super) fn all(visible: &Visible, settings: &Arc<Mutex<Settings>>) -> Vec<Arc<ScalarUDF>> {
    let mut functions = vec![
        of_text("pg_get_userbyid", &[1], |_| Some(OWNER.to_owned())),
        of_text("pg_encoding_to_char", &[1], |number| Some(if number == "6" { "UTF8" } else { "" }.to_owned())),
        expression_text(),
        format_type(),
        table_is_visible(visible.clone(), Arc::clone(settings)),
        view_text(visible.clone()),
        index_definition(visible.clone()),
        constraint_definition(visible.clone()),
        of_table("column_default", &[2], visible.clone(), |table, arguments| {
            let number = usize::try_from(arguments.first().copied().flatten()?).ok()?;
            default_of(table, table.columns.get(number.checked_sub(1)?)?)
        }),
    ];
    functions.push(super::hypertable::hypertable(visible.clone()));
    functions.push(current_schema(visible.clone(), Arc::clone(settings)));
    functions.push(Arc::new(ScalarUDF::from(TypeOf(Signature::any(1, Volatility::Stable)))));
    functions.push(timezone());
    functions.push(same_offset());
    for name in [
        "pg_function_is_visible",
        "pg_type_is_visible",
        "pg_operator_is_visible",
        "pg_opclass_is_visible",
        "pg_statistics_obj_is_visible",
        "pg_ts_config_is_visible",
    ] {
        functions.push(flag(name));
    }
    functions.extend(super::sizes::all(visible));
    functions.extend(super::routines::descriptions());
    // What PostgreSQL knows of functions, tablespaces and policies in text is not kept.
    for name in ["pg_get_functiondef", "pg_get_function_sqlbody", "pg_tablespace_location"] {
        functions.push(of_text(name, &[1], |_| None));
    }
    functions.push(description("obj_description", &[1, 2], visible.clone(), false));
    functions.push(description("col_description", &[2], visible.clone(), true));
    // Nobody can say anything about databases and roles.
    functions.push(of_text("shobj_description", &[2], |_| None));
    functions
}

pub(super) fn udf(
    name: &'static str,
    counts: &[usize],
    answers: DataType,
    body: impl Fn(&[ArrayRef]) -> Result<ArrayRef> + Send + Sync + 'static,
) -> Arc<ScalarUDF> {
    let signature =
        Signature::one_of(counts.iter().map(|count| TypeSignature::Any(*count)).collect(), Volatility::Stable);
    let body = move |arguments: &[ColumnarValue]| {
        Ok(ColumnarValue::Array(body(&ColumnarValue::values_to_arrays(arguments)?)?))
    };
    Arc::new(ScalarUDF::from(SimpleScalarUDF::new_with_signature(name, signature, answers, Arc::new(body))))
}

/// A function whose answer depends on no argument but the first, as text.
fn of_text(
    name: &'static str,
    counts: &[usize],
    answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
) -> Arc<ScalarUDF> {
    udf(name, counts, DataType::Utf8, move |arguments| {
        let texts = cast(&arguments[0], &DataType::Utf8)?;
        let answers = texts.as_string::<i32>().iter().map(|text| text.and_then(&answer));
        Ok(Arc::new(answers.collect::<StringArray>()))
    })
}

/// `pg_get_expr`: expressions are kept as their text.
fn expression_text() -> Arc<ScalarUDF> {
    of_text("pg_get_expr", &[2, 3], |text| (!text.is_empty()).then(|| text.to_owned()))
}

/// `format_type(oid, modifier)`: the library's knows no modifier of arrays.
fn format_type() -> Arc<ScalarUDF> {
    let library = create_format_type_udf();
    udf("format_type", &[2], DataType::Utf8, move |arguments| {
        let (types, modifiers) = (cast(&arguments[0], &DataType::Int32)?, cast(&arguments[1], &DataType::Int32)?);
        let types = types.as_primitive::<Int32Type>();
        let element = |array: i32| ARRAYS_WITH_MODIFIERS.iter().find(|(of, _)| *of == array).map(|(_, one)| *one);
        let elements = types.unary::<_, Int32Type>(|oid| element(oid).unwrap_or(oid));
        let number_rows = types.len();
        let named = library.invoke_with_args(ScalarFunctionArgs {
            args: vec![ColumnarValue::Array(Arc::new(elements)), ColumnarValue::Array(modifiers)],
            arg_fields: Vec::new(),
            number_rows,
            return_field: Arc::new(Field::new("format_type", DataType::Utf8, true)),
            config_options: Arc::default(),
        })?;
        let named = named.into_array(number_rows)?;
        let named = named.as_string::<i32>().iter().zip(types).map(|(name, oid)| {
            let brackets = if oid.and_then(element).is_some() { "[]" } else { "" };
            name.map(|name| format!("{name}{brackets}"))
        });
        Ok(Arc::new(named.collect::<StringArray>()))
    })
}

fn flag(name: &'static str) -> Arc<ScalarUDF> {
    udf(name, &[1], DataType::Boolean, |arguments| Ok(Arc::new(BooleanArray::from(vec![true; arguments[0].len()]))))
}

pub(super) fn oids(argument: &ArrayRef) -> Result<ArrayRef> {
    Ok(cast(argument, &DataType::Int64)?)
}

/// Where tables are made whose names say no schema.
fn current_schema(visible: Visible, settings: Arc<Mutex<Settings>>) -> Arc<ScalarUDF> {
    let body = move |_: &[ColumnarValue]| {
        let catalog = visible.catalog();
        let (path, temporary) = {
            let settings = settings.lock();
            (settings.search_path(), settings.temporary.clone())
        };
        let first = path.into_iter().find(|name| catalog.has_schema(name) && Some(name) != temporary.as_ref());
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(first)))
    };
    Arc::new(create_udf("current_schema", Vec::new(), DataType::Utf8, Volatility::Stable, Arc::new(body)))
}

/// A relation can be named without its schema when that is on the search path.
fn table_is_visible(visible: Visible, settings: Arc<Mutex<Settings>>) -> Arc<ScalarUDF> {
    udf("pg_table_is_visible", &[1], DataType::Boolean, move |arguments| {
        let catalog = visible.catalog();
        let path = settings.lock().search_path();
        let visible = |oid: i64| {
            let of_system = |schema: &str| Some(path.iter().any(|on_path| on_path == schema));
            let (schema, name) = match oid {
                oid if oid < i64::from(ANNAL_OID) => return of_system("pg_catalog"),
                oid if oid < FIRST_TABLE_OID => return of_system("annal"),
                oid => match (definition(&catalog, oid), view_of(&catalog, oid)) {
                    (Some(table), _) => (&table.namespace, &table.name),
                    (None, Some(view)) => (&view.namespace, &view.name),
                    (None, None) => return None,
                },
            };
            // One of that name in a schema before hides it.
            let has =
                |on_path: &&String| catalog.table(on_path, name).is_some() || catalog.view(on_path, name).is_some();
            Some(path.iter().find(has) == Some(schema))
        };
        let oids = oids(&arguments[0])?;
        let answers = oids.as_primitive::<Int64Type>().iter().map(|oid| oid.and_then(visible));
        Ok(Arc::new(answers.collect::<BooleanArray>()))
    })
}

fn view_of(catalog: &Catalog, oid: i64) -> Option<&View> {
    catalog.views.get(&TableId(u64::try_from(oid).ok()?)).map(Arc::as_ref)
}

/// `pg_get_viewdef(oid [, pretty])`.
fn view_text(visible: Visible) -> Arc<ScalarUDF> {
    udf("pg_get_viewdef", &[1, 2], DataType::Utf8, move |arguments| {
        let catalog = visible.catalog();
        let text = |oid: Option<i64>| view_of(&catalog, oid?).map(view_definition);
        let oids = oids(&arguments[0])?;
        Ok(Arc::new(oids.as_primitive::<Int64Type>().iter().map(text).collect::<StringArray>()))
    })
}

/// What is said about a relation, or about a column of it whose number is the second argument.
fn description(name: &'static str, counts: &[usize], visible: Visible, of_column: bool) -> Arc<ScalarUDF> {
    udf(name, counts, DataType::Utf8, move |arguments| {
        let catalog = visible.catalog();
        let relations = oids(&arguments[0])?;
        let columns = of_column.then(|| oids(&arguments[1])).transpose()?;
        let answer = |row: usize| {
            let number =
                |values: &ArrayRef| values.is_valid(row).then(|| values.as_primitive::<Int64Type>().value(row));
            let relation = TableId(u64::try_from(number(&relations)?).ok()?);
            let column = columns.as_ref().map_or(Some(0), number)?;
            catalog.comments.get(&relation)?.get(&u32::try_from(column).ok()?).cloned()
        };
        Ok(Arc::new((0..relations.len()).map(answer).collect::<StringArray>()))
    })
}

/// The table whose oid, or one of whose keys' oids, this is.
fn definition(catalog: &Catalog, oid: i64) -> Option<&TableDefinition> {
    let found = table_of(catalog, oid).map(|table| table.definition.as_ref());
    found.or_else(|| key_of(catalog, oid).map(|key| key.table))
}

fn key_of(catalog: &Catalog, oid: i64) -> Option<Key<'_>> {
    keys(catalog).into_iter().find(|key| i64::from(key.oid) == oid)
}

/// The table whose oid this is.
pub(super) fn table_of(catalog: &Catalog, oid: i64) -> Option<&Table> {
    catalog.tables.get(&TableId(u64::try_from(oid).ok()?)).map(Arc::as_ref)
}

/// A function of a relation's oid and further numbers.
fn of_table(
    name: &'static str,
    counts: &[usize],
    visible: Visible,
    answer: impl Fn(&TableDefinition, &[Option<i64>]) -> Option<String> + Send + Sync + 'static,
) -> Arc<ScalarUDF> {
    udf(name, counts, DataType::Utf8, move |arguments| {
        let catalog = visible.catalog();
        let numbers = arguments.iter().map(oids).collect::<Result<Vec<_>>>()?;
        let row = |row: usize| {
            let given: Vec<Option<i64>> = numbers
                .iter()
                .map(|column| column.is_valid(row).then(|| column.as_primitive::<Int64Type>().value(row)))
                .collect();
            let table = definition(&catalog, given[0]?)?;
            answer(table, &given[1..])
        };
        Ok(Arc::new((0..numbers[0].len()).map(row).collect::<StringArray>()))
    })
}

/// `pg_get_constraintdef(oid [, pretty])`.
fn constraint_definition(visible: Visible) -> Arc<ScalarUDF> {
    udf("pg_get_constraintdef", &[1, 2], DataType::Utf8, move |arguments| {
        let catalog = visible.catalog();
        let oids = oids(&arguments[0])?;
        let pretty = arguments.get(1).map(|flags| cast(flags, &DataType::Boolean)).transpose()?;
        let answer = |row: usize| {
            let oid = oids.is_valid(row).then(|| oids.as_primitive::<Int64Type>().value(row))?;
            if let Some(key) = key_of(&catalog, oid) {
                let kind = if key.is_primary { "PRIMARY KEY" } else { "UNIQUE" };
                return Some(format!("{kind} ({})", key.column_names()));
            }
            let (_, _, check) = checks(&catalog).find(|(check, ..)| i64::from(*check) == oid)?;
            let is_pretty = pretty.as_ref().is_some_and(|flags| flags.is_valid(row) && flags.as_boolean().value(row));
            let (open, close) = if is_pretty { ("(", ")") } else { ("((", "))") };
            let not_valid = if check.validated { "" } else { " NOT VALID" };
            Some(format!("CHECK {open}{}{close}{not_valid}", check.expression))
        };
        Ok(Arc::new((0..oids.len()).map(answer).collect::<StringArray>()))
    })
}

/// `pg_get_indexdef(oid [, column, pretty])`: the whole index, or the name of one of its columns.
fn index_definition(visible: Visible) -> Arc<ScalarUDF> {
    udf("pg_get_indexdef", &[1, 3], DataType::Utf8, move |arguments| {
        let catalog = visible.catalog();
        let numbers = arguments.iter().map(oids).collect::<Result<Vec<_>>>()?;
        let number = |column: usize, row: usize| {
            let values = numbers.get(column).filter(|values| values.is_valid(row))?;
            Some(values.as_primitive::<Int64Type>().value(row))
        };
        let answer = |row: usize| {
            let key = key_of(&catalog, number(0, row)?)?;
            match number(1, row) {
                None | Some(0) => Some(key.definition()),
                Some(number) => {
                    let position = key.columns.get(usize::try_from(number).ok()?.checked_sub(1)?)?;
                    Some(key.table.columns[*position].name.clone())
                }
            }
        };
        Ok(Arc::new((0..numbers[0].len()).map(answer).collect::<StringArray>()))
    })
}

/// `timezone(zone, time)`.
pub(crate) fn timezone() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(TimeZone(Signature::any(2, Volatility::Immutable))))
}

/// `annal_same_offset(zone, time, instant)`: the instant at which clocks of the zone show a time while they are as far from UTC as at another
/// instant, which tells apart the times that they show twice. Statements do not name it; see `session/zoned.rs`.
pub(crate) fn same_offset() -> Arc<ScalarUDF> {
    udf(SAME_OFFSET, &[3], DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), |arguments| {
        let names = cast(&arguments[0], &DataType::Utf8)?;
        let own = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
        let (times, instants) = (cast(&arguments[1], &own(None))?, cast(&arguments[2], &own(Some("UTC")))?);
        let (times, instants) =
            (times.as_primitive::<TimestampMicrosecondType>(), instants.as_primitive::<TimestampMicrosecondType>());
        let mut answers = TimestampMicrosecondBuilder::with_capacity(times.len());
        let mut zones = Zones::default();
        for ((name, time), instant) in names.as_string::<i32>().iter().zip(times).zip(instants) {
            answers.append_option(match (name, time, instant) {
                (Some(name), Some(time), Some(instant)) => {
                    time.checked_sub(i64::from(zones.named(name)?.offset_at(instant)) * 1_000_000)
                }
                _ => None,
            });
        }
        Ok(Arc::new(answers.finish().with_timezone("UTC")))
    })
}

/// The zone that was named last.
#[derive(Default)]
struct Zones(Option<(String, Zone)>);

impl Zones {
    fn named(&mut self, name: &str) -> Result<Zone> {
        match &self.0 {
            Some((same, zone)) if same == name => Ok(*zone),
            _ => {
                let zone = Zone::named(name).ok_or_else(|| not_recognized(name))?;
                self.0 = Some((name.to_owned(), zone));
                Ok(zone)
            }
        }
    }
}

/// `timezone(zone, time)`: what clocks of the zone show at an instant, or the instant at which they show a time.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeZone(Signature);

impl ScalarUDFImpl for TimeZone {
    fn name(&self) -> &'static str {
        "timezone"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let zone = match arguments.get(1) {
            Some(DataType::Timestamp(_, Some(_))) => None,
            Some(DataType::Timestamp(_, None) | DataType::Date32) => Some("UTC".into()),
            other => return plan_err!("no function matches: timezone of {other:?}"),
        };
        Ok(DataType::Timestamp(TimeUnit::Microsecond, zone))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let names = cast(&arrays[0], &DataType::Utf8)?;
        let is_instant = matches!(arrays[1].data_type(), DataType::Timestamp(_, Some(_)));
        let own = DataType::Timestamp(TimeUnit::Microsecond, is_instant.then(|| "UTC".into()));
        let times = cast(&arrays[1], &own)?;
        let mut zones = Zones::default();
        let mut answers = TimestampMicrosecondBuilder::with_capacity(times.len());
        for (name, time) in names.as_string::<i32>().iter().zip(times.as_primitive::<TimestampMicrosecondType>()) {
            let (Some(name), Some(time)) = (name, time) else {
                answers.append_null();
                continue;
            };
            let zone = zones.named(name)?;
            answers.append_option(if is_instant {
                time.checked_add(i64::from(zone.offset_at(time)) * 1_000_000)
            } else {
                zone.to_utc(time)
            });
        }
        let answers = answers.with_data_type(arguments.return_field.data_type().clone()).finish();
        Ok(ColumnarValue::Array(Arc::new(answers)))
    }
}

fn not_recognized(zone: &str) -> DataFusionError {
    let message = format!("time zone \"{zone}\" not recognized");
    DataFusionError::External(Box::new(Error::report(Condition::InvalidParameterValue, message)))
}

/// `pg_typeof(value)`: the name of the value's type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TypeOf(Signature);

impl ScalarUDFImpl for TypeOf {
    fn name(&self) -> &'static str {
        "pg_typeof"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let field = &arguments.arg_fields[0];
        let name = match (ColumnType::json_of(field), field.data_type()) {
            (Some(json), _) => json.to_string(),
            (None, DataType::List(element)) => format!("{}[]", sql_name(element.data_type())),
            (None, data_type) => sql_name(data_type),
        };
        Ok(ColumnarValue::Scalar(name.into()))
    }
}
