//! `CREATE TABLE name (LIKE other [INCLUDING ...] [, ...])`: the columns of another table, spelled out.
//!
//! The clause is taken out of the tokens, for the stock parser knows it alone in its parentheses; the other table's name is kept in the
//! tree.

use datafusion::sql::sqlparser::ast::{
    CreateTable, CreateTableLike, CreateTableLikeKind, CreateTableOptions, Ident, ObjectName, Statement as Ast,
};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use event::{Column, ColumnType, Compression, Dedup, IdentityKind, Modifier, TableDefinition};

use super::ddl::relation;
use super::keys::quoted;
use super::words::{is_word, significant};
use super::{Session, statement};
use crate::error::{Condition, Error};

/// What is taken over besides names, types and NOT NULL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Included {
    defaults: bool,
    constraints: bool,
    identity: bool,
    keys: bool,
    options: bool,
}

/// The clause as it was written.
pub(super) struct Like {
    name: ObjectName,
    included: Included,
}

impl Like {
    /// Puts the name into the tree; what is included.
    pub(super) fn give_to(self, ast: &mut Ast) -> Option<Included> {
        let Ast::CreateTable(create) = ast else { return None };
        let like = CreateTableLike { name: self.name, defaults: None };
        create.like = Some(CreateTableLikeKind::Parenthesized(like));
        Some(self.included)
    }
}

/// Takes the clause out of the tokens of a CREATE TABLE; `None` when there is none at the beginning of its list.
pub(super) fn take(tokens: &mut Vec<TokenWithSpan>) -> Option<Like> {
    let significant = significant(tokens);
    let says = |at: usize, word: &str| significant.get(at).is_some_and(|at| is_word(&tokens[*at].token, word));
    if !says(0, "CREATE") {
        return None;
    }
    let open = significant.iter().position(|at| tokens[*at].token == Token::LParen)?;
    if !says(open + 1, "LIKE") || !(1..open).any(|at| says(at, "TABLE")) {
        return None;
    }
    let token = |at: usize| significant.get(at).map(|at| &tokens[*at].token);
    let mut at = open + 2;
    let mut name = Vec::new();
    loop {
        let Some(Token::Word(word)) = token(at) else { return None };
        name.push(match word.quote_style {
            Some(quote) => Ident::with_quote(quote, &word.value),
            None => Ident::new(&word.value),
        });
        at += 1;
        match token(at) {
            Some(Token::Period) => at += 1,
            _ => break,
        }
    }
    let mut included = Included::default();
    while says(at, "INCLUDING") || says(at, "EXCLUDING") {
        let Some(Token::Word(what)) = token(at + 1) else { return None };
        included.set(&what.value, says(at, "INCLUDING"))?;
        at += 2;
    }
    let end = match token(at) {
        Some(Token::Comma) => at + 1,
        Some(Token::RParen) => at,
        _ => return None,
    };
    let (from, to) = (significant[open + 1], *significant.get(end)?);
    tokens.drain(from..to);
    Some(Like { name: ObjectName::from(name), included })
}

impl Included {
    fn set(&mut self, what: &str, given: bool) -> Option<()> {
        match what.to_ascii_uppercase().as_str() {
            "DEFAULTS" => self.defaults = given,
            "CONSTRAINTS" => self.constraints = given,
            "IDENTITY" => self.identity = given,
            "INDEXES" => self.keys = given,
            "STORAGE" => self.options = given,
            // No table has them.
            "COMMENTS" | "COMPRESSION" | "GENERATED" | "STATISTICS" => {}
            "ALL" => {
                *self = Included { defaults: given, constraints: given, identity: given, keys: given, options: given };
            }
            _ => return None,
        }
        Some(())
    }
}

impl Session {
    /// The statement with the columns of the table it names in LIKE.
    ///
    /// # Errors
    /// 42P01, 0A000 for numbers that PostgreSQL would share with the other table.
    pub(super) async fn spelled_out(&self, create: &CreateTable, included: Included) -> Result<CreateTable, Error> {
        let Some(CreateTableLikeKind::Parenthesized(like)) = &create.like else { return Ok(create.clone()) };
        let table = self.table(&relation(&like.name)?)?;
        let text = written(&table.definition, included)?;
        // Parsing takes much stack; the caller's is deep already.
        let parsed = self.engine().work(async move { Ok(statement::parse(&text)) });
        let parsed = parsed.await.map_err(|error| Error::report(Condition::Internal, error.to_string()))??;
        let Some(Ast::CreateTable(other)) = parsed.first().and_then(|statement| statement.ast.as_deref()) else {
            return Err(Error::report(Condition::Internal, "a table's definition cannot be written"));
        };
        let mut spelled = create.clone();
        spelled.like = None;
        spelled.columns.splice(0..0, other.columns.clone());
        spelled.constraints.splice(0..0, other.constraints.clone());
        if spelled.table_options == CreateTableOptions::None {
            spelled.table_options = other.table_options.clone();
        }
        Ok(spelled)
    }
}

/// A CREATE TABLE of the same columns.
fn written(table: &TableDefinition, included: Included) -> Result<String, Error> {
    let mut items = Vec::new();
    for column in &table.columns {
        items.push(column_text(column, included)?);
    }
    if included.constraints {
        items.extend(
            table.checks.iter().map(|check| format!("CONSTRAINT {} CHECK ({})", quoted(&check.name), check.expression)),
        );
    }
    let names = |positions: &[usize]| {
        positions.iter().map(|at| quoted(&table.columns[*at].name)).collect::<Vec<_>>().join(", ")
    };
    if included.keys {
        if !table.primary_key.is_empty() {
            items.push(format!("PRIMARY KEY ({})", names(&table.primary_key)));
        }
        items.extend(table.unique.iter().map(|key| format!("UNIQUE ({})", names(&key.columns))));
    }
    let options = if included.options { options_text(table, included) } else { String::new() };
    Ok(format!("CREATE TABLE x ({}) {options}", items.join(", ")))
}

fn column_text(column: &Column, included: Included) -> Result<String, Error> {
    let mut text = format!("{} {}", quoted(&column.name), declared_type(column));
    if !column.takes_null() {
        text.push_str(" NOT NULL");
    }
    match column.identity.map(|identity| (identity.kind, identity.start)) {
        Some((IdentityKind::Serial, _)) if included.defaults => {
            let message = format!("the numbers of column \"{}\" cannot be shared with another table", column.name);
            let hint = "Leave INCLUDING DEFAULTS and ALL out, or name what is to be included.";
            return Err(Error::hinted(Condition::FeatureNotSupported, message, hint));
        }
        Some((kind @ (IdentityKind::Always | IdentityKind::ByDefault), start)) if included.identity => {
            let word = if kind == IdentityKind::Always { "ALWAYS" } else { "BY DEFAULT" };
            text.push_str(&format!(" GENERATED {word} AS IDENTITY (START WITH {start})"));
        }
        _ => {}
    }
    if let Some(default) = column.default.as_ref().filter(|_| included.defaults) {
        text.push_str(&format!(" DEFAULT {default}"));
    }
    Ok(text)
}

/// The type with its length or precision.
pub(super) fn declared_type(column: &Column) -> String {
    let (scalar, array) = match column.column_type {
        ColumnType::Array(element) => (element.get(), "[]"),
        other => (other, ""),
    };
    let name = match (scalar, column.modifier) {
        (_, Some(Modifier::Varchar { length: Some(length) })) => format!("varchar({length})"),
        (_, Some(Modifier::Varchar { length: None })) => "varchar".to_owned(),
        (ColumnType::Timestamp, Some(Modifier::Fraction { digits })) => format!("timestamp({digits})"),
        (ColumnType::TimestampTz, Some(Modifier::Fraction { digits })) => format!("timestamptz({digits})"),
        (ColumnType::Time, Some(Modifier::Fraction { digits })) => format!("time({digits})"),
        (scalar, _) => scalar.to_string(),
    };
    format!("{name}{array}")
}

/// WITH, as the table has its options; those that need its keys only with them.
fn options_text(table: &TableDefinition, included: Included) -> String {
    let names = |positions: &[usize]| {
        positions.iter().map(|at| table.columns[*at].name.replace('\'', "''")).collect::<Vec<_>>().join(",")
    };
    let mut options = vec![format!("consistency = '{}'", table.consistency.name())];
    options.push(format!("replicas = {}", table.replicas.count()));
    options.push(match table.compression {
        Compression::Zstd => "compression = 'zstd'".to_owned(),
        Compression::Lz4 => "compression = 'lz4'".to_owned(),
        Compression::Snappy => "compression = 'snappy'".to_owned(),
        Compression::None => "compression = 'none'".to_owned(),
    });
    if let Some(event) = table.event() {
        options.push(format!("time_column = '{}'", names(&[event.time_column])));
        options.push(format!("split_interval = '{} us'", event.split_interval_us));
        options.extend(event.retention_us.map(|us| format!("retention = '{us} us'")));
        match event.dedup {
            Dedup::First if included.keys => options.push("dedup = 'first'".to_owned()),
            Dedup::Last if included.keys => options.push("dedup = 'last'".to_owned()),
            // With `dedup` the key says the series.
            _ if !event.series.is_empty() => options.push(format!("series = '{}'", names(&event.series))),
            _ => {}
        }
        if !event.sharding.is_single() {
            options.push(format!("shards = {}", event.sharding.shards));
            options.push(format!("shard_by = '{}'", names(&event.sharding.by)));
        }
    }
    format!("WITH ({})", options.join(", "))
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn check(sql: &str, expected: Option<(&str, &str, Included)>) {
        let mut tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize_with_location().unwrap();
        let taken = take(&mut tokens);
        let left: String = tokens.iter().map(|token| token.token.to_string()).collect();
        let taken = taken.map(|like| (left, like.name.to_string(), like.included));
        let expected = expected.map(|(left, name, included)| (left.to_owned(), name.to_owned(), included));
        assert_eq!(taken, expected, "{sql}");
    }

    #[test]
    fn the_clause_is_taken_out() {
        let all = Included { defaults: true, constraints: true, identity: true, keys: true, options: true };
        check("CREATE TABLE a (LIKE b)", Some(("CREATE TABLE a ()", "b", Included::default())));
        check("CREATE TABLE a (LIKE s.\"B\" INCLUDING ALL)", Some(("CREATE TABLE a ()", "s.\"B\"", all)));
        check(
            "CREATE TABLE a (LIKE b INCLUDING ALL EXCLUDING DEFAULTS, c int)",
            Some(("CREATE TABLE a (c int)", "b", Included { defaults: false, ..all })),
        );
        check("CREATE TABLE a (b int, LIKE c)", None);
        check("CREATE TABLE a (LIKE b INCLUDING NOTHING)", None);
        check("CREATE VIEW v AS SELECT (LIKE)", None);
    }
}
