//! COPY: its options, and the way of its data into the table.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use cluster::Table;
use datafusion::sql::sqlparser::ast::{CopyLegacyCsvOption, CopyLegacyOption, CopyOption, CopySource, CopyTarget};
use event::limits::{COPY_BLOCKS_MAX, COPY_QUEUE_LEN};
use futures::FutureExt;
use futures::stream::{FuturesOrdered, StreamExt};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};

use super::checks::Checks;
use super::ddl::folded;
use super::defaults::DefaultValue;
use super::rows::Target;
use super::transaction::Writing;
use super::{CopyEncoding, CopyFormat, CopyOptions, Session};
use crate::copy::{Block, Blocks, Decoded, TupleDecoder};
use crate::error::{Condition, Error};

/// Reads the options of a COPY, in today's and in the old syntax.
///
/// # Errors
/// 0A000 for options and formats of later releases, 22023 and 42601 for contradictions.
pub(crate) fn encoding(written: &[CopyOption], legacy: &[CopyLegacyOption]) -> Result<CopyEncoding, Error> {
    let Some(format) = format(written, legacy)? else {
        refuse_in_binary(written, legacy)?;
        return Ok(CopyEncoding::Binary);
    };
    let mut options = CopyOptions::defaults(format);
    for option in written {
        match option {
            CopyOption::Format(_) | CopyOption::Freeze(_) => {}
            CopyOption::Delimiter(c) => options.delimiter = one_byte("delimiter", *c)?,
            CopyOption::Null(text) => options.null.clone_from(text),
            CopyOption::Header(header) => options.header = *header,
            CopyOption::Quote(c) => {
                options.quote = one_byte("quote", *c)?;
                if !written.iter().any(|o| matches!(o, CopyOption::Escape(_))) {
                    options.escape = options.quote;
                }
            }
            CopyOption::Escape(c) => options.escape = one_byte("escape", *c)?,
            CopyOption::Encoding(name)
                if matches!(name.to_ascii_uppercase().as_str(), "UTF8" | "UTF-8" | "UNICODE") => {}
            other => {
                return Err(Error::report(
                    Condition::FeatureNotSupported,
                    format!("COPY option {other} is not supported"),
                ));
            }
        }
    }
    for option in legacy {
        legacy_option(option, &mut options)?;
    }
    if options.format == CopyFormat::Text && (options.delimiter == b'\\' || options.delimiter == b'\n') {
        return Err(Error::report(Condition::InvalidParameterValue, "COPY delimiter cannot be newline or backslash"));
    }
    if options.format == CopyFormat::Csv && options.delimiter == options.quote {
        return Err(Error::report(Condition::InvalidParameterValue, "COPY delimiter and quote must be different"));
    }
    Ok(CopyEncoding::Lines(options))
}

/// Binary data have nothing that these options speak of.
fn refuse_in_binary(written: &[CopyOption], legacy: &[CopyLegacyOption]) -> Result<(), Error> {
    let in_binary = |condition, name: &str| Error::report(condition, format!("cannot specify {name} in BINARY mode"));
    let csv_only =
        |name: &str| Error::report(Condition::FeatureNotSupported, format!("COPY {name} available only in CSV mode"));
    for option in written {
        return Err(match option {
            CopyOption::Format(_) | CopyOption::Freeze(_) | CopyOption::Encoding(_) | CopyOption::Header(false) => {
                continue;
            }
            CopyOption::Delimiter(_) => in_binary(Condition::SyntaxError, "DELIMITER"),
            CopyOption::Null(_) => in_binary(Condition::SyntaxError, "NULL"),
            CopyOption::Header(true) => in_binary(Condition::FeatureNotSupported, "HEADER"),
            CopyOption::Quote(_) => csv_only("quote"),
            CopyOption::Escape(_) => csv_only("escape"),
            other => csv_only(&other.to_string()),
        });
    }
    for option in legacy {
        return Err(match option {
            CopyLegacyOption::Binary => continue,
            CopyLegacyOption::Delimiter(_) => in_binary(Condition::SyntaxError, "DELIMITER"),
            CopyLegacyOption::Null(_) => in_binary(Condition::SyntaxError, "NULL"),
            other => csv_only(&other.to_string()),
        });
    }
    Ok(())
}

/// The format of lines; `None` for binary.
fn format(written: &[CopyOption], legacy: &[CopyLegacyOption]) -> Result<Option<CopyFormat>, Error> {
    let named = written.iter().find_map(|option| match option {
        CopyOption::Format(name) => Some(folded(name)),
        _ => None,
    });
    let old = legacy.iter().find_map(|option| match option {
        CopyLegacyOption::Csv(_) => Some("csv"),
        CopyLegacyOption::Binary => Some("binary"),
        _ => None,
    });
    match named.as_deref().or(old).unwrap_or("text") {
        "text" => Ok(Some(CopyFormat::Text)),
        "csv" => Ok(Some(CopyFormat::Csv)),
        "binary" => Ok(None),
        other => {
            Err(Error::report(Condition::InvalidParameterValue, format!("COPY format \"{other}\" not recognized")))
        }
    }
}

fn legacy_option(option: &CopyLegacyOption, options: &mut CopyOptions) -> Result<(), Error> {
    match option {
        CopyLegacyOption::Delimiter(c) => options.delimiter = one_byte("delimiter", *c)?,
        CopyLegacyOption::Null(text) => options.null.clone_from(text),
        CopyLegacyOption::Header => options.header = true,
        CopyLegacyOption::Csv(list) => {
            for option in list {
                match option {
                    CopyLegacyCsvOption::Header => options.header = true,
                    CopyLegacyCsvOption::Quote(c) => {
                        options.quote = one_byte("quote", *c)?;
                        options.escape = options.quote;
                    }
                    CopyLegacyCsvOption::Escape(c) => options.escape = one_byte("escape", *c)?,
                    other => {
                        return Err(Error::report(
                            Condition::FeatureNotSupported,
                            format!("COPY option {other} is not supported"),
                        ));
                    }
                }
            }
        }
        other => {
            return Err(Error::report(Condition::FeatureNotSupported, format!("COPY option {other} is not supported")));
        }
    }
    Ok(())
}

fn one_byte(what: &str, c: char) -> Result<u8, Error> {
    u8::try_from(c).ok().filter(u8::is_ascii).ok_or_else(|| {
        Error::report(Condition::FeatureNotSupported, format!("COPY {what} must be a single one-byte character"))
    })
}

/// Refuses what would let a client reach the server's files.
pub(crate) fn check_target(target: &CopyTarget, to: bool) -> Result<(), Error> {
    match (target, to) {
        (CopyTarget::Stdin, false) | (CopyTarget::Stdout, true) => Ok(()),
        _ => Err(Error::hinted(
            Condition::FeatureNotSupported,
            "COPY to or from a file or program of the server is not supported",
            "Use COPY ... FROM STDIN or COPY ... TO STDOUT; psql's \\copy does it for files of the client.",
        )),
    }
}

/// The query that a COPY … TO STDOUT runs, as SQL.
pub(crate) fn source_sql(source: &CopySource) -> String {
    match source {
        CopySource::Table { table_name, columns } if columns.is_empty() => format!("SELECT * FROM {table_name}"),
        CopySource::Table { table_name, columns } => {
            let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
            format!("SELECT {} FROM {table_name}", columns.join(", "))
        }
        CopySource::Query(query) => query.to_string(),
    }
}

/// A COPY … FROM STDIN under way. Dropping it without `finish` leaves nothing of it behind.
pub struct CopyIn {
    /// Columns the client must send.
    pub columns: usize,
    /// How they are encoded.
    pub encoding: CopyEncoding,
    pieces: Option<mpsc::Sender<Bytes>>,
    task: Option<JoinHandle<Result<(Writing, u64), Error>>>,
}

impl std::fmt::Debug for CopyIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyIn")
            .field("columns", &self.columns)
            .field("encoding", &self.encoding)
            .finish_non_exhaustive()
    }
}

impl Drop for CopyIn {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// What the decoding task needs.
pub(crate) struct CopyPlan {
    pub(crate) table: Arc<Table>,
    pub(crate) positions: Vec<usize>,
    pub(crate) defaults: Vec<DefaultValue>,
    pub(crate) checks: Option<Arc<Checks>>,
    pub(crate) encoding: CopyEncoding,
    pub(crate) writes: Writing,
}

impl CopyIn {
    /// Starts decoding on the session's query runtime.
    pub(crate) fn start(session: &Session, plan: CopyPlan) -> CopyIn {
        let (sender, receiver) = mpsc::channel(COPY_QUEUE_LEN);
        let columns = plan.positions.len();
        let encoding = plan.encoding.clone();
        let zone = session.zone();
        let task = session.engine().runtime().spawn(decode(plan, receiver, zone));
        CopyIn { columns, encoding, pieces: Some(sender), task: Some(task) }
    }

    /// Gives it bytes, cut anywhere. Waits while the decoder is behind. An error ends the COPY; nothing of it stays.
    ///
    /// # Errors
    /// The first bad record.
    pub async fn push(&mut self, bytes: Bytes) -> Result<(), Error> {
        let sent = match &self.pieces {
            Some(pieces) => pieces.send(bytes).await.is_ok(),
            None => false,
        };
        if sent {
            return Ok(());
        }
        match self.outcome().await {
            Err(error) => Err(error),
            Ok(_) => Err(Error::report(Condition::Internal, "the COPY ended before its data")),
        }
    }

    /// End of data: commits (or leaves it to the transaction) and answers with the rows.
    ///
    /// # Errors
    /// The first bad record, or what the commit says.
    pub async fn finish(mut self, session: &mut Session) -> Result<u64, Error> {
        self.pieces = None;
        let (writes, rows) = self.outcome().await?;
        session.finish_write(writes).await?;
        Ok(rows)
    }

    async fn outcome(&mut self) -> Result<(Writing, u64), Error> {
        self.pieces = None;
        match self.task.take() {
            Some(task) => match task.await {
                Ok(outcome) => outcome,
                Err(error) => Err(Error::report(Condition::Internal, format!("the COPY was stopped: {error}"))),
            },
            None => Err(Error::report(Condition::Internal, "the COPY has ended")),
        }
    }
}

async fn decode(
    plan: CopyPlan,
    mut pieces: mpsc::Receiver<Bytes>,
    zone: crate::text::Zone,
) -> Result<(Writing, u64), Error> {
    let CopyPlan { table, positions, defaults, checks, encoding, writes } = plan;
    let definition = Arc::clone(&table.definition);
    let whole = positions.iter().copied().eq(0..definition.columns.len());
    let target = Target { table: Arc::clone(&definition), positions: positions.clone(), defaults, zone, checks };
    let mut taken = Taken { table, whole, target, writes, rows: 0 };
    match encoding {
        CopyEncoding::Lines(options) => {
            let reading = Reading { definition, positions, options, zone };
            reading.run(&mut pieces, &mut taken).await?;
        }
        // Binary values are taken as they lie: there is nothing to be gained side by side.
        CopyEncoding::Binary => {
            let mut decoder = TupleDecoder::new(definition, positions);
            while let Some(piece) = pieces.recv().await {
                taken.take(decoder.push(&piece)?).await?;
            }
            taken.take(decoder.finish()?.into_iter().collect()).await?;
        }
    }
    Ok((taken.writes, taken.rows))
}

/// Where decoded rows go.
struct Taken {
    table: Arc<Table>,
    /// The client sends all columns, in the table's order.
    whole: bool,
    target: Target,
    writes: Writing,
    rows: u64,
}

impl Taken {
    async fn take(&mut self, batches: Vec<RecordBatch>) -> Result<(), Error> {
        for batch in batches {
            self.rows += batch.num_rows() as u64;
            let complete = match self.whole {
                true => self.target.verify(&batch).map(|()| batch)?,
                false => self.target.rows(&batch)?,
            };
            self.writes.append(&self.table, complete).await?;
        }
        Ok(())
    }
}

/// Lines being read: blocks of them are decoded side by side, and taken in order.
struct Reading {
    definition: Arc<event::TableDefinition>,
    positions: Vec<usize>,
    options: CopyOptions,
    zone: crate::text::Zone,
}

impl Reading {
    async fn run(self, pieces: &mut mpsc::Receiver<Bytes>, taken: &mut Taken) -> Result<(), Error> {
        let mut blocks = Blocks::new(self.options.clone());
        let mut decoding: FuturesOrdered<JoinHandle<Result<Decoded, Error>>> = FuturesOrdered::new();
        while let Some(piece) = pieces.recv().await {
            let Some(block) = blocks.push(&piece) else { continue };
            decoding.push_back(self.spawn(block));
            while let Some(Some(decoded)) = decoding.next().now_or_never() {
                if take(decoded, taken).await? {
                    return drain(pieces).await;
                }
            }
            while decoding.len() >= COPY_BLOCKS_MAX
                && let Some(decoded) = decoding.next().await
            {
                if take(decoded, taken).await? {
                    return drain(pieces).await;
                }
            }
        }
        let last = blocks.finish();
        if decoding.is_empty() {
            // All of a small COPY.
            return taken.take(self.decode(last)?.batches).await;
        }
        decoding.push_back(self.spawn(last));
        while let Some(decoded) = decoding.next().await {
            if take(decoded, taken).await? {
                break;
            }
        }
        Ok(())
    }

    fn decode(&self, block: Block) -> Result<Decoded, Error> {
        block.decode(Arc::clone(&self.definition), self.positions.clone(), &self.options, self.zone)
    }

    /// On another thread of the query runtime, if one is free.
    fn spawn(&self, block: Block) -> JoinHandle<Result<Decoded, Error>> {
        let (definition, positions) = (Arc::clone(&self.definition), self.positions.clone());
        let (options, zone) = (self.options.clone(), self.zone);
        tokio::spawn(async move { block.decode(definition, positions, &options, zone) })
    }
}

/// Takes the rows of a block; whether the data have ended there.
async fn take(decoded: Result<Result<Decoded, Error>, JoinError>, taken: &mut Taken) -> Result<bool, Error> {
    let stopped = |error: JoinError| Error::report(Condition::Internal, format!("the COPY was stopped: {error}"));
    let Decoded { batches, ended } = decoded.map_err(stopped)??;
    taken.take(batches).await?;
    Ok(ended)
}

/// Takes what a client still sends after the mark that ends the data, and forgets it.
async fn drain(pieces: &mut mpsc::Receiver<Bytes>) -> Result<(), Error> {
    while pieces.recv().await.is_some() {}
    Ok(())
}
