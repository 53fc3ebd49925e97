//! COPY data in binary: a signature, tuples of values with their lengths, and an end.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use event::TableDefinition;

use super::decoder::{BATCH_BYTES, BATCH_ROWS, RECORD_BYTES_MAX};
use crate::error::{Condition, Error, Report};
use crate::text::{ColumnBuilder, Refused, Zone, refused};

/// What binary COPY data begin with.
pub const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// Signature, flags, and the length of what may follow them.
const HEADER_BYTES: usize = SIGNATURE.len() + 8;
/// Flags above these bits change how the data are read.
const CRITICAL_FLAGS: u32 = 0xffff_0000;

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Header,
    Tuples,
    End,
}

/// Decodes the bytes of one binary COPY. After an error it must not be fed further.
#[derive(Debug)]
pub struct TupleDecoder {
    table: Arc<TableDefinition>,
    targets: Vec<usize>,
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    rows: usize,
    /// Counts tuples; errors call it the line.
    line: u64,
    /// What has come of a tuple that is not whole yet.
    carry: Vec<u8>,
    place: Place,
}

impl TupleDecoder {
    /// A decoder for the columns of `table` at the positions `targets`, in the order the client sends them.
    pub fn new(table: Arc<TableDefinition>, targets: Vec<usize>) -> Self {
        let columns = targets.iter().map(|at| ColumnBuilder::of_usual(&table.columns[*at], Zone::UTC)).collect();
        let fields: Vec<Field> = targets
            .iter()
            .map(|at| &table.columns[*at])
            .map(|column| column.column_type.field(&column.name, column.nullable))
            .collect();
        Self {
            schema: Arc::new(Schema::new(fields)),
            targets,
            table,
            columns,
            rows: 0,
            line: 0,
            carry: Vec::new(),
            place: Place::Header,
        }
    }

    /// Takes bytes cut anywhere and gives the batches that became full.
    ///
    /// # Errors
    /// The first bad tuple, with line and column as context.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<RecordBatch>, Error> {
        let mut carry = std::mem::take(&mut self.carry);
        carry.extend_from_slice(bytes);
        let mut full = Vec::new();
        let mut at = 0;
        while let Some(taken) = self.take(&carry[at..])? {
            at += taken;
            if self.rows >= BATCH_ROWS || self.columns.iter().map(ColumnBuilder::bytes).sum::<usize>() >= BATCH_BYTES {
                full.push(self.batch());
            }
        }
        carry.drain(..at);
        if carry.len() > RECORD_BYTES_MAX {
            let message = format!("a tuple of COPY data is longer than {RECORD_BYTES_MAX} bytes");
            return Err(self.located(refused(Condition::ProgramLimitExceeded, message), None));
        }
        self.carry = carry;
        Ok(full)
    }

    /// End of data. Gives the rows that are left.
    ///
    /// # Errors
    /// 22P04 when the data end before they are whole. As in PostgreSQL, they may end without the mark of their end.
    pub fn finish(&mut self) -> Result<Option<RecordBatch>, Error> {
        if self.place == Place::Header {
            return Err(bad("COPY file signature not recognized"));
        }
        if self.carry.len() >= 2 {
            self.line += 1;
            return Err(self.located(bad_report("unexpected EOF in COPY data"), None));
        }
        Ok((self.rows > 0).then(|| self.batch()))
    }

    /// Reads what stands first; `None` when it is not whole yet. Gives its bytes.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        match self.place {
            Place::Header => {
                let taken = header(bytes)?;
                if taken.is_some() {
                    self.place = Place::Tuples;
                }
                Ok(taken)
            }
            Place::Tuples => self.tuple(bytes),
            Place::End if bytes.is_empty() => Ok(None),
            Place::End => Err(self.located(bad_report("received copy data after EOF marker"), None)),
        }
    }

    fn tuple(&mut self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        let Some(count) = bytes.first_chunk() else { return Ok(None) };
        let (count, expected) = (i16::from_be_bytes(*count), self.targets.len());
        if count == -1 {
            self.place = Place::End;
            return Ok(Some(size_of::<i16>()));
        }
        if usize::try_from(count) != Ok(expected) {
            self.line += 1;
            let message = format!("row field count is {count}, expected {expected}");
            return Err(self.located(bad_report(&message), None));
        }
        let Some(end) = self.tuple_end(bytes)? else { return Ok(None) };
        self.line += 1;
        let mut rest = &bytes[size_of::<i16>()..end];
        for at in 0..expected {
            let (length, values) = rest.split_first_chunk().expect("the tuple is whole");
            let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
                self.null(at)?;
                rest = values;
                continue;
            };
            let (value, after) = values.split_at(length);
            rest = after;
            if let Err(report) = self.columns[at].append_binary(value) {
                return Err(self.located(report, Some(at)));
            }
        }
        self.rows += 1;
        Ok(Some(end))
    }

    /// Where the tuple ends, if all of it has come.
    fn tuple_end(&self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        let mut end = size_of::<i16>();
        for at in 0..self.targets.len() {
            let Some(length) = bytes.get(end..).and_then(|rest| rest.first_chunk()) else { return Ok(None) };
            end += size_of::<i32>();
            end += match i32::from_be_bytes(*length) {
                -1 => 0,
                length => match usize::try_from(length) {
                    Ok(length) => length,
                    Err(_) => return Err(self.located(bad_report("invalid field size"), Some(at))),
                },
            };
        }
        Ok((end <= bytes.len()).then_some(end))
    }

    fn null(&mut self, at: usize) -> Result<(), Error> {
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
        Err(self.located(Box::new(report), None))
    }

    fn batch(&mut self) -> RecordBatch {
        let columns = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        let rows = RecordBatchOptions::new().with_row_count(Some(std::mem::take(&mut self.rows)));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &rows).expect("builders follow the schema")
    }

    /// `COPY flights, line 7, column dep_delay`
    fn located(&self, mut report: Refused, column: Option<usize>) -> Error {
        let mut context = format!("COPY {}, line {}", self.table.name, self.line.max(1));
        if let Some(at) = column {
            context.push_str(&format!(", column {}", self.table.columns[self.targets[at]].name));
        }
        report.context = Some(context);
        Error::Reported(report)
    }
}

/// Reads the header; `None` when it is not whole yet.
fn header(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let begun = bytes.len().min(SIGNATURE.len());
    if bytes[..begun] != SIGNATURE[..begun] {
        return Err(bad("COPY file signature not recognized"));
    }
    let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else { return Ok(None) };
    let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
    if word(SIGNATURE.len()) & CRITICAL_FLAGS != 0 {
        return Err(bad("unrecognized critical flags in COPY file header"));
    }
    let extension = i32::from_be_bytes(word(SIGNATURE.len() + 4).to_be_bytes());
    let extension = usize::try_from(extension).map_err(|_| bad("invalid COPY file header (wrong length)"))?;
    Ok((rest.len() >= extension).then_some(HEADER_BYTES + extension))
}

fn bad_report(message: &str) -> Refused {
    refused(Condition::BadCopyFormat, message.to_owned())
}

fn bad(message: &str) -> Error {
    Error::Reported(bad_report(message))
}

#[cfg(test)]
mod tests {
    use event::{Column, ColumnId, ColumnType, Compression, SchemaVersion, TableId, TableKind};
    use expect_test::{Expect, expect};

    use super::*;

    fn decoder() -> TupleDecoder {
        let column = |number: u32, column_type, nullable| Column {
            identity: None,
            modifier: None,
            required: false,
            initial: None,
            stored: None,
            id: ColumnId(number),
            name: format!("c{number}"),
            column_type,
            nullable,
            default: None,
        };
        let table = TableDefinition {
            dropped: Vec::new(),
            id: TableId(1),
            namespace: "public".to_owned(),
            name: "t".to_owned(),
            version: SchemaVersion(1),
            columns: vec![column(1, ColumnType::SmallInt, false), column(2, ColumnType::Text, true)],
            primary_key: Vec::new(),
            primary_key_named: None,
            unique: Vec::new(),
            kind: TableKind::Reference,
            compression: Compression::Zstd,
            checks: Vec::new(),
            consistency: event::Consistency::Strong,
            replicas: event::Replicas::default(),
        };
        TupleDecoder::new(Arc::new(table), vec![0, 1])
    }

    fn header() -> Vec<u8> {
        [&SIGNATURE[..], &[0; 8]].concat()
    }

    const TUPLE: &[u8] = b"\0\x02\0\0\0\x02\0\x07\0\0\0\x01a";
    const END: &[u8] = b"\xff\xff";

    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<usize, Error> {
        let mut decoder = decoder();
        let mut rows = 0;
        for piece in pieces {
            rows += decoder.push(piece)?.iter().map(RecordBatch::num_rows).sum::<usize>();
        }
        Ok(rows + decoder.finish()?.map_or(0, |batch| batch.num_rows()))
    }

    #[test]
    fn data_are_read_however_they_are_cut() {
        let data = [&header(), TUPLE, b"\0\x02\0\0\0\x02\0\x07\xff\xff\xff\xff", END].concat();
        assert_eq!(decode(data.chunks(1)).unwrap(), 2);
        for cut in 0..data.len() {
            assert_eq!(decode([&data[..cut], &data[cut..]]).unwrap(), 2, "{cut}");
        }
        assert_eq!(decode([&data[..data.len() - 2]]).unwrap(), 2, "the mark of the end may be missing");
    }

    fn check(data: &[u8], expected: Expect) {
        let report = decode([data]).expect_err("the data are bad").into_report();
        let context = report.context.unwrap_or_default();
        expected.assert_eq(&format!("{:?}: {} ({context})", report.condition, report.message));
    }

    #[test]
    fn bad_data_are_refused_as_postgresql_does() {
        let after_header = |data: &[u8]| [&header(), data].concat();
        check(b"", expect!["BadCopyFormat: COPY file signature not recognized ()"]);
        check(b"PGCOPY\n\xff\n", expect!["BadCopyFormat: COPY file signature not recognized ()"]);
        check(
            &[&SIGNATURE[..], &[0, 1, 0, 0, 0, 0, 0, 0]].concat(),
            expect!["BadCopyFormat: unrecognized critical flags in COPY file header ()"],
        );
        check(
            &[&SIGNATURE[..], &[0, 0, 0, 0, 0xff, 0, 0, 0]].concat(),
            expect!["BadCopyFormat: invalid COPY file header (wrong length) ()"],
        );
        check(&after_header(&[0, 3]), expect!["BadCopyFormat: row field count is 3, expected 2 (COPY t, line 1)"]);
        check(&after_header(&TUPLE[..9]), expect!["BadCopyFormat: unexpected EOF in COPY data (COPY t, line 1)"]);
        check(
            &after_header(&[TUPLE, END, TUPLE].concat()),
            expect!["BadCopyFormat: received copy data after EOF marker (COPY t, line 1)"],
        );
        check(
            &after_header(b"\0\x02\0\0\0\x02\0\x07\xff\xff\xff\xfe"),
            expect!["BadCopyFormat: invalid field size (COPY t, line 1, column c2)"],
        );
        check(
            &after_header(b"\0\x02\0\0\0\x03\0\0\x07\0\0\0\x01a"),
            expect!["InvalidBinaryRepresentation: incorrect binary data format (COPY t, line 1, column c1)"],
        );
        check(
            &after_header(b"\0\x02\0\0\0\x02\0\x07\0\0\0\x01\xff"),
            expect![[
                r#"CharacterNotInRepertoire: invalid byte sequence for encoding "UTF8": 0xff (COPY t, line 1, column c2)"#
            ]],
        );
        check(
            &after_header(b"\0\x02\xff\xff\xff\xff\0\0\0\x01a"),
            expect![[
                r#"NotNullViolation: null value in column "c1" of relation "t" violates not-null constraint (COPY t, line 1)"#
            ]],
        );
    }
}
