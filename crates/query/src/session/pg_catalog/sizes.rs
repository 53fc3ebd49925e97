//! How large tables are, as `\dt+`, `\l+` and dashboards ask.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use cluster::Table;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::ScalarUDF;

use super::functions::{oids, table_of, udf};
use crate::engine::Engine;
use crate::error::Error;
use crate::session::changing::Visible;

/// Up to which multiple of a unit it is used, as in PostgreSQL.
const UNIT_MAX: i64 = 10 * 1024;
const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];

/// All of them.
pub(super) fn all(visible: &Visible) -> Vec<Arc<ScalarUDF>> {
    let mut functions = vec![
        udf("pg_size_pretty", &[1], DataType::Utf8, |arguments| {
            let sizes = cast(&arguments[0], &DataType::Int64)?;
            let pretty = sizes.as_primitive::<Int64Type>().iter().map(|size| size.map(pretty));
            Ok(Arc::new(pretty.collect::<StringArray>()))
        }),
        // Primary keys are the order of the rows: there is nothing beside them.
        udf("pg_indexes_size", &[1], DataType::Int64, |arguments| {
            Ok(Arc::new(Int64Array::from(vec![0; arguments[0].len()])))
        }),
    ];
    for name in ["pg_table_size", "pg_total_relation_size"] {
        functions.push(of_relation(name, &[1], visible.clone()));
    }
    functions.push(of_relation("pg_relation_size", &[1, 2], visible.clone()));
    let visible = visible.clone();
    functions.push(udf("pg_database_size", &[1], DataType::Int64, move |arguments| {
        let all = |engine: Arc<Engine>| visible.catalog().tables.values().map(|table| size(&engine, table)).sum();
        let size = visible.engine().map_or(0, all);
        Ok(Arc::new(Int64Array::from(vec![size; arguments[0].len()])))
    }));
    functions
}

fn of_relation(name: &'static str, counts: &[usize], visible: Visible) -> Arc<ScalarUDF> {
    udf(name, counts, DataType::Int64, move |arguments| {
        let Some(engine) = visible.engine() else { return internal_err!("the node has ended") };
        let catalog = visible.catalog();
        if arguments[0].data_type().is_string() {
            let names = cast(&arguments[0], &DataType::Utf8)?;
            let answer = |name: &str| {
                let (namespace, table) = name.split_once('.').unwrap_or(("public", name));
                let unknown = || Error::in_plan(cluster::Error::NoSuchTable(name.to_owned()));
                catalog.table(namespace, table).map(|table| size(&engine, table)).ok_or_else(unknown)
            };
            let sizes = names.as_string::<i32>().iter().map(|name| name.map(answer).transpose());
            return Ok(Arc::new(sizes.collect::<Result<Int64Array>>()?));
        }
        let oids = oids(&arguments[0])?;
        // A relation that is no table keeps nothing.
        let answer = |oid: i64| table_of(&catalog, oid).map_or(0, |table| size(&engine, table));
        let sizes = oids.as_primitive::<Int64Type>().iter().map(|oid| oid.map(answer));
        Ok(Arc::new(sizes.collect::<Int64Array>()))
    })
}

/// Bytes of segments and of rows in memory.
fn size(engine: &Engine, table: &Table) -> i64 {
    i64::try_from(engine.node().table_bytes(table)).unwrap_or(i64::MAX)
}

/// `8192 bytes`, `16 kB`, `12 GB`: rounded half away from zero.
fn pretty(size: i64) -> String {
    if size.abs() < UNIT_MAX {
        return format!("{size} bytes");
    }
    // One bit more than shown, for rounding.
    let (mut half, mut unit) = (size >> 9, 1);
    let rounded = |half: i64| (half + half.signum()) / 2;
    while rounded(half).abs() >= UNIT_MAX && unit + 1 < UNITS.len() {
        half >>= 10;
        unit += 1;
    }
    format!("{} {}", rounded(half), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_pretty() {
        for (size, expected) in [
            (0, "0 bytes"),
            (10_239, "10239 bytes"),
            (10_240, "10 kB"),
            (16_384, "16 kB"),
            (10_485_247, "10239 kB"),
            (10_485_248, "10 MB"),
            (-10_240, "-10 kB"),
            (1 << 40, "1024 GB"),
        ] {
            assert_eq!(pretty(size), expected);
        }
    }
}
