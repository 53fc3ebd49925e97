//! CREATE TABLE: from the parsed statement to what the catalog is asked for.

use cluster::TableSpec;
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, ColumnDef, ColumnOption, CreateTable, CreateTableOptions, DataType as SqlType, ExactNumberInfo,
    Expr, GeneratedAs, Ident, ObjectName, ObjectNamePart, SequenceOptions, SqlOption, TimezoneInfo, Value,
};
use event::{
    Column, ColumnId, ColumnType, Compression, Consistency, Dedup, EventOptions, Identity, IdentityKind, Replicas,
    Sharding, TableKind, limits,
};
use storage::routing::can_shard_by;

use super::report::nearest;
use super::stated_keys::{primary_key, unique};
use super::{checks, clauses, modifiers};
use crate::error::{Condition, Error};

/// Width of a split when nothing is said.
const SPLIT_INTERVAL_US: i64 = 86_400_000_000;
/// How PostgreSQL would split a table.
const PARTITIONING: &str = "declarative partitioning is";
/// Names of columns that belong to the system.
const RESERVED: [&str; 1] = ["__seq"];
/// Options of this release, with TimescaleDB's names for them.
const OPTIONS: [(&str, &str); 21] = [
    ("time_column", "time_column"),
    ("tsdb.partition_column", "time_column"),
    ("series", "series"),
    ("segmentby", "series"),
    ("tsdb.segmentby", "series"),
    ("split_interval", "split_interval"),
    ("chunk_interval", "split_interval"),
    ("tsdb.chunk_interval", "split_interval"),
    ("dedup", "dedup"),
    ("retention", "retention"),
    ("shards", "shards"),
    ("shard_by", "shard_by"),
    ("consistency", "consistency"),
    ("compression", "compression"),
    ("orderby", "orderby"),
    ("tsdb.orderby", "orderby"),
    ("replicas", "replicas"),
    ("durability", "durability"),
    ("late_policy", "late_policy"),
    ("tsdb.hypertable", "hypertable"),
    ("timescaledb.hypertable", "hypertable"),
];

/// Options that have one value in this release.
const ONLY: [(&str, &str); 2] = [("durability", "quorum"), ("late_policy", "accept")];

/// Options as written, values as text.
#[derive(Debug, Default)]
pub(super) struct Options {
    time_column: Option<String>,
    series: Option<String>,
    split_interval: Option<String>,
    dedup: Option<String>,
    shards: Option<String>,
    shard_by: Option<String>,
    orderby: Option<String>,
    pub(super) retention: Option<String>,
    pub(super) compression: Option<String>,
    pub(super) consistency: Option<String>,
    pub(super) replicas: Option<String>,
}

impl Options {
    /// The first option that was given of those that stay as they are for the life of a table.
    pub(super) fn fixed(&self) -> Option<&'static str> {
        let fixed = [
            ("time_column", &self.time_column),
            ("series", &self.series),
            ("split_interval", &self.split_interval),
            ("dedup", &self.dedup),
            ("shards", &self.shards),
            ("shard_by", &self.shard_by),
            ("orderby", &self.orderby),
        ];
        fixed.into_iter().find(|(_, value)| value.is_some()).map(|(name, _)| name)
    }
}

/// A name with its schema; `public` when none is written.
pub(crate) fn relation(name: &ObjectName) -> Result<(String, String), Error> {
    let parts: Vec<String> = name
        .0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => Ok(folded(ident)),
            ObjectNamePart::Function(_) => {
                Err(Error::report(Condition::SyntaxError, format!("improper qualified name: {name}")))
            }
        })
        .collect::<Result<_, _>>()?;
    match parts.as_slice() {
        [name] => Ok(("public".to_owned(), name.clone())),
        [schema, name] | [_, schema, name] => Ok((schema.clone(), name.clone())),
        _ => Err(Error::report(
            Condition::SyntaxError,
            format!("improper qualified name (too many dotted names): {name}"),
        )),
    }
}

/// An identifier as PostgreSQL keeps it.
pub(crate) fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// What the statement asks for.
///
/// # Errors
/// PostgreSQL's refusals of bad definitions; 0A000 for what this release does not offer.
pub(crate) fn table_spec(create: &CreateTable) -> Result<TableSpec, Error> {
    refuse_clauses(create)?;
    let (namespace, name) = relation(&create.name)?;
    check_namespace(&namespace)?;
    let mut columns = columns(&create.columns)?;
    let (primary_key, primary_key_named) = primary_key(create, &name, &columns)?;
    for position in &primary_key {
        columns[*position].nullable = false;
    }
    let options = table_options(&create.table_options)?;
    let kind = kind(&options, &columns, &primary_key)?;
    let own_name = format!("{name}_pkey");
    let key_name = (!primary_key.is_empty()).then(|| primary_key_named.as_deref().unwrap_or(&own_name));
    let unique = unique(create, &name, &columns, key_name)?;
    if kind != TableKind::Reference && !unique.is_empty() {
        return Err(Error::hinted(
            Condition::FeatureNotSupported,
            "unique constraints of event tables are not supported",
            "Rows of event tables are not checked for duplicates.",
        ));
    }
    let keys = primary_key.iter().chain(unique.iter().flat_map(|key| &key.columns));
    refuse_as_keys(&columns, keys)?;
    let compression = compression(options.compression.as_deref())?;
    let checks = checks::stated(create, &name, &columns)?;
    let consistency = consistency(options.consistency.as_deref())?;
    let replicas = replicas(options.replicas.as_deref())?;
    Ok(TableSpec {
        namespace,
        name,
        columns,
        primary_key,
        primary_key_named,
        unique,
        kind,
        compression,
        checks,
        consistency,
        replicas,
    })
}

/// The table that CREATE TABLE AS asks for, with the columns of its query.
///
/// # Errors
/// As [`table_spec`].
pub(super) fn query_spec(create: &CreateTable, mut columns: Vec<Column>) -> Result<TableSpec, Error> {
    refuse_clauses(create)?;
    let (namespace, name) = relation(&create.name)?;
    check_namespace(&namespace)?;
    let options = table_options(&create.table_options)?;
    // A query does not say NOT NULL; the option does.
    let time = options.time_column.as_ref().and_then(|name| position(&columns, name));
    if let Some(at) = time {
        columns[at].nullable = false;
    }
    let kind = kind(&options, &columns, &[])?;
    let compression = compression(options.compression.as_deref())?;
    let (primary_key, primary_key_named, unique, checks) = Default::default();
    let consistency = consistency(options.consistency.as_deref())?;
    let replicas = replicas(options.replicas.as_deref())?;
    Ok(TableSpec {
        namespace,
        name,
        columns,
        primary_key,
        primary_key_named,
        unique,
        kind,
        compression,
        checks,
        consistency,
        replicas,
    })
}

/// Rows are not ordered by some types as PostgreSQL orders them.
pub(super) fn refuse_as_keys<'a>(
    columns: &[Column],
    positions: impl IntoIterator<Item = &'a usize>,
) -> Result<(), Error> {
    let mut keys = positions.into_iter().map(|at| &columns[*at]);
    let Some(column) = keys.find(|column| !column.column_type.is_key()) else { return Ok(()) };
    let message = format!("column \"{}\" of type {} cannot be part of a key", column.name, column.column_type);
    Err(Error::hinted(Condition::FeatureNotSupported, message, "Keep a number of seconds or days in its place."))
}

/// Tables and views lie in schemas of the user.
///
/// # Errors
/// 42P16 for a schema of the system.
pub(super) fn check_namespace(namespace: &str) -> Result<(), Error> {
    match namespace {
        "annal" | "pg_catalog" | "information_schema" => {
            Err(Error::report(Condition::InvalidTableDefinition, format!("permission denied for schema {namespace}")))
        }
        _ => Ok(()),
    }
}

/// The compression of that name, the default when none is said.
pub(super) fn compression(written: Option<&str>) -> Result<Compression, Error> {
    Ok(match written.map(str::to_lowercase).as_deref() {
        None | Some("zstd") => Compression::Zstd,
        Some("lz4") => Compression::Lz4,
        Some("snappy") => Compression::Snappy,
        Some("none") => Compression::None,
        Some(other) => return Err(invalid_option("compression", other, "zstd, lz4, snappy and none")),
    })
}

fn invalid_option(option: &str, value: &str, valid: &str) -> Error {
    let message = format!("invalid value for option \"{option}\": \"{value}\"");
    Error::hinted(Condition::InvalidParameterValue, message, format!("Valid values are {valid}."))
}

fn refuse_clauses(create: &CreateTable) -> Result<(), Error> {
    let refused = [
        (create.like.is_some(), "CREATE TABLE LIKE is"),
        (create.inherits.is_some(), "table inheritance is"),
        (create.partition_by.is_some() || create.partition_of.is_some(), PARTITIONING),
        (create.external, "external tables are"),
        (create.or_replace, "CREATE OR REPLACE TABLE is"),
    ];
    match refused.iter().find(|(present, _)| *present) {
        Some((_, what)) => {
            let hint = if *what == PARTITIONING {
                "Event tables are split by time without it; see the option split_interval."
            } else {
                "Create the table with its columns, then insert into it."
            };
            Err(Error::hinted(Condition::FeatureNotSupported, format!("{what} not supported"), hint))
        }
        None => clauses::check_create_table(create),
    }
}

/// The columns of these definitions, numbered from 1.
pub(super) fn columns(written: &[ColumnDef]) -> Result<Vec<Column>, Error> {
    let mut columns: Vec<Column> = Vec::new();
    for definition in written {
        let name = folded(&definition.name);
        if columns.iter().any(|column| column.name == name) {
            return Err(Error::report(
                Condition::DuplicateColumn,
                format!("column \"{name}\" specified more than once"),
            ));
        }
        check_column_name(&name)?;
        let serial = serial(&definition.data_type);
        let column_type = match serial {
            Some(column_type) => column_type,
            None => column_type(&definition.data_type)?,
        };
        let mut column = Column {
            identity: serial.map(|_| Identity { kind: IdentityKind::Serial, start: 1 }),
            modifier: modifiers::modifier(&definition.data_type)?,
            required: false,
            initial: None,
            id: ColumnId(columns.len() as u32 + 1),
            name,
            stored: None,
            column_type,
            nullable: serial.is_none(),
            default: None,
        };
        for option in &definition.options {
            match &option.option {
                ColumnOption::Null => column.nullable = true,
                ColumnOption::NotNull | ColumnOption::PrimaryKey(_) => column.nullable = false,
                ColumnOption::Default(expr) => column.default = Some(expr.to_string()),
                ColumnOption::Generated { generated_as, sequence_options, generation_expr: None, .. } => {
                    column.identity = Some(identity(&column, generated_as, sequence_options.as_deref())?);
                    column.nullable = false;
                }
                // Collected with those of the table.
                ColumnOption::Check(_) | ColumnOption::Unique(_) => {}
                ColumnOption::Collation(name) => clauses::check_collation(name)?,
                other => return Err(constraint_refused(&other.to_string())),
            }
        }
        if column.identity.is_some() && column.default.is_some() {
            let message = format!("both default and identity specified for column \"{}\"", column.name);
            return Err(Error::report(Condition::SyntaxError, message));
        }
        columns.push(column);
    }
    if columns.is_empty() {
        return Err(Error::report(Condition::FeatureNotSupported, "tables without columns are not supported"));
    }
    Ok(columns)
}

/// Refuses names of the system's columns.
///
/// # Errors
/// 42701.
pub(super) fn check_column_name(name: &str) -> Result<(), Error> {
    if RESERVED.contains(&name) {
        let message = format!("column name \"{name}\" conflicts with a system column name");
        return Err(Error::report(Condition::DuplicateColumn, message));
    }
    Ok(())
}

/// The type of a column that is written as a serial.
fn serial(sql: &SqlType) -> Option<ColumnType> {
    let SqlType::Custom(name, _) = sql else { return None };
    match name.to_string().to_lowercase().as_str() {
        "smallserial" | "serial2" => Some(ColumnType::SmallInt),
        "serial" | "serial4" => Some(ColumnType::Integer),
        "bigserial" | "serial8" => Some(ColumnType::BigInt),
        _ => None,
    }
}

fn identity(
    column: &Column,
    generated_as: &GeneratedAs,
    options: Option<&[SequenceOptions]>,
) -> Result<Identity, Error> {
    if !matches!(column.column_type, ColumnType::SmallInt | ColumnType::Integer | ColumnType::BigInt) {
        let message = "identity column type must be smallint, integer, or bigint";
        return Err(Error::report(Condition::InvalidParameterValue, message));
    }
    let kind = match generated_as {
        GeneratedAs::Always => IdentityKind::Always,
        GeneratedAs::ByDefault => IdentityKind::ByDefault,
        GeneratedAs::ExpStored => return Err(constraint_refused("GENERATED ... STORED")),
    };
    let mut start = 1;
    for option in options.unwrap_or_default() {
        start = match option {
            SequenceOptions::StartWith(start, _) => start.to_string().parse().map_err(|_| {
                Error::report(Condition::InvalidParameterValue, format!("invalid START value of a sequence: {start}"))
            })?,
            SequenceOptions::IncrementBy(step, _) if step.to_string() == "1" => start,
            other => {
                let message = format!("sequence option{other} is not supported");
                return Err(Error::hinted(Condition::FeatureNotSupported, message, "START WITH is."));
            }
        };
    }
    Ok(Identity { kind, start })
}

pub(super) fn constraint_refused(what: &str) -> Error {
    Error::hinted(
        Condition::FeatureNotSupported,
        format!("constraint {what} is not supported"),
        "Columns may have NOT NULL, DEFAULT, GENERATED AS IDENTITY, CHECK, PRIMARY KEY and, in reference tables, UNIQUE.",
    )
}

/// The column type that a SQL type names.
pub(crate) fn column_type(sql: &SqlType) -> Result<ColumnType, Error> {
    if let Some(refused) = modifiers::blank_padded(sql) {
        return Err(refused);
    }
    Ok(match sql {
        SqlType::SmallInt(None) | SqlType::Int2(None) => ColumnType::SmallInt,
        SqlType::Integer(None) | SqlType::Int(None) | SqlType::Int4(None) => ColumnType::Integer,
        SqlType::BigInt(None) | SqlType::Int8(None) => ColumnType::BigInt,
        SqlType::Real | SqlType::Float4 => ColumnType::Real,
        SqlType::Double(_) | SqlType::DoublePrecision | SqlType::Float8 => ColumnType::Double,
        SqlType::Float(ExactNumberInfo::Precision(digits)) if *digits <= 24 => ColumnType::Real,
        SqlType::Float(_) => ColumnType::Double,
        SqlType::Numeric(info) | SqlType::Decimal(info) | SqlType::Dec(info) => return numeric(info),
        SqlType::Boolean | SqlType::Bool => ColumnType::Boolean,
        SqlType::Text
        | SqlType::Varchar(_)
        | SqlType::CharacterVarying(_)
        | SqlType::CharVarying(_)
        | SqlType::String(_) => ColumnType::Text,
        SqlType::Bytea => ColumnType::Bytea,
        SqlType::Uuid => ColumnType::Uuid,
        SqlType::JSON => ColumnType::Json,
        SqlType::JSONB => ColumnType::Jsonb,
        SqlType::Date => ColumnType::Date,
        SqlType::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => ColumnType::Time,
        SqlType::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => ColumnType::Timestamp,
        SqlType::Timestamp(_, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => ColumnType::TimestampTz,
        SqlType::Interval { fields: None, precision: None } => ColumnType::Interval,
        SqlType::Array(
            ArrayElemTypeDef::SquareBracket(element, _)
            | ArrayElemTypeDef::Parenthesis(element)
            | ArrayElemTypeDef::AngleBracket(element),
        ) => {
            let element = column_type(element)?;
            // How many dimensions a type names means nothing.
            element.array().unwrap_or(element)
        }
        SqlType::Custom(name, _) => {
            let message = format!("type \"{}\" does not exist", name.to_string().to_lowercase());
            return Err(Error::report(Condition::UndefinedObject, message));
        }
        other => {
            let message = format!("columns of type {} are not supported", other.to_string().to_lowercase());
            let hint = "Types are smallint, integer, bigint, real, double precision, numeric(p,s), boolean, text, bytea, uuid, json, jsonb, date, time, timestamp, timestamptz, interval, and arrays of these.";
            return Err(Error::hinted(Condition::FeatureNotSupported, message, hint));
        }
    })
}

fn numeric(info: &ExactNumberInfo) -> Result<ColumnType, Error> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => {
            return Err(Error::hinted(
                Condition::FeatureNotSupported,
                "numeric columns without precision are not supported",
                "Write numeric(precision, scale) with a precision of at most 38.",
            ));
        }
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    if !(1..=38).contains(&precision) {
        let message = format!("NUMERIC precision {precision} must be between 1 and 38");
        return Err(Error::report(Condition::InvalidParameterValue, message));
    }
    if scale < 0 || scale as u64 > precision {
        let message = format!("NUMERIC scale {scale} must be between 0 and precision {precision}");
        return Err(Error::report(Condition::InvalidParameterValue, message));
    }
    Ok(ColumnType::Numeric { precision: precision as u8, scale: scale as i8 })
}

pub(super) fn position(columns: &[Column], name: &str) -> Option<usize> {
    columns.iter().position(|column| column.name == name)
}

fn table_options(written: &CreateTableOptions) -> Result<Options, Error> {
    match written {
        CreateTableOptions::None => Ok(Options::default()),
        CreateTableOptions::With(list) => options(list),
        other => Err(Error::report(Condition::FeatureNotSupported, format!("table options {other} are not supported"))),
    }
}

/// The options of WITH or SET.
pub(super) fn options(list: &[SqlOption]) -> Result<Options, Error> {
    let mut options = Options::default();
    for option in list {
        let (name, value) = match option {
            SqlOption::KeyValue { key, value } => (folded(key), option_value(value)),
            SqlOption::Ident(ident) => (folded(ident), "true".to_owned()),
            other => return Err(unknown_option(&other.to_string())),
        };
        let Some((_, meaning)) = OPTIONS.iter().find(|known| known.0 == name) else {
            return Err(unknown_option(&name));
        };
        let slot = match *meaning {
            "time_column" => &mut options.time_column,
            "series" => &mut options.series,
            "split_interval" => &mut options.split_interval,
            "dedup" => &mut options.dedup,
            "shards" => &mut options.shards,
            "shard_by" => &mut options.shard_by,
            "retention" => &mut options.retention,
            "compression" => &mut options.compression,
            "consistency" => &mut options.consistency,
            "replicas" => &mut options.replicas,
            "orderby" => &mut options.orderby,
            meaning => {
                if let Some((_, only)) = ONLY.iter().find(|(option, _)| *option == meaning)
                    && !value.eq_ignore_ascii_case(only)
                {
                    let message = format!("value \"{value}\" of option \"{name}\" is not supported");
                    let hint = format!("It is \"{only}\" for every table.");
                    return Err(Error::hinted(Condition::FeatureNotSupported, message, hint));
                }
                // A table with these is what they say anyway.
                continue;
            }
        };
        if slot.replace(value).is_some() {
            return Err(Error::report(
                Condition::SyntaxError,
                format!("parameter \"{name}\" specified more than once"),
            ));
        }
    }
    Ok(options)
}

fn option_value(value: &Expr) -> String {
    match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => text.clone(),
            other => other.to_string(),
        },
        Expr::Identifier(ident) => folded(ident),
        Expr::Interval(interval) => option_value(&interval.value),
        Expr::Cast { expr, .. } => option_value(expr),
        Expr::TypedString(typed) => option_value(&Expr::Value(typed.value.clone())),
        other => other.to_string(),
    }
}

fn unknown_option(name: &str) -> Error {
    let known = OPTIONS.iter().map(|(name, _)| *name);
    let hint = match nearest(name, known) {
        Some(near) => format!("Perhaps you meant \"{near}\"."),
        None => {
            "Options are time_column, series, split_interval, dedup, retention, shards, shard_by, compression, consistency and replicas."
                .to_owned()
        }
    };
    Error::hinted(Condition::FeatureNotSupported, format!("table option \"{name}\" is not supported"), hint)
}

/// Event or reference, by the rules of the SQL documentation.
fn kind(options: &Options, columns: &[Column], primary_key: &[usize]) -> Result<TableKind, Error> {
    let time_column = match &options.time_column {
        Some(name) => Some(named_time_column(name, columns)?),
        None => {
            let candidates = |at: &usize| !columns[*at].nullable && columns[*at].column_type.is_time();
            (0..columns.len()).filter(candidates).find(|at| primary_key.is_empty() || primary_key.contains(at))
        }
    };
    let Some(time_column) = time_column else {
        let of_events = [
            ("series", &options.series),
            ("split_interval", &options.split_interval),
            ("dedup", &options.dedup),
            ("shards", &options.shards),
            ("shard_by", &options.shard_by),
            ("orderby", &options.orderby),
            ("retention", &options.retention),
        ];
        for (option, written) in of_events {
            if written.is_some() {
                return Err(needs_time(option));
            }
        }
        return Ok(TableKind::Reference);
    };
    if let Some(written) = &options.orderby {
        check_order(written, &columns[time_column].name)?;
    }
    let series = match &options.series {
        Some(list) => series_columns(list, columns, time_column)?,
        None => primary_key.iter().copied().filter(|at| *at != time_column).collect(),
    };
    let split_interval_us = match &options.split_interval {
        Some(text) => interval_us("split_interval", text)?,
        None => SPLIT_INTERVAL_US,
    };
    let retention_us = options.retention.as_ref().map(|text| interval_us("retention", text)).transpose()?;
    let sharding = sharding(options, columns, &series)?;
    let dedup = dedup(options.dedup.as_deref())?;
    let options = EventOptions { time_column, series, split_interval_us, retention_us, dedup, sharding };
    if !options.dedup.is_none() {
        check_key(&options, columns, primary_key)?;
    }
    Ok(TableKind::Event(options))
}

/// How new queries read the table.
pub(super) fn consistency(written: Option<&str>) -> Result<Consistency, Error> {
    let Some(written) = written else { return Ok(Consistency::default()) };
    Consistency::named(written)
        .ok_or_else(|| invalid_option("consistency", written, "strong, session, bounded and eventual"))
}

/// How many nodes vote on the rows of the table.
pub(super) fn replicas(written: Option<&str>) -> Result<Replicas, Error> {
    let Some(written) = written else { return Ok(Replicas::default()) };
    let count = written.parse::<usize>().ok();
    count.and_then(Replicas::new).ok_or_else(|| invalid_option("replicas", written, "1, 3, 5 and 7"))
}

/// Over how many shards rows are spread, and by which columns: those of the series key when nothing is said.
fn sharding(options: &Options, columns: &[Column], series: &[usize]) -> Result<Sharding, Error> {
    let invalid = |message: String, hint: &str| Err(Error::hinted(Condition::InvalidTableDefinition, message, hint));
    let shards = match options.shards.as_deref().map(str::parse::<u32>) {
        None => 1,
        Some(Ok(shards)) if (1..=limits::SHARDS_MAX).contains(&shards) => shards,
        Some(_) => {
            let written = options.shards.as_deref().unwrap_or_default();
            return Err(invalid_option("shards", written, "the numbers from 1 to 64"));
        }
    };
    let by = match &options.shard_by {
        None => series.to_vec(),
        Some(list) => {
            let mut by = Vec::new();
            for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                let Some(at) = position(columns, name) else {
                    let message = format!("shard column \"{name}\" does not exist");
                    return Err(Error::report(Condition::UndefinedColumn, message));
                };
                if !series.contains(&at) || by.contains(&at) {
                    let message =
                        format!("column \"{name}\" cannot say the shard: it is not in the series key, or named twice");
                    return invalid(message, "Rows of one series lie in one shard: name columns of the series key.");
                }
                by.push(at);
            }
            by
        }
    };
    if shards == 1 {
        return Ok(Sharding::default());
    }
    if by.is_empty() {
        let message = "a table with several shards needs columns that say the shard of a row".to_owned();
        return invalid(message, "For example, series = 'device'.");
    }
    if let Some(at) = by.iter().find(|at| !can_shard_by(columns[**at].column_type)) {
        let Column { name, column_type, .. } = &columns[*at];
        let message = format!("column \"{name}\" of type {column_type} cannot say the shard of a row");
        return invalid(message, "Name columns of text, whole numbers, uuid, boolean, dates or times as shard_by.");
    }
    Ok(Sharding { shards, by })
}

/// Rows are sorted by the series key and then by time, and read in either direction.
fn check_order(written: &str, time_column: &str) -> Result<(), Error> {
    let mut words = written.split_whitespace();
    let column = words.next().unwrap_or_default().trim_matches('"');
    let direction = |word: &str| ["asc", "desc", "nulls", "first", "last"].iter().any(|w| word.eq_ignore_ascii_case(w));
    if column == time_column && words.all(direction) {
        return Ok(());
    }
    let message = format!("cannot order rows by \"{written}\"");
    let hint = format!("Rows of a series are in the order of \"{time_column}\", the time column.");
    Err(Error::hinted(Condition::FeatureNotSupported, message, hint))
}

/// Which row of a key is to be there, all when nothing is said.
fn dedup(written: Option<&str>) -> Result<Dedup, Error> {
    Ok(match written.map(str::to_lowercase).as_deref() {
        None | Some("none") => Dedup::None,
        Some("first") => Dedup::First,
        Some("last") => Dedup::Last,
        Some(other) => return Err(invalid_option("dedup", other, "none, first and last")),
    })
}

/// Rows of one key must come to lie beside each other.
fn check_key(options: &EventOptions, columns: &[Column], primary_key: &[usize]) -> Result<(), Error> {
    let refused = |message: &str, hint: String| Err(Error::hinted(Condition::InvalidTableDefinition, message, hint));
    let time = &columns[options.time_column].name;
    if !primary_key.contains(&options.time_column) {
        let hint = format!("For example, PRIMARY KEY (device, {time}).");
        return refused("option \"dedup\" needs a primary key with the time column", hint);
    }
    let sort_key = options.sort_key();
    if sort_key.len() != primary_key.len() || !sort_key.iter().all(|at| primary_key.contains(at)) {
        let hint = "Leave the option series out: it follows from the primary key.".to_owned();
        return refused("with option \"dedup\" the series key must be the primary key without the time column", hint);
    }
    Ok(())
}

/// The option is of event tables alone.
pub(super) fn needs_time(option: &str) -> Error {
    Error::hinted(
        Condition::InvalidTableDefinition,
        format!("option \"{option}\" needs a time column"),
        "Give the table a NOT NULL timestamp or timestamptz column.",
    )
}

fn named_time_column(name: &str, columns: &[Column]) -> Result<usize, Error> {
    let Some(at) = position(columns, name) else {
        return Err(Error::report(Condition::UndefinedColumn, format!("time column \"{name}\" does not exist")));
    };
    if !columns[at].column_type.is_time() {
        let message =
            format!("time column \"{name}\" is of type {}, not timestamp or timestamptz", columns[at].column_type);
        return Err(Error::report(Condition::InvalidTableDefinition, message));
    }
    if columns[at].nullable {
        let message = format!("time column \"{name}\" must be NOT NULL");
        return Err(Error::hinted(Condition::InvalidTableDefinition, message, "Add NOT NULL to the column."));
    }
    Ok(at)
}

fn series_columns(list: &str, columns: &[Column], time_column: usize) -> Result<Vec<usize>, Error> {
    let mut series = Vec::new();
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let Some(at) = position(columns, name) else {
            return Err(Error::report(Condition::UndefinedColumn, format!("series column \"{name}\" does not exist")));
        };
        refuse_as_keys(columns, [&at])?;
        if at == time_column || series.contains(&at) {
            let message = format!("column \"{name}\" cannot be in the series key twice or be the time column");
            return Err(Error::report(Condition::InvalidTableDefinition, message));
        }
        series.push(at);
    }
    Ok(series)
}

/// A fixed width in microseconds: `12 hours`, `1 day`, `7d`. Months have no fixed width.
pub(super) fn interval_us(option: &str, text: &str) -> Result<i64, Error> {
    let invalid = || {
        Error::report(Condition::InvalidParameterValue, format!("invalid value for option \"{option}\": \"{text}\""))
    };
    let mut total: i64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: i64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit: i64 = match rest[..letters].to_ascii_lowercase().as_str() {
            "us" | "microsecond" | "microseconds" => 1,
            "ms" | "millisecond" | "milliseconds" => 1_000,
            "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000,
            "m" | "min" | "mins" | "minute" | "minutes" => 60_000_000,
            "h" | "hour" | "hours" => 3_600_000_000,
            "d" | "day" | "days" => 86_400_000_000,
            "w" | "week" | "weeks" => 604_800_000_000,
            "month" | "months" | "mon" | "year" | "years" => {
                return Err(Error::hinted(
                    Condition::FeatureNotSupported,
                    format!("{} \"{text}\" has no fixed width", option.replace('_', " ")),
                    "Use days or weeks.",
                ));
            }
            _ => return Err(invalid()),
        };
        total = number.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(invalid)?;
        rest = rest[letters..].trim_start();
    }
    if total < 1_000_000 {
        let message = format!("{option} must be at least one second");
        return Err(Error::report(Condition::InvalidParameterValue, message));
    }
    Ok(total)
}
