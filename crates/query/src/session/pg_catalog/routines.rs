//! Annal's own functions as `pg_proc` lists them, beside PostgreSQL's.

use std::sync::Arc;

use arrow::array::{AsArray, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::ScalarUDF;

use super::functions::{oids, udf};
use super::relations::{ANNAL_OID, OWNER_OID, PUBLIC_OID, Row};

/// The first of them; below PostgreSQL's first user oid, after Annal's own views.
const FIRST_ROUTINE_OID: i32 = 16_200;

/// A function as it can be called.
struct Routine {
    schema: i32,
    name: &'static str,
    /// `f` for a function, `a` for an aggregate, as `prokind` has it.
    kind: &'static str,
    result: &'static str,
    arguments: &'static str,
}

const fn function(name: &'static str, result: &'static str, arguments: &'static str) -> Routine {
    Routine { schema: PUBLIC_OID, name, kind: "f", result, arguments }
}

/// In the order they are listed.
const ROUTINES: [Routine; 16] = [
    Routine { schema: ANNAL_OID, name: "compact", kind: "f", result: "void", arguments: "relation text" },
    Routine { schema: ANNAL_OID, name: "flush", kind: "f", result: "void", arguments: "" },
    Routine { schema: ANNAL_OID, name: "join_token", kind: "f", result: "text", arguments: "" },
    Routine {
        schema: ANNAL_OID,
        name: "move_replica",
        kind: "f",
        result: "boolean",
        arguments: "group_id bigint, from_node bigint, to_node bigint",
    },
    Routine { schema: ANNAL_OID, name: "remove_node", kind: "f", result: "boolean", arguments: "node bigint" },
    Routine { schema: ANNAL_OID, name: "scrub", kind: "f", result: "bigint", arguments: "relation text" },
    Routine {
        schema: ANNAL_OID,
        name: "transfer_leader",
        kind: "f",
        result: "boolean",
        arguments: "group_id bigint, node bigint",
    },
    Routine {
        schema: ANNAL_OID,
        name: "manifest",
        kind: "f",
        result: "text",
        arguments: "relation text, hold interval DEFAULT '00:15:00'::interval",
    },
    function("add_retention_policy", "integer", "relation text, drop_after interval"),
    function("remove_retention_policy", "integer", "relation text"),
    function("drop_chunks", "bigint", "relation text, older_than \"any\""),
    Routine {
        schema: PUBLIC_OID,
        name: "first",
        kind: "a",
        result: "anyelement",
        arguments: "value anyelement, \"time\" \"any\"",
    },
    Routine {
        schema: PUBLIC_OID,
        name: "last",
        kind: "a",
        result: "anyelement",
        arguments: "value anyelement, \"time\" \"any\"",
    },
    function("time_bucket", "anyelement", "bucket_width interval, ts anyelement"),
    function("time_bucket", "anyelement", "bucket_width interval, ts anyelement, origin_or_offset_or_timezone \"any\""),
    function("time_bucket", "bigint", "bucket_width bigint, ts bigint, \"offset\" bigint DEFAULT 0"),
];

/// Their rows in `pg_proc`.
pub(super) fn rows() -> Vec<Row> {
    let row = |(oid, routine): (i32, &Routine)| {
        Row::from([
            ("oid", oid.into()),
            ("proname", routine.name.into()),
            ("pronamespace", routine.schema.into()),
            ("proowner", OWNER_OID.into()),
            ("prokind", routine.kind.into()),
            ("provolatile", "v".into()),
            ("proparallel", "s".into()),
        ])
    };
    (FIRST_ROUTINE_OID..).zip(&ROUTINES).map(row).collect()
}

/// What a routine gives and takes, in words.
pub(super) fn descriptions() -> Vec<Arc<ScalarUDF>> {
    let arguments = |routine: &Routine| routine.arguments;
    vec![
        described("pg_get_function_result", |routine| routine.result),
        described("pg_get_function_arguments", arguments),
        described("pg_get_function_identity_arguments", arguments),
    ]
}

fn described(name: &'static str, text: fn(&Routine) -> &'static str) -> Arc<ScalarUDF> {
    udf(name, &[1], DataType::Utf8, move |arguments| {
        let oids = oids(&arguments[0])?;
        let answer = |oid: i64| {
            let at = usize::try_from(oid - i64::from(FIRST_ROUTINE_OID)).ok()?;
            ROUTINES.get(at).map(text)
        };
        let texts = oids.as_primitive::<Int64Type>().iter().map(|oid| oid.and_then(answer));
        Ok(Arc::new(texts.collect::<StringArray>()))
    })
}

/// The role that owns every relation, as `pg_roles` lists it.
pub(super) fn roles(name: &str) -> Vec<Row> {
    let mut row =
        Row::from([("oid", OWNER_OID.into()), ("rolname", name.into()), ("rolconnlimit", ScalarValue::from(-1))]);
    for (flag, value) in [
        ("rolsuper", true),
        ("rolinherit", true),
        ("rolcreaterole", false),
        ("rolcreatedb", false),
        ("rolcanlogin", true),
        ("rolreplication", false),
        ("rolbypassrls", false),
    ] {
        row.insert(flag, value.into());
    }
    vec![row]
}
