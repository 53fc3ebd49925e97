//! Records become batches; the first bad one names its line and column.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use event::TableDefinition;

use super::fields::{Boundary, Fields};
use crate::error::{Condition, Error, Report};
use crate::session::{CopyFormat, CopyOptions};
use crate::text::{ColumnBuilder, Refused, Zone, refused};

/// Rows of a batch.
pub(super) const BATCH_ROWS: usize = 16 << 10;
/// Bytes of a batch, about.
pub(super) const BATCH_BYTES: usize = 1 << 20;
/// One record may not be longer than this.
pub(super) const RECORD_BYTES_MAX: usize = 64 << 20;
/// Characters of a bad value that an error shows.
const VALUE_SHOWN_CHARS: usize = 100;

/// Decodes the bytes of one COPY. After an error it must not be fed further.
#[derive(Debug)]
pub struct Decoder {
    table: Arc<TableDefinition>,
    targets: Vec<usize>,
    schema: SchemaRef,
    options: CopyOptions,
    columns: Vec<ColumnBuilder>,
    rows: usize,
    carry: Vec<u8>,
    boundary: Boundary,
    fields: Fields,
    line: u64,
    header_pending: bool,
    ended: bool,
}

impl Decoder {
    /// A decoder for the columns of `table` at the positions `targets`, in the order the client sends them.
    pub fn new(table: Arc<TableDefinition>, targets: Vec<usize>, options: CopyOptions, zone: Zone) -> Self {
        let columns = targets.iter().map(|at| ColumnBuilder::of_usual(&table.columns[*at], zone)).collect();
        let fields: Vec<Field> = targets
            .iter()
            .map(|at| &table.columns[*at])
            .map(|column| column.column_type.field(&column.name, column.nullable))
            .collect();
        Self {
            targets,
            schema: Arc::new(Schema::new(fields)),
            columns,
            rows: 0,
            carry: Vec::new(),
            boundary: Boundary::default(),
            fields: Fields::default(),
            line: 0,
            header_pending: options.header,
            ended: false,
            table,
            options,
        }
    }

    /// The same for data that `lines` lines were before.
    pub(super) fn after(mut self, lines: u64) -> Self {
        self.line = lines;
        self
    }

    /// Whether the mark that ends the data has come.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The columns of the batches it gives.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Takes bytes cut anywhere and gives the batches that became full.
    ///
    /// # Errors
    /// The first bad record, with line and column as context.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<RecordBatch>, Error> {
        let mut full = Vec::new();
        if self.ended {
            return Ok(full);
        }
        // Whole records are read where they lie; only what is cut off at the end is copied.
        let mut rest = bytes;
        if !self.carry.is_empty() {
            let mut carry = std::mem::take(&mut self.carry);
            let old = carry.len();
            let first = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
            carry.extend_from_slice(&rest[..first]);
            rest = &rest[carry.len() - old..];
            while let Some(end) = self.boundary.find(&carry, &self.options) {
                debug_assert_eq!(end, carry.len());
                self.record(&carry[..end], &mut full)?;
                carry.clear();
            }
            while !carry.is_empty() && !rest.is_empty() {
                let first = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
                carry.extend_from_slice(&rest[..first]);
                rest = &rest[first..];
                if let Some(end) = self.boundary.find(&carry, &self.options) {
                    self.record(&carry[..end], &mut full)?;
                    carry.clear();
                }
            }
            self.carry = carry;
        }
        while !rest.is_empty() && !self.ended {
            match self.boundary.find(rest, &self.options) {
                Some(end) => {
                    self.record(&rest[..end], &mut full)?;
                    rest = &rest[end..];
                }
                None => break,
            }
        }
        if !self.ended {
            self.carry.extend_from_slice(rest);
        }
        if self.carry.len() > RECORD_BYTES_MAX {
            let message = format!("a line of COPY data is longer than {RECORD_BYTES_MAX} bytes");
            return Err(self.locate(refused(Condition::ProgramLimitExceeded, message), None));
        }
        Ok(full)
    }

    /// End of data: the last record may lack its line end. Gives the rows that are left.
    ///
    /// # Errors
    /// As [`Decoder::push`].
    pub fn finish(&mut self) -> Result<Option<RecordBatch>, Error> {
        let carry = std::mem::take(&mut self.carry);
        let mut full = Vec::new();
        if !self.ended && !carry.is_empty() {
            self.record(&carry, &mut full)?;
        }
        debug_assert!(full.len() <= 1);
        match full.pop() {
            Some(batch) => Ok(Some(batch)),
            None if self.rows > 0 => Ok(Some(self.batch())),
            None => Ok(None),
        }
    }

    fn record(&mut self, record: &[u8], full: &mut Vec<RecordBatch>) -> Result<(), Error> {
        self.line += 1;
        if self.ended {
            return Ok(());
        }
        let record = record.strip_suffix(b"\n").unwrap_or(record);
        let record = record.strip_suffix(b"\r").unwrap_or(record);
        if std::mem::take(&mut self.header_pending) {
            return Ok(());
        }
        if record == b"\\." {
            self.ended = true;
            return Ok(());
        }
        let mut fields = std::mem::take(&mut self.fields);
        let outcome = fields.split(record, &self.options).map_err(|refused| self.locate(refused, None));
        let outcome = outcome.and_then(|()| self.row(&fields, record));
        self.fields = fields;
        outcome?;
        self.rows += 1;
        // A quoted field may hold line ends; later lines count from after them.
        self.line += record.iter().filter(|byte| **byte == b'\n').count() as u64;
        if self.rows >= BATCH_ROWS || self.columns.iter().map(ColumnBuilder::bytes).sum::<usize>() >= BATCH_BYTES {
            full.push(self.batch());
        }
        Ok(())
    }

    fn row(&mut self, fields: &Fields, record: &[u8]) -> Result<(), Error> {
        if fields.len() > self.targets.len() {
            let report = refused(Condition::BadCopyFormat, "extra data after last expected column".to_string());
            return Err(self.locate_record(report, record));
        }
        for at in 0..self.targets.len() {
            // PostgreSQL reads an empty line of the text format for a table of one column as one empty field.
            if at >= fields.len() {
                let name = &self.table.columns[self.targets[at]].name;
                let report = refused(Condition::BadCopyFormat, format!("missing data for column \"{name}\""));
                return Err(self.locate_record(report, record));
            }
            let outcome = match fields.get(at) {
                None => self.null(at, fields, record),
                Some(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => {
                        self.columns[at].append_text(text).map_err(|refused| self.locate(refused, Some((at, text))))
                    }
                    Err(error) => Err(self.locate(not_utf8(bytes, error.valid_up_to()), None)),
                },
            };
            outcome?;
        }
        Ok(())
    }

    fn null(&mut self, at: usize, fields: &Fields, record: &[u8]) -> Result<(), Error> {
        let column = &self.table.columns[self.targets[at]];
        if column.takes_null() {
            self.columns[at].append_null();
            return Ok(());
        }
        let message = format!(
            "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
            column.name, self.table.name
        );
        let report = Report::new(Condition::NotNullViolation, message).of_column(&self.table, &column.name);
        let shown: Vec<String> = (0..self.table.columns.len()).map(|column| self.field_shown(column, fields)).collect();
        let report = report.detailed(format!("Failing row contains ({}).", shown.join(", ")));
        Err(self.locate_record(Box::new(report), record))
    }

    /// The field for a column as the client wrote it.
    fn field_shown(&self, column: usize, fields: &Fields) -> String {
        let field = self.targets.iter().position(|target| *target == column).filter(|at| *at < fields.len());
        match field.and_then(|at| fields.get(at)) {
            Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            None => "null".to_owned(),
        }
    }

    fn batch(&mut self) -> RecordBatch {
        let columns = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        let rows = RecordBatchOptions::new().with_row_count(Some(std::mem::take(&mut self.rows)));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &rows).expect("builders follow the schema")
    }

    /// `COPY flights, line 7, column dep_delay: "x"`
    fn locate(&self, mut report: Refused, value: Option<(usize, &str)>) -> Error {
        let mut context = format!("COPY {}, line {}", self.table.name, self.line.max(1));
        if let Some((at, text)) = value {
            let column = &self.table.columns[self.targets[at]].name;
            context.push_str(&format!(", column {column}: \"{}\"", shown(text)));
        }
        report.context = Some(context);
        Error::Reported(report)
    }

    /// `COPY flights, line 7: "the whole line"`
    fn locate_record(&self, mut report: Refused, record: &[u8]) -> Error {
        let line = String::from_utf8_lossy(record);
        report.context = Some(format!("COPY {}, line {}: \"{}\"", self.table.name, self.line, shown(&line)));
        Error::Reported(report)
    }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(VALUE_SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}

fn not_utf8(bytes: &[u8], at: usize) -> Refused {
    let shown: Vec<String> = bytes[at..].iter().take(3).map(|byte| format!("0x{byte:02x}")).collect();
    let message = format!("invalid byte sequence for encoding \"UTF8\": {}", shown.join(" "));
    refused(Condition::CharacterNotInRepertoire, message)
}

impl CopyOptions {
    /// PostgreSQL's defaults of a format.
    pub fn defaults(format: CopyFormat) -> Self {
        let csv = format == CopyFormat::Csv;
        Self {
            format,
            header: false,
            delimiter: if csv { b',' } else { b'\t' },
            null: if csv { String::new() } else { "\\N".to_string() },
            quote: b'"',
            escape: b'"',
        }
    }
}

#[cfg(test)]
mod tests;
