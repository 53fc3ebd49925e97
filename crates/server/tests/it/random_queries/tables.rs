//! What is asked: two reference tables and a table of events, whose values meet often and are sometimes NULL.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Types of columns and of whatever is computed from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    SmallInt,
    Integer,
    BigInt,
    Real,
    Double,
    Numeric,
    Text,
    Boolean,
    Date,
    Instant,
    Interval,
}

impl Kind {
    pub(super) const NUMBERS: [Kind; 6] =
        [Kind::SmallInt, Kind::Integer, Kind::BigInt, Kind::Real, Kind::Double, Kind::Numeric];
    pub(super) const ALL: [Kind; 11] = [
        Kind::SmallInt,
        Kind::Integer,
        Kind::BigInt,
        Kind::Real,
        Kind::Double,
        Kind::Numeric,
        Kind::Text,
        Kind::Boolean,
        Kind::Date,
        Kind::Instant,
        Kind::Interval,
    ];

    pub(super) fn is_number(self) -> bool {
        Kind::NUMBERS.contains(&self)
    }

    pub(super) fn is_integer(self) -> bool {
        matches!(self, Kind::SmallInt | Kind::Integer | Kind::BigInt)
    }

    /// Its name in SQL.
    pub(super) fn sql(self) -> &'static str {
        match self {
            Kind::SmallInt => "smallint",
            Kind::Integer => "integer",
            Kind::BigInt => "bigint",
            Kind::Real => "real",
            Kind::Double => "double precision",
            Kind::Numeric => "numeric(8,3)",
            Kind::Text => "text",
            Kind::Boolean => "boolean",
            Kind::Date => "date",
            Kind::Instant => "timestamptz",
            Kind::Interval => "interval",
        }
    }

    /// Values of it that are stored, as they stand in quotes.
    pub(super) fn values(self) -> &'static [&'static str] {
        match self {
            Kind::SmallInt | Kind::Integer | Kind::BigInt => &["-3", "0", "1", "2", "3", "4", "7"],
            Kind::Real => &["-2.5", "-0", "0", "0.5", "1", "2", "1.005"],
            Kind::Double => &["-2.5", "-0", "0", "0.1", "0.5", "1", "2", "3", "1.005", "1e10"],
            Kind::Numeric => &["-2.5", "0", "0.1", "0.5", "1", "2", "3.000", "1.005", "10.25"],
            Kind::Text => &["", "a", "b", "ab", "A", "b c", "7", "€"],
            Kind::Boolean => &["t", "f"],
            Kind::Date => &["2023-12-31", "2024-01-01", "2024-02-29", "2024-03-01"],
            Kind::Instant => &[
                "2023-12-31 23:59:59+00",
                "2024-01-01 00:00:00+00",
                "2024-01-01 12:30:00+00",
                "2024-02-29 00:00:00+00",
            ],
            Kind::Interval => &["1 day", "24:00:00", "1 mon", "30 days", "00:00:00", "-2 hours"],
        }
    }
}

/// A table that is asked.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
    rows: usize,
    key: &'static str,
}

pub(super) const TABLES: [Table; 3] = [
    Table {
        name: "t",
        columns: &[
            ("id", Kind::Integer),
            ("s", Kind::SmallInt),
            ("k", Kind::Integer),
            ("l", Kind::BigInt),
            ("r", Kind::Real),
            ("f", Kind::Double),
            ("n", Kind::Numeric),
            ("x", Kind::Text),
            ("b", Kind::Boolean),
            ("d", Kind::Date),
            ("z", Kind::Instant),
        ],
        rows: 24,
        key: "PRIMARY KEY",
    },
    Table {
        name: "p",
        columns: &[
            ("id", Kind::Integer),
            ("k", Kind::BigInt),
            ("f", Kind::Double),
            ("n", Kind::Numeric),
            ("x", Kind::Text),
            ("b", Kind::Boolean),
            ("i", Kind::Interval),
        ],
        rows: 9,
        key: "PRIMARY KEY",
    },
    Table {
        name: "e",
        columns: &[
            ("ts", Kind::Instant),
            ("id", Kind::Integer),
            ("k", Kind::Integer),
            ("f", Kind::Double),
            ("n", Kind::Numeric),
            ("x", Kind::Text),
            ("d", Kind::Date),
        ],
        rows: 40,
        key: "NOT NULL",
    },
];

/// What makes the tables.
pub(super) fn statements() -> Vec<String> {
    let mut rng = StdRng::seed_from_u64(0);
    let mut statements = Vec::new();
    for table in &TABLES {
        let column = |(at, (name, kind)): (usize, &(&str, Kind))| {
            let key = if at == 0 { table.key } else { "" };
            format!("{name} {} {key}", kind.sql())
        };
        let columns: Vec<String> = table.columns.iter().enumerate().map(column).collect();
        statements.push(format!("CREATE TABLE {} ({})", table.name, columns.join(", ")));
        let rows: Vec<String> = (0..table.rows).map(|row| values(&mut rng, table, row)).collect();
        statements.push(format!("INSERT INTO {} VALUES {}", table.name, rows.join(", ")));
    }
    statements
}

fn values(rng: &mut StdRng, table: &Table, row: usize) -> String {
    let cell = |(at, (name, kind)): (usize, &(&str, Kind))| {
        if *name == "id" {
            return row.to_string();
        }
        if at > 0 && rng.random_bool(0.15) {
            return "NULL".to_owned();
        }
        format!("'{}'", kind.values().choose(rng).expect("each kind has values"))
    };
    let cells: Vec<String> = table.columns.iter().enumerate().map(cell).collect();
    format!("({})", cells.join(", "))
}
