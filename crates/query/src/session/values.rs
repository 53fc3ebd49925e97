//! `INSERT … VALUES` of nothing but constants, read from the statement's text straight into columns.
//!
//! Tokens and a syntax tree of a thousand rows cost more than the rows. [`scan`] recognises the plain case by one pass over the bytes and
//! remembers where each constant stands; everything else (expressions, parameters, comments, clauses after the rows, a wrong number of
//! values) it leaves to the parser, whose answer must be the same. The head of the statement is parsed as always.

use std::borrow::Cow;

use arrow::array::ArrayRef;
use event::TableDefinition;

use super::defaults::DefaultValue;
use super::insert::{add_value, fitting};
use crate::error::Error;
use crate::text::{ColumnBuilder, Zone};

/// The rows of a statement, as places in its text.
#[derive(Debug)]
pub(crate) struct ConstantRows {
    /// Values of each row.
    width: usize,
    /// Row by row.
    cells: Vec<Cell>,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    kind: Kind,
    from: u32,
    to: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Default,
    Boolean,
    Number,
    /// What stands between quotes.
    Text,
    /// The same, with doubled quotes in it.
    Quoted,
}

/// What a plain INSERT consists of.
pub(crate) struct Scanned {
    /// Bytes before `VALUES`.
    pub(crate) head: usize,
    /// Bytes up to the end of the last row.
    pub(crate) end: usize,
    /// The rows; their places count from the first byte scanned.
    pub(crate) rows: ConstantRows,
}

/// Recognises `INSERT INTO name [(columns)] VALUES (constant, …), …` as the whole of `sql`, up to a semicolon. `sql` begins with its first
/// word.
pub(crate) fn scan(sql: &str) -> Option<Scanned> {
    u32::try_from(sql.len()).ok()?;
    let mut cursor = Cursor { bytes: sql.as_bytes(), at: 0 };
    cursor.word("INSERT")?;
    cursor.word("INTO")?;
    cursor.name()?;
    while cursor.take(b'.') {
        cursor.name()?;
    }
    if cursor.take(b'(') {
        cursor.name()?;
        while cursor.take(b',') {
            cursor.name()?;
        }
        cursor.expect(b')')?;
    }
    let head = cursor.at;
    cursor.word("VALUES")?;
    let (mut cells, mut width, mut end) = (Vec::new(), None, cursor.at);
    loop {
        let before = cells.len();
        cursor.expect(b'(')?;
        cells.push(cursor.cell()?);
        while cursor.take(b',') {
            cells.push(cursor.cell()?);
        }
        cursor.expect(b')')?;
        if *width.get_or_insert(cells.len() - before) != cells.len() - before {
            return None;
        }
        end = end.max(cursor.at);
        if !cursor.take(b',') {
            break;
        }
    }
    let semicolon = cursor.take(b';');
    cursor.blank();
    debug_assert!(semicolon || cursor.at >= end);
    let rows = ConstantRows { width: width?, cells };
    (cursor.at == cursor.bytes.len()).then_some(Scanned { head, end, rows })
}

impl ConstantRows {
    /// Values of each row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub(crate) fn len(&self) -> usize {
        self.cells.len() / self.width
    }

    /// Whether some row says DEFAULT at `at`.
    pub(crate) fn says_default(&self, at: usize) -> bool {
        self.column(at).any(|cell| cell.kind == Kind::Default)
    }

    /// Whether every row says DEFAULT at `at`.
    pub(crate) fn says_only_default(&self, at: usize) -> bool {
        self.column(at).all(|cell| cell.kind == Kind::Default)
    }

    fn column(&self, at: usize) -> impl Iterator<Item = &Cell> {
        self.cells[at..].iter().step_by(self.width)
    }

    /// The values at `at` of each row, as the table's column at `position`. `text` is what was scanned.
    ///
    /// # Errors
    /// 22xxx for a value that does not fit its column.
    pub(crate) fn read(
        &self,
        at: usize,
        text: &str,
        definition: &TableDefinition,
        position: usize,
        defaults: &[DefaultValue],
        zone: Zone,
    ) -> Result<ArrayRef, Error> {
        let column = &definition.columns[position];
        let mut builder = ColumnBuilder::of(column, zone, self.len());
        for cell in self.column(at) {
            let written = &text[cell.from as usize..cell.to as usize];
            match cell.kind {
                Kind::Null => builder.append_null(),
                Kind::Default => add_value(&mut builder, &defaults[position].one(column)?, column, zone)?,
                Kind::Boolean => builder.append_text(&written.to_ascii_lowercase())?,
                Kind::Number => builder.append_text(&fitting(Cow::Borrowed(written), column.column_type))?,
                Kind::Text => builder.append_text(written)?,
                Kind::Quoted => builder.append_text(&written.replace("''", "'"))?,
            }
        }
        Ok(builder.finish())
    }
}

struct Cursor<'s> {
    bytes: &'s [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn blank(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    /// Takes `byte` and the blanks around it, if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        self.blank();
        let found = self.peek() == byte;
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.take(byte).then_some(())
    }

    /// A keyword, with what ends it still to come.
    fn word(&mut self, word: &str) -> Option<()> {
        self.blank();
        let found = self.bytes.get(self.at..self.at + word.len())?;
        if !found.eq_ignore_ascii_case(word.as_bytes()) {
            return None;
        }
        self.at += word.len();
        (!is_name_byte(self.peek())).then_some(())
    }

    /// A name, quoted or not.
    fn name(&mut self) -> Option<()> {
        self.blank();
        if self.peek() == b'"' {
            self.at += 1;
            self.quoted(b'"')?;
            return Some(());
        }
        let begin = self.at;
        while is_name_byte(self.peek()) {
            self.at += 1;
        }
        (self.at > begin && !self.bytes[begin].is_ascii_digit()).then_some(())
    }

    /// Up to and beyond the closing `quote`; whether doubled ones were passed.
    fn quoted(&mut self, quote: u8) -> Option<bool> {
        let mut doubled = false;
        loop {
            self.at += self.bytes[self.at..].iter().position(|byte| *byte == quote)? + 1;
            if self.peek() != quote {
                return Some(doubled);
            }
            self.at += 1;
            doubled = true;
        }
    }

    fn cell(&mut self) -> Option<Cell> {
        self.blank();
        let begin = self.at;
        let (kind, from, to) = match self.peek() {
            b'\'' => {
                self.at += 1;
                let doubled = self.quoted(b'\'')?;
                (if doubled { Kind::Quoted } else { Kind::Text }, begin + 1, self.at - 1)
            }
            b'0'..=b'9' => (self.number()?, begin, self.at),
            sign @ (b'-' | b'+') => {
                self.at += 1;
                // The sign of plus is not part of the number.
                (self.number()?, begin + usize::from(sign == b'+'), self.at)
            }
            b'n' | b'N' => (self.constant("NULL", Kind::Null)?, begin, self.at),
            b't' | b'T' => (self.constant("TRUE", Kind::Boolean)?, begin, self.at),
            b'f' | b'F' => (self.constant("FALSE", Kind::Boolean)?, begin, self.at),
            b'd' | b'D' => (self.constant("DEFAULT", Kind::Default)?, begin, self.at),
            _ => return None,
        };
        self.blank();
        // Whatever else follows makes an expression of it.
        matches!(self.peek(), b',' | b')').then_some(())?;
        Some(Cell { kind, from: u32::try_from(from).ok()?, to: u32::try_from(to).ok()? })
    }

    fn constant(&mut self, word: &str, kind: Kind) -> Option<Kind> {
        self.word(word)?;
        Some(kind)
    }

    /// `12`, `1.5`, `1e-3`; not `.5`, `5.` or `0x1f`.
    fn number(&mut self) -> Option<Kind> {
        self.digits()?;
        if self.peek() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), b'-' | b'+'));
            self.digits()?;
        }
        (!is_name_byte(self.peek())).then_some(Kind::Number)
    }

    fn digits(&mut self) -> Option<()> {
        let begin = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        (self.at > begin).then_some(())
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::record_batch::RecordBatch;
    use cluster::Table;
    use datafusion::sql::sqlparser::ast::Statement as Ast;
    use event::{Column, ColumnId, ColumnType, Compression, SchemaVersion, TableId, TableKind};
    use proptest::prelude::*;

    use super::super::insert::{self, InsertPlan, Source};
    use super::super::statement::{Statement, parse, parse_whole};
    use super::*;

    fn table() -> Arc<Table> {
        let types =
            [ColumnType::Integer, ColumnType::Text, ColumnType::Double, ColumnType::TimestampTz, ColumnType::Boolean];
        let column = |(number, column_type): (usize, ColumnType)| Column {
            identity: None,
            modifier: None,
            required: false,
            initial: None,
            stored: None,
            id: ColumnId(number as u32 + 1),
            name: format!("c{number}"),
            column_type,
            nullable: number > 0,
            default: None,
        };
        let definition = TableDefinition {
            dropped: Vec::new(),
            id: TableId(1),
            namespace: "public".to_owned(),
            name: "t".to_owned(),
            version: SchemaVersion(1),
            columns: types.into_iter().enumerate().map(column).collect(),
            primary_key: Vec::new(),
            primary_key_named: None,
            unique: Vec::new(),
            kind: TableKind::Reference,
            compression: Compression::Zstd,
            checks: Vec::new(),
            consistency: event::Consistency::Strong,
            replicas: event::Replicas::default(),
        };
        Arc::new(Table { definition: Arc::new(definition), shards: Vec::new() })
    }

    /// The rows of an INSERT of constants.
    fn rows(statement: &Statement) -> Result<RecordBatch, Error> {
        let Some(Ast::Insert(insert)) = statement.ast.as_deref() else { panic!("it is an INSERT") };
        let InsertPlan { table, positions, source } = insert::plan(insert, statement.rows.as_ref(), table())?;
        let defaults = vec![DefaultValue::none(); table.definition.columns.len()];
        match source {
            Source::Constants(rows) => {
                insert::read_constants(&rows, &statement.text, &positions, &table.definition, &defaults, Zone::UTC)
            }
            Source::Literals(values) => {
                insert::read_literals(&values, &positions, &table.definition, &defaults, &[], Zone::UTC)
            }
            Source::Query(query) => panic!("{query} was scanned"),
        }
    }

    /// Whether `sql` was scanned; what was scanned must give the same rows, or the same refusal, as when it is parsed.
    fn check(sql: &str) -> bool {
        let Ok(scanned) = parse(sql) else { return false };
        let [scanned] = scanned.as_slice() else { return false };
        if scanned.rows.is_none() {
            return false;
        }
        let parsed = parse_whole(sql).expect("what is scanned can be parsed").remove(0);
        assert_eq!((&scanned.text, scanned.offset), (&parsed.text, parsed.offset), "{sql}");
        let shown = |rows: Result<RecordBatch, Error>| rows.map_err(|error| format!("{:?}", error.into_report()));
        assert_eq!(shown(rows(scanned)), shown(rows(&parsed)), "{sql}");
        true
    }

    #[test]
    fn plain_rows_are_scanned() {
        for sql in [
            "INSERT INTO t VALUES (1, 'a', 1.5, '2026-01-01 00:00:00Z', true)",
            " insert into public.t (c0, \"c1\") values (-1, 'it''s'),(+2, NULL) , (3, DEFAULT) ; ",
            "INSERT INTO t VALUES\n(1e2,'',-1.5e-3,NULL,'t'),\n(2,'ä','NaN','2026-01-01','f')",
            "INSERT INTO t VALUES (99999999999)",
            "INSERT INTO t VALUES (NULL)",
            "INSERT INTO t (c0, nosuch) VALUES (1, 2)",
            "INSERT INTO t (c0) VALUES (1, 2)",
            "INSERT INTO t VALUES (1.5)",
            "INSERT INTO t VALUES ('x')",
        ] {
            assert!(check(sql), "{sql}");
        }
    }

    #[test]
    fn the_rest_is_parsed() {
        for sql in [
            "INSERT INTO t VALUES ($1)",
            "INSERT INTO t VALUES (1 + 1)",
            "INSERT INTO t VALUES (1), (1, 'a')",
            "INSERT INTO t VALUES (E'a\\nb')",
            "INSERT INTO t VALUES ('a'\n'b')",
            "INSERT INTO t VALUES (now())",
            "INSERT INTO t VALUES (1) RETURNING c0",
            "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
            "INSERT INTO t VALUES (1) -- one",
            "INSERT INTO t VALUES (1); SELECT 1",
            "INSERT INTO t VALUES (.5), (5.), (0x1f), (1_000), (- 1)",
            "INSERT INTO t AS u VALUES (1)",
            "INSERT INTO t SELECT 1",
            "INSERT INTO t VALUES ()",
            "INSERT INTO t VALUES (1",
            "INSERT INTO t VALUES ('a",
        ] {
            assert!(!check(sql), "{sql}");
        }
    }

    fn constant() -> impl Strategy<Value = String> {
        let odd = [
            "NULL",
            "null",
            "DEFAULT",
            "true",
            "FALSE",
            "nulls",
            "'it''s'",
            "''",
            "''''",
            "'a' 'b'",
            "E'x'",
            "$1",
            "1.5.2",
            "-",
            "+7",
            "- 1",
            "--1",
            "1e400",
            "1e",
            "'2026-01-01'",
            "'ä\t\n'",
            "(1)",
            "1::int",
            "'\\'",
            "N'x'",
            "x",
        ];
        prop_oneof![
            prop::sample::select(odd.to_vec()).prop_map(str::to_owned),
            any::<i64>().prop_map(|n| n.to_string()),
            any::<f64>().prop_map(|n| n.to_string()),
            "'[a-z(,);\"-]{0,6}'",
        ]
    }

    proptest! {
        #[test]
        fn scanned_and_parsed_rows_agree(rows in prop::collection::vec(prop::collection::vec(constant(), 1..4), 1..4),
                                         blank in prop::sample::select(vec!["", " ", "\n\t"]), named in any::<bool>()) {
            let rows: Vec<String> = rows.iter().map(|row| format!("({blank}{}{blank})", row.join(&format!("{blank},")))).collect();
            let columns = if named { "(c1, c0)" } else { "" };
            check(&format!("{blank}INSERT INTO t{columns} VALUES{blank}{}", rows.join(",")));
        }

        /// Mostly rows that are scanned.
        #[test]
        fn plain_rows_agree(rows in prop::collection::vec((any::<i32>(), "[a-zäß' ]{0,9}", any::<f32>()), 1..9)) {
            let rows: Vec<String> =
                rows.iter().map(|(n, text, v)| format!("({n}, '{}', '{v}')", text.replace('\'', "''"))).collect();
            let sql = format!("INSERT INTO t VALUES {}", rows.join(", "));
            prop_assert!(check(&sql), "{}", sql);
        }
    }
}
