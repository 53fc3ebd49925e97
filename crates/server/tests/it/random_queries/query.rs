//! Random queries.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::expression::{self, Column, Scope, condition};
use super::tables::{Kind, TABLES, Table};

/// How deep expressions are nested.
const DEPTH: u32 = 3;

/// The query of a seed.
pub(super) fn random(seed: u64) -> String {
    let mut rng = StdRng::seed_from_u64(seed);
    let rng = &mut rng;
    let mut names = Names::default();
    match rng.random_range(0..12) {
        0 | 1 => grouped(rng, &mut names),
        2 => windowed(rng, &mut names),
        3 => {
            let kinds: Vec<Kind> = (0..rng.random_range(1..4)).map(|_| key_kind(rng)).collect();
            let operation = ["UNION", "UNION ALL", "INTERSECT", "INTERSECT ALL", "EXCEPT", "EXCEPT ALL"];
            let operation = operation.choose(rng).expect("some");
            let (left, right) = (plain(rng, &mut names, &kinds, ""), plain(rng, &mut names, &kinds, ""));
            format!("{left} {operation} {right}")
        }
        4 => {
            let kinds: Vec<Kind> = (0..rng.random_range(1..3)).map(|_| key_kind(rng)).collect();
            plain(rng, &mut names, &kinds, "DISTINCT ")
        }
        5 => ordered(rng, &mut names),
        6 => {
            // WITH, referred to twice.
            let columns = [("a", kind(rng)), ("b", kind(rng)), ("c", Kind::Integer)];
            let kinds = columns.map(|(_, kind)| kind);
            let inner = plain(rng, &mut names, &kinds, "");
            let of = |alias: &str| columns.map(|(name, kind)| Column { name: format!("{alias}.{name}"), kind });
            let both = [of("w1"), of("w2")].concat();
            let scope = Scope { columns: &both, depth: 2, asks: true };
            let (value, filter) = (expression::random(rng, columns[0].1, scope), condition(rng, scope));
            format!(
                "WITH w (a, b, c) AS ({inner}) SELECT w1.b, {value} FROM w AS w1 JOIN w AS w2 ON w1.c = w2.c WHERE {filter}"
            )
        }
        _ => {
            let kinds: Vec<Kind> = (0..rng.random_range(1..5)).map(|_| kind(rng)).collect();
            plain(rng, &mut names, &kinds, "")
        }
    }
}

/// A subquery of one row and column.
pub(super) fn scalar(rng: &mut StdRng, kind: Kind, scope: Scope<'_>) -> String {
    let aggregate = ["max", "min"].choose(rng).expect("two");
    let (from, filter, inner) = correlated(rng, scope);
    let value = expression::random(rng, kind, Scope { columns: &inner, depth: scope.depth.min(1), asks: true });
    format!("(SELECT {aggregate}({value}) FROM {from} WHERE {filter})")
}

/// A subquery of one column, without parentheses.
pub(super) fn of_one_column(rng: &mut StdRng, kind: Kind, scope: Scope<'_>) -> String {
    let (from, filter, inner) = correlated(rng, scope);
    let value = expression::random(rng, kind, Scope { columns: &inner, depth: scope.depth.min(1), asks: true });
    format!("SELECT {value} FROM {from} WHERE {filter}")
}

/// A table, a condition that may refer to what is around it, and the table's columns. Below it nothing refers to what is around.
fn correlated(rng: &mut StdRng, scope: Scope<'_>) -> (String, String, Vec<Column>) {
    let table = TABLES.choose(rng).expect("some");
    let alias = format!("q{}", scope.depth);
    let columns = columns_of(table, &alias);
    let mut filter = condition(rng, Scope { columns: &columns, depth: scope.depth.min(1), asks: true });
    let is_around = |column: &Column| !column.name.starts_with('q');
    // A subquery that gives a value and depends on an interval is refused: docs/roadmap.md.
    let is_key = |column: &Column| is_around(column) && column.kind != Kind::Interval;
    if rng.random_bool(0.6)
        && let Some(outer) = scope.columns.iter().filter(|column| is_key(column)).collect::<Vec<_>>().choose(rng)
        && scope.columns.iter().all(is_around)
    {
        let partners: Vec<&Column> = columns.iter().filter(|column| column.kind == outer.kind).collect();
        if let Some(partner) = partners.choose(rng) {
            let compared = ["=", "=", "=", "<", "<=", ">", "<>"].choose(rng).expect("some");
            filter = format!("{} {compared} {} AND {filter}", partner.name, outer.name);
        }
    }
    (format!("{} AS {alias}", table.name), filter, columns)
}

/// Numbers what is named.
#[derive(Default)]
struct Names(u32);

impl Names {
    fn next(&mut self) -> String {
        self.0 += 1;
        format!("a{}", self.0)
    }
}

fn kind(rng: &mut StdRng) -> Kind {
    *Kind::ALL.choose(rng).expect("some")
}

/// A type of which equal values print alike, but for zeros and digits: which of equal intervals comes out of a group is anybody's choice.
fn key_kind(rng: &mut StdRng) -> Kind {
    Some(kind(rng)).filter(|kind| *kind != Kind::Interval).unwrap_or(Kind::Integer)
}

fn direction(rng: &mut StdRng) -> &'static str {
    ["", " DESC", " NULLS FIRST", " DESC NULLS LAST"].choose(rng).expect("some")
}

/// SELECT of values of these types.
fn plain(rng: &mut StdRng, names: &mut Names, kinds: &[Kind], quantifier: &str) -> String {
    let (from, columns) = from(rng, names);
    let scope = Scope { columns: &columns, depth: DEPTH, asks: true };
    let values: Vec<String> = kinds.iter().map(|kind| expression::random(rng, *kind, scope)).collect();
    let filter = filter(rng, scope);
    format!("SELECT {quantifier}{} FROM {from}{filter}", values.join(", "))
}

/// SELECT with an order of all that it gives, sometimes after something that is computed, under names that columns of its tables have as well.
fn ordered(rng: &mut StdRng, names: &mut Names) -> String {
    let (from, columns) = from(rng, names);
    let scope = Scope { columns: &columns, depth: DEPTH, asks: true };
    let mut values: Vec<String> = (0..rng.random_range(1..4))
        .map(|_| {
            let kind = key_kind(rng);
            expression::random(rng, kind, scope)
        })
        .collect();
    let mut order: Vec<String> = (1..=values.len()).map(|at| format!("{at}{}", direction(rng))).collect();
    if rng.random_bool(0.5) {
        let kind = kind(rng);
        let key = expression::random(rng, kind, Scope { depth: 1, asks: false, ..scope });
        order.splice(..0, depends(&key, &columns).then(|| format!("{key}{}", direction(rng))));
        let taken: BTreeSet<&str> = columns.iter().filter_map(|column| column.name.rsplit('.').next()).collect();
        for (value, name) in values.iter_mut().zip(taken) {
            *value = format!("{value} AS {name}");
        }
    }
    let filter = filter(rng, scope);
    let limit = rng.random_range(0..8);
    let offset = if rng.random_bool(0.3) { " OFFSET 2" } else { "" };
    format!("SELECT {} FROM {from}{filter} ORDER BY {} LIMIT {limit}{offset}", values.join(", "), order.join(", "))
}

/// Whether an expression is no constant, which neither groups nor orders.
fn depends(expression: &str, columns: &[Column]) -> bool {
    columns.iter().any(|column| expression.contains(&column.name))
}

fn filter(rng: &mut StdRng, scope: Scope<'_>) -> String {
    match rng.random_bool(0.7) {
        true => format!(" WHERE {}", condition(rng, scope)),
        false => String::new(),
    }
}

fn aggregate(rng: &mut StdRng, scope: Scope<'_>) -> String {
    let only = match rng.random_bool(0.25) {
        true => format!(" FILTER (WHERE {})", condition(rng, scope)),
        false => String::new(),
    };
    let of = |rng: &mut StdRng, kind: Kind| expression::random(rng, kind, scope);
    let call = match rng.random_range(0..8) {
        0 => "count(*)".to_owned(),
        1 => {
            let kind = kind(rng);
            format!("count({})", of(rng, kind))
        }
        2 => {
            let kind = kind(rng);
            format!("count(DISTINCT {})", of(rng, kind))
        }
        3 => {
            let kind = [Kind::SmallInt, Kind::Integer, Kind::BigInt, Kind::Numeric, Kind::Double];
            let kind = *kind.choose(rng).expect("some");
            format!("sum({})", of(rng, kind))
        }
        4 => {
            let kind = [Kind::Integer, Kind::Numeric, Kind::Double];
            let kind = *kind.choose(rng).expect("some");
            format!("avg({})", of(rng, kind))
        }
        5 => format!("bool_or({})", of(rng, Kind::Boolean)),
        6 => {
            let value = of(rng, Kind::Text);
            format!("string_agg({value}, ',' ORDER BY {value})")
        }
        _ => {
            let kinds: Vec<Kind> =
                Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Boolean | Kind::Interval)).collect();
            let kind = *kinds.choose(rng).expect("some");
            let name = ["min", "max"].choose(rng).expect("two");
            format!("{name}({})", of(rng, kind))
        }
    };
    format!("{call}{only}")
}

fn grouped(rng: &mut StdRng, names: &mut Names) -> String {
    let (from, columns) = from(rng, names);
    let scope = Scope { columns: &columns, depth: 2, asks: true };
    let keys = rng.random_range(0..3);
    let mut values: Vec<String> = (0..keys)
        .map(|_| {
            let kind = key_kind(rng);
            expression::random(rng, kind, Scope { depth: 1, ..scope })
        })
        .collect();
    // A subquery alone in the parentheses of ROLLUP is refused: docs/roadmap.md.
    let may_be_in_set = |key: &String| depends(key, &columns) && !key.contains("SELECT");
    let sets = keys > 0 && rng.random_bool(0.3) && values.iter().all(may_be_in_set);
    let group = match keys {
        0 => String::new(),
        _ if sets => {
            let all = values.join(", ");
            let sets = ["ROLLUP", "CUBE", "GROUPING SETS"].choose(rng).expect("three");
            values.push(format!("grouping({all})"));
            format!(" GROUP BY {sets} ({all})")
        }
        keys => format!(" GROUP BY {}", (1..=keys).map(|key| key.to_string()).collect::<Vec<_>>().join(", ")),
    };
    values.extend((0..rng.random_range(1..4)).map(|_| aggregate(rng, scope)));
    let having = if rng.random_bool(0.25) { " HAVING count(*) > 1" } else { "" };
    let filter = filter(rng, scope);
    format!("SELECT {} FROM {from}{filter}{group}{having}", values.join(", "))
}

fn windowed(rng: &mut StdRng, names: &mut Names) -> String {
    let (from, columns) = from(rng, names);
    let scope = Scope { columns: &columns, depth: 1, asks: true };
    let of = |rng: &mut StdRng, kind: Kind| expression::random(rng, kind, scope);
    let (part, key, value) =
        (kind(rng), kind(rng), *[Kind::Integer, Kind::Numeric, Kind::Double].choose(rng).expect("some"));
    let partition = format!("PARTITION BY {}", of(rng, part));
    let order = format!("ORDER BY {}{}", of(rng, key), direction(rng));
    let value = of(rng, value);
    // Rows that are equal in the order come in any, so only what is the same for them is asked.
    let calls = [
        format!("rank() OVER ({partition} {order})"),
        format!("dense_rank() OVER ({order})"),
        format!("count(*) OVER ({partition})"),
        format!("sum({value}) OVER ({partition} {order})"),
        format!("max({value}) OVER ({partition})"),
        format!("min({value}) OVER ({order})"),
        format!("avg({value}) OVER ({partition})"),
        format!("count({value}) OVER ({partition} {order} RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"),
    ];
    let chosen: Vec<&str> = calls.choose_multiple(rng, 3).map(String::as_str).collect();
    let filter = filter(rng, Scope { depth: 2, ..scope });
    format!("SELECT {} FROM {from}{filter}", chosen.join(", "))
}

/// One table or several, and the columns that are in sight then.
fn from(rng: &mut StdRng, names: &mut Names) -> (String, Vec<Column>) {
    let (mut from, mut columns) = table(rng, names);
    for joined in 0..[0, 0, 1, 1, 2].choose(rng).copied().expect("some") {
        let (right, of_right) = table(rng, names);
        let kind = ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN LATERAL"].choose(rng).expect("some");
        // Several of them beside a subquery that is a value are refused: docs/roadmap.md.
        if *kind == "CROSS JOIN LATERAL" && joined > 0 {
            continue;
        }
        if *kind == "CROSS JOIN LATERAL" {
            let (lateral, of_lateral) = lateral(rng, names, &columns);
            from = format!("{from} CROSS JOIN LATERAL {lateral}");
            columns.extend(of_lateral);
            continue;
        }
        let mut on = equality(rng, &columns, &of_right);
        let both = [columns.as_slice(), &of_right].concat();
        // PostgreSQL makes full joins of equalities only, and Annal no outer join of a subquery that looks at both sides.
        if *kind != "FULL JOIN" && rng.random_bool(0.4) {
            let asks = *kind == "JOIN";
            on = format!("{on} AND {}", condition(rng, Scope { columns: &both, depth: 1, asks }));
        }
        from = format!("{from} {kind} {right} ON {on}");
        columns = both;
    }
    (from, columns)
}

/// `left = right` of two columns of one type.
fn equality(rng: &mut StdRng, left: &[Column], right: &[Column]) -> String {
    let pairs: Vec<String> = left
        .iter()
        .flat_map(|one| {
            right.iter().filter(|other| other.kind == one.kind).map(|other| format!("{} = {}", one.name, other.name))
        })
        .collect();
    pairs.choose(rng).cloned().expect("all tables have an integer")
}

fn table(rng: &mut StdRng, names: &mut Names) -> (String, Vec<Column>) {
    let alias = names.next();
    if rng.random_bool(0.2) {
        return derived(rng, &alias);
    }
    let table = TABLES.choose(rng).expect("some");
    (format!("{} AS {alias}", table.name), columns_of(table, &alias))
}

/// The columns of a table that is called by that name.
fn columns_of(table: &Table, alias: &str) -> Vec<Column> {
    table.columns.iter().map(|(name, kind)| Column { name: format!("{alias}.{name}"), kind: *kind }).collect()
}

/// A subquery in FROM.
fn derived(rng: &mut StdRng, alias: &str) -> (String, Vec<Column>) {
    let inner_alias = format!("{alias}i");
    let table = TABLES.choose(rng).expect("some");
    let inner = columns_of(table, &inner_alias);
    let scope = Scope { columns: &inner, depth: 1, asks: true };
    let kinds = [Kind::Integer, kind(rng), kind(rng)];
    let values: Vec<String> = kinds
        .iter()
        .enumerate()
        .map(|(at, kind)| format!("{} AS c{at}", expression::random(rng, *kind, scope)))
        .collect();
    let filter = filter(rng, scope);
    let columns = kinds.iter().enumerate().map(|(at, kind)| Column { name: format!("{alias}.c{at}"), kind: *kind });
    (
        format!("(SELECT {} FROM {} AS {inner_alias}{filter}) AS {alias}", values.join(", "), table.name),
        columns.collect(),
    )
}

/// A subquery in FROM that refers to the tables before it.
fn lateral(rng: &mut StdRng, names: &mut Names, before: &[Column]) -> (String, Vec<Column>) {
    let alias = names.next();
    let (inner_alias, table) = (format!("{alias}i"), TABLES.choose(rng).expect("some"));
    let inner = columns_of(table, &inner_alias);
    let scope = Scope { columns: &inner, depth: 1, asks: true };
    let (first, second) = (kind(rng), Kind::Integer);
    let (value, other) = (expression::random(rng, first, scope), expression::random(rng, second, scope));
    let on = equality(rng, &inner, before);
    let columns =
        vec![Column { name: format!("{alias}.c0"), kind: first }, Column { name: format!("{alias}.c1"), kind: second }];
    (
        format!("(SELECT {value} AS c0, {other} AS c1 FROM {} AS {inner_alias} WHERE {on}) AS {alias}", table.name),
        columns,
    )
}
