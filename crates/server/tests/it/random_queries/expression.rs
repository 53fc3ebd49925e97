//! Random expressions of a wanted type over the columns in sight. They compute small numbers, and nothing that may fail for a row.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::query;
use super::tables::Kind;

/// A column in sight, by the name of its table.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// What an expression may refer to, and how deep it may go.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) columns: &'a [Column],
    pub(super) depth: u32,
    /// Whether it may ask other tables.
    pub(super) asks: bool,
}

impl Scope<'_> {
    fn deeper(self) -> Self {
        Scope { depth: self.depth - 1, ..self }
    }
}

/// An expression of that type.
pub(super) fn random(rng: &mut StdRng, kind: Kind, scope: Scope<'_>) -> String {
    if scope.depth == 0 || rng.random_bool(0.3) {
        return leaf(rng, kind, scope);
    }
    let inner = scope.deeper();
    match rng.random_range(0..10) {
        0 => format!("coalesce({}, {})", random(rng, kind, inner), random(rng, kind, inner)),
        1 => format!("nullif({}, {})", random(rng, kind, inner), random(rng, kind, inner)),
        2 => format!(
            "CASE WHEN {} THEN {} ELSE {} END",
            condition(rng, inner),
            random(rng, kind, inner),
            random(rng, kind, inner)
        ),
        3 if kind != Kind::Boolean => {
            let function = ["greatest", "least"].choose(rng).expect("two");
            format!("{function}({}, {})", random(rng, kind, inner), random(rng, kind, inner))
        }
        4 if scope.asks && !matches!(kind, Kind::Boolean | Kind::Interval) => query::scalar(rng, kind, inner),
        5 => {
            let value = *Kind::ALL.choose(rng).expect("some");
            format!(
                "CASE {} WHEN {} THEN {} END",
                random(rng, value, inner),
                random(rng, value, inner),
                random(rng, kind, inner)
            )
        }
        _ => own(rng, kind, inner),
    }
}

/// A condition.
pub(super) fn condition(rng: &mut StdRng, scope: Scope<'_>) -> String {
    random(rng, Kind::Boolean, scope)
}

/// A column, or else a literal.
fn leaf(rng: &mut StdRng, kind: Kind, scope: Scope<'_>) -> String {
    let columns: Vec<&Column> = scope.columns.iter().filter(|column| column.kind == kind).collect();
    match columns.choose(rng) {
        Some(column) if rng.random_bool(0.8) => column.name.clone(),
        _ => literal(rng, kind),
    }
}

fn literal(rng: &mut StdRng, kind: Kind) -> String {
    let value = kind.values().choose(rng).expect("each kind has values");
    let is_plain = matches!(kind, Kind::Integer | Kind::Numeric) && !value.starts_with('-');
    match is_plain && (kind == Kind::Integer || value.contains('.')) {
        true => (*value).to_owned(),
        false => format!("'{value}'::{}", kind.sql()),
    }
}

/// What only values of this type have.
fn own(rng: &mut StdRng, kind: Kind, scope: Scope<'_>) -> String {
    match kind {
        Kind::Boolean => comparison(rng, scope),
        Kind::Text => text(rng, scope),
        Kind::Date => format!("({} + {})", random(rng, kind, scope), leaf(rng, Kind::Integer, scope)),
        Kind::Instant => match rng.random_bool(0.5) {
            true => format!("({} + {})", random(rng, kind, scope), leaf(rng, Kind::Interval, scope)),
            false => format!("date_trunc('day', {})", random(rng, kind, scope)),
        },
        Kind::Interval => match rng.random_bool(0.5) {
            true => format!("({} + {})", leaf(rng, kind, scope), leaf(rng, kind, scope)),
            false => format!("({} - {})", random(rng, Kind::Instant, scope), leaf(rng, Kind::Instant, scope)),
        },
        number => arithmetic(rng, number, scope),
    }
}

fn arithmetic(rng: &mut StdRng, kind: Kind, scope: Scope<'_>) -> String {
    match rng.random_range(0..8) {
        0 => format!("(-{})", random(rng, kind, scope)),
        1 => format!("abs({})", random(rng, kind, scope)),
        2 => format!("({} * {})", leaf(rng, kind, scope), leaf(rng, kind, scope)),
        3 if kind.is_integer() || kind == Kind::Numeric => {
            format!("({} % nullif({}, 0))", random(rng, kind, scope), leaf(rng, kind, scope))
        }
        3 | 4 => format!("({} / nullif({}, 0))", random(rng, kind, scope), leaf(rng, kind, scope)),
        5 if kind == Kind::Integer => format!("length({})", random(rng, Kind::Text, scope)),
        5 if kind == Kind::Numeric => format!("round({}, 1)", random(rng, kind, scope)),
        5 if kind == Kind::Double => {
            let narrower = *[Kind::Integer, Kind::Real, Kind::Numeric].choose(rng).expect("some");
            format!("({})::double precision", random(rng, narrower, scope))
        }
        5 if kind == Kind::BigInt => format!("({})::bigint", random(rng, Kind::Integer, scope)),
        6 if kind == Kind::Double => {
            let beside = *Kind::NUMBERS.choose(rng).expect("some");
            format!("({} + {})", leaf(rng, beside, scope), leaf(rng, kind, scope))
        }
        6 if kind == Kind::Numeric => format!("({} - {})", leaf(rng, Kind::Integer, scope), leaf(rng, kind, scope)),
        _ => {
            let op = ["+", "-"].choose(rng).expect("two");
            format!("({} {op} {})", random(rng, kind, scope), random(rng, kind, scope))
        }
    }
}

fn text(rng: &mut StdRng, scope: Scope<'_>) -> String {
    match rng.random_range(0..6) {
        0 => format!("upper({})", random(rng, Kind::Text, scope)),
        1 => format!("substr({}, 1, 1)", random(rng, Kind::Text, scope)),
        2 => format!("({})::text", random(rng, Kind::Integer, scope)),
        3 => format!("concat({}, {})", leaf(rng, Kind::Text, scope), leaf(rng, Kind::Boolean, scope)),
        4 => format!("replace({}, 'a', {})", leaf(rng, Kind::Text, scope), leaf(rng, Kind::Text, scope)),
        _ => format!("({} || {})", leaf(rng, Kind::Text, scope), random(rng, Kind::Text, scope)),
    }
}

/// A value and another that it is compared with.
fn pair(rng: &mut StdRng, scope: Scope<'_>) -> (Kind, String, Kind, String) {
    let kind = *Kind::ALL.choose(rng).expect("some");
    let beside = match kind.is_number() && rng.random_bool(0.5) {
        true => *Kind::NUMBERS.choose(rng).expect("some"),
        false => kind,
    };
    (kind, random(rng, kind, scope), beside, random(rng, beside, scope))
}

fn comparison(rng: &mut StdRng, scope: Scope<'_>) -> String {
    let not = if rng.random_bool(0.3) { "NOT " } else { "" };
    match rng.random_range(0..13) {
        0 => format!("({} AND {})", condition(rng, scope), condition(rng, scope)),
        1 => format!("({} OR {})", condition(rng, scope), condition(rng, scope)),
        2 => format!("(NOT {})", condition(rng, scope)),
        3 => {
            let kind = *Kind::ALL.choose(rng).expect("some");
            format!("({} IS {not}NULL)", random(rng, kind, scope))
        }
        4 => {
            let truth = ["TRUE", "FALSE", "UNKNOWN"].choose(rng).expect("three");
            format!("({} IS {not}{truth})", condition(rng, scope))
        }
        5 => {
            let (_, left, _, right) = pair(rng, scope);
            format!("({left} IS {not}DISTINCT FROM {right})")
        }
        6 => {
            let (kind, left, beside, right) = pair(rng, scope);
            let kind = if rng.random_bool(0.5) { kind } else { beside };
            format!("({left} {not}BETWEEN {} AND {right})", leaf(rng, kind, scope))
        }
        7 => {
            let (_, left, beside, right) = pair(rng, scope);
            let null = if rng.random_bool(0.2) { ", NULL" } else { "" };
            // Not first: a list that begins with a subquery is refused: docs/roadmap.md.
            format!("({left} {not}IN ({}, {}, {right}{null}))", literal(rng, beside), literal(rng, beside))
        }
        8 if scope.asks => {
            let kind = *Kind::ALL.choose(rng).expect("some");
            format!("({} {not}IN ({}))", random(rng, kind, scope), query::of_one_column(rng, kind, scope))
        }
        9 if scope.asks => format!("{not}EXISTS ({})", query::of_one_column(rng, Kind::Integer, scope)),
        10 => {
            let kind = *Kind::ALL.choose(rng).expect("some");
            let op = ["=", "<>", "<", ">="].choose(rng).expect("some");
            let quantifier = ["ANY", "ALL"].choose(rng).expect("two");
            let rows = match !scope.asks || kind != Kind::Interval && rng.random_bool(0.5) {
                true => format!("ARRAY[{}, {}]", leaf(rng, kind, scope), leaf(rng, kind, scope)),
                false => query::of_one_column(rng, kind, scope),
            };
            format!("({} {op} {quantifier} ({rows}))", random(rng, kind, scope))
        }
        11 => {
            let pattern = ["'a%'", "'%b%'", "'_'", "''"].choose(rng).expect("some");
            let like = ["LIKE", "ILIKE"].choose(rng).expect("two");
            format!("({} {not}{like} {pattern})", random(rng, Kind::Text, scope))
        }
        _ => {
            let (_, left, _, right) = pair(rng, scope);
            let op = ["=", "<>", "<", "<=", ">", ">="].choose(rng).expect("some");
            format!("({left} {op} {right})")
        }
    }
}
