//! A sqllogictest database over tokio-postgres: statements go out in the simple or the extended protocol, values come back as text.
//!
//! A row is one line, its values joined by [`SEPARATOR`]. NULL prints as `NULL`, an empty text as `(empty)`. An error prints as
//! `SQLSTATE: message; position: n; detail: …; where: …; hint: …`, parts that the server did not send left out. A statement that begins
//! with the line `-- columns` gets the column names as its first row. The lines after `COPY … FROM STDIN;` are the data of the COPY.

use std::fmt::Write as _;
use std::time::Duration;

use async_trait::async_trait;
use futures::{SinkExt, StreamExt};
use sqllogictest::{AsyncDB, ColumnType, DBOutput};
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::text;

/// Between the values of a row.
pub(super) const SEPARATOR: &str = " | ";
const COLUMNS_MARK: &str = "-- columns\n";

/// The type letter of a column in a `query` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter(char);

impl ColumnType for Letter {
    fn from_char(value: char) -> Option<Self> {
        Some(Letter(value))
    }

    fn to_char(&self) -> char {
        self.0
    }
}

impl Letter {
    fn of(column: &Type) -> Self {
        Letter(match *column {
            Type::BOOL => 'B',
            Type::INT2 => 'S',
            Type::INT4 => 'I',
            Type::INT8 => 'L',
            Type::FLOAT4 => 'F',
            Type::FLOAT8 => 'D',
            Type::NUMERIC => 'N',
            Type::TEXT => 'T',
            Type::VARCHAR => 'V',
            Type::TIMESTAMP => 'M',
            Type::TIMESTAMPTZ => 'Z',
            Type::DATE => 'Y',
            Type::TIME => 'C',
            Type::INTERVAL => 'P',
            Type::BYTEA => 'X',
            Type::UUID => 'U',
            Type::JSON => 'J',
            Type::JSONB => 'O',
            _ => '?',
        })
    }
}

/// Column types agree; `?` stands for any, in the file or where the protocol does not tell.
#[expect(clippy::ptr_arg, reason = "the runner asks for this type")]
pub(super) fn types_agree(actual: &Vec<Letter>, expected: &Vec<Letter>) -> bool {
    actual.len() == expected.len() && actual.iter().zip(expected).all(|(a, e)| a == e || a.0 == '?' || e.0 == '?')
}

/// Which messages carry the statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Query, text results.
    Simple,
    /// Query for the rows, Parse and Describe for the types: for regenerating.
    SimpleWithTypes,
    /// Parse, Describe, Bind, Execute, binary results where [`text`] can print them.
    Extended,
}

/// What a statement failed with, on one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Failure(String);

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else { return Failure(format!("client: {error}")) };
        let mut line = format!("{}: {}", db.code().code(), db.message());
        if let Some(ErrorPosition::Original(position)) = db.position() {
            let _ = write!(line, "; position: {position}");
        }
        for (name, part) in [("detail", db.detail()), ("where", db.where_()), ("hint", db.hint())] {
            if let Some(part) = part {
                let _ = write!(line, "; {name}: {part}");
            }
        }
        Failure(line.replace('\n', "\\n").replace('\t', "\\t"))
    }
}

/// One connection.
pub(super) struct Connection {
    dsn: String,
    client: Client,
    protocol: Protocol,
}

impl Connection {
    /// Connects; `dsn` as libpq writes it.
    pub(super) async fn open(dsn: &str, protocol: Protocol) -> Result<Self, Failure> {
        let client = connect(dsn).await?;
        Ok(Connection { dsn: dsn.to_string(), client, protocol })
    }

    async fn simple(&self, sql: &str, names: bool) -> Result<DBOutput<Letter>, Failure> {
        let (mut rows, mut columns, mut count) = (Vec::new(), None, 0);
        for message in self.client.simple_query(sql).await? {
            match message {
                SimpleQueryMessage::RowDescription(described) => {
                    if names {
                        rows.push(described.iter().map(|c| c.name().to_string()).collect());
                    }
                    columns = Some(described.len());
                }
                SimpleQueryMessage::Row(row) => {
                    columns = Some(row.len());
                    rows.push((0..row.len()).map(|i| printed(row.get(i).map(str::to_string))).collect());
                }
                SimpleQueryMessage::CommandComplete(rows) => count = rows,
                _ => {}
            }
        }
        let Some(columns) = columns else { return Ok(DBOutput::StatementComplete(count)) };
        let types = match self.protocol {
            Protocol::SimpleWithTypes => match self.client.prepare(sql).await {
                Ok(prepared) => prepared.columns().iter().map(|c| Letter::of(c.type_())).collect(),
                Err(_) => vec![Letter('?'); columns],
            },
            _ => vec![Letter('?'); columns],
        };
        Ok(DBOutput::Rows { types, rows })
    }

    async fn extended(&self, sql: &str, names: bool) -> Result<DBOutput<Letter>, Failure> {
        let prepared = self.client.prepare(sql).await?;
        let columns = prepared.columns();
        if columns.is_empty() {
            return Ok(DBOutput::StatementComplete(self.client.execute(&prepared, &[]).await?));
        }
        if !columns.iter().all(|c| text::is_known(c.type_())) {
            return self.simple(sql, names).await;
        }
        let mut rows: Vec<Vec<String>> = Vec::new();
        if names {
            rows.push(columns.iter().map(|c| c.name().to_string()).collect());
        }
        for row in self.client.query(&prepared, &[]).await? {
            rows.push(
                (0..row.len())
                    .map(|i| printed(row.get::<_, Raw>(i).0.map(|raw| text::render(columns[i].type_(), &raw))))
                    .collect(),
            );
        }
        Ok(DBOutput::Rows { types: columns.iter().map(|c| Letter::of(c.type_())).collect(), rows })
    }

    async fn copy_in(&mut self, sql: &str, data: &str) -> Result<DBOutput<Letter>, Failure> {
        let sink = match self.client.copy_in::<_, bytes::Bytes>(sql).await {
            Ok(sink) => sink,
            Err(error) => return self.copy_refused(error).await,
        };
        futures::pin_mut!(sink);
        if !data.is_empty() {
            sink.send(bytes::Bytes::from(format!("{data}\n"))).await?;
        }
        Ok(DBOutput::StatementComplete(sink.finish().await?))
    }

    async fn copy_out(&mut self, sql: &str) -> Result<DBOutput<Letter>, Failure> {
        let stream = match self.client.copy_out(sql).await {
            Ok(stream) => stream,
            Err(error) => return self.copy_refused(error).await,
        };
        futures::pin_mut!(stream);
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        let text = String::from_utf8(bytes).expect("COPY sends UTF-8");
        let rows = text.lines().map(|line| vec![printed(Some(line.to_string()))]).collect();
        Ok(DBOutput::Rows { types: vec![Letter('?')], rows })
    }
}

impl Connection {
    /// tokio-postgres loses step with the server after a COPY that did not start, so the connection is made anew.
    async fn copy_refused(&mut self, error: tokio_postgres::Error) -> Result<DBOutput<Letter>, Failure> {
        self.client = connect(&self.dsn).await?;
        Err(error.into())
    }
}

async fn connect(dsn: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

#[async_trait]
impl AsyncDB for Connection {
    type Error = Failure;
    type ColumnType = Letter;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<Letter>, Failure> {
        let (names, sql) = sql.strip_prefix(COLUMNS_MARK).map_or((false, sql), |rest| (true, rest));
        let upper = sql.to_uppercase();
        if upper.starts_with("COPY") {
            let (statement, data) = sql.split_once(";\n").unwrap_or((sql, ""));
            if statement.to_uppercase().contains("FROM STDIN") {
                return self.copy_in(statement, data).await;
            }
            if upper.contains("TO STDOUT") {
                return self.copy_out(sql).await;
            }
        }
        let several = sql.trim_end_matches(';').contains(';');
        match self.protocol {
            Protocol::Extended if !several => self.extended(sql, names).await,
            _ => self.simple(sql, names).await,
        }
    }

    async fn shutdown(&mut self) {}

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A value's bytes as they came.
struct Raw(Option<Vec<u8>>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Raw(Some(raw.to_vec())))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Raw(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn printed(value: Option<String>) -> String {
    match value {
        None => "NULL".into(),
        Some(text) if text.is_empty() => "(empty)".into(),
        Some(text) => text.replace('\n', "\\n").replace('\t', "\\t"),
    }
}
