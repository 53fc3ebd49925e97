//! Segments in bytes: rows of one split, sorted and written as Parquet that any reader opens.
//!
//! Pure and slow: the caller runs it where encoding may take time. The column `__seq` lies after the table's columns.

pub(crate) mod stored;
pub(crate) mod streamed;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{SortOptions, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, UInt64Type};
use arrow::row::{RowConverter, Rows, SortField};
use bytes::Bytes;
use event::limits::{PAGE_ROWS, ROW_GROUP_ROWS};
use event::split::{split_of, window_of};
use event::{Compression, ShardId, SplitId, TableDefinition};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, ParquetMetaDataReader, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use crate::Error;
use crate::dedup::are_distinct;
use crate::routing::event_times;
use crate::segment::{SEQUENCE_COLUMN, SegmentMeta};
use crate::sequence::sequenced_schema;
use crate::statistics::column_statistics;

/// Version of the key-value metadata, under `annal.format`.
const FORMAT: &str = "1";
/// Values of a float column looked at to choose its encoding.
const SAMPLE_VALUES: usize = 4096;
/// One distinct value in this many sampled ones, or fewer, makes a dictionary worth while (engine notes, §5.1).
const DICTIONARY_REPEATS: usize = 10;

/// How segments order the values of a column.
pub(crate) const SORT_ORDER: SortOptions = SortOptions { descending: false, nulls_first: false };

/// Where a segment belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentPlace {
    /// The shard.
    pub shard: ShardId,
    /// The split all rows lie in.
    pub split: SplitId,
    /// The seal the rows were frozen by; `None` for rows of a bulk statement, and for those of several segments.
    pub seal: Option<u64>,
    /// Object name below `segments/`.
    pub name: String,
}

/// Sorts rows (the table's columns and `__seq`) by series, time and `__seq` and writes them as one Parquet object.
///
/// # Errors
/// [`Error::Columns`] when there are no rows, when they are not the table's, or when one lies outside the split.
pub fn encode_segment(
    table: &TableDefinition,
    batches: &[RecordBatch],
    place: SegmentPlace,
) -> Result<(SegmentMeta, Bytes), Error> {
    let rows = concat_batches(&sequenced_schema(table), batches).map_err(columns_error)?;
    if rows.num_rows() == 0 {
        return Err(Error::Columns(format!("no rows for segment \"{}\"", place.name)));
    }
    let times = time_range(table, &rows, place.split)?;
    let rows = sort(table, rows)?;
    let bytes = write(table, &rows, &place)?;
    let columns = table.columns.iter().zip(rows.columns());
    let meta = SegmentMeta {
        name: place.name,
        table: table.id,
        shard: place.shard,
        split: place.split,
        version: table.version,
        rows: rows.num_rows() as u64,
        bytes: bytes.len() as u64,
        checksum: crc32c::crc32c(&bytes),
        time_min_us: times.map(|(min, _)| min),
        time_max_us: times.map(|(_, max)| max),
        sequence_base: 0,
        distinct: is_distinct(table, &rows)?,
        columns: columns.map(|(column, values)| column_statistics(column, values)).collect::<Result<_, _>>()?,
    };
    Ok((meta, bytes))
}

/// Checks that an object is the one its manifest describes: length, checksum, Parquet footer and row count.
///
/// # Errors
/// [`Error::Corrupt`] naming the file.
pub fn verify_segment(meta: &SegmentMeta, bytes: &Bytes) -> Result<(), Error> {
    let corrupt =
        |offset: u64, reason: String| Err(Error::Corrupt { file: format!("segments/{}", meta.name), offset, reason });
    let len = bytes.len() as u64;
    if len != meta.bytes {
        return corrupt(len.min(meta.bytes), format!("{} bytes expected, {len} there", meta.bytes));
    }
    let checksum = crc32c::crc32c(bytes);
    if checksum != meta.checksum {
        return corrupt(0, format!("checksum {:08x} expected, {checksum:08x} found", meta.checksum));
    }
    match ParquetMetaDataReader::new().parse_and_finish(bytes) {
        Err(error) => corrupt(len, format!("the Parquet footer cannot be read: {error}")),
        Ok(footer) if u64::try_from(footer.file_metadata().num_rows()) != Ok(meta.rows) => {
            corrupt(len, format!("{} rows expected, {} there", meta.rows, footer.file_metadata().num_rows()))
        }
        Ok(_) => Ok(()),
    }
}

/// Whether sorted rows have a key each; nobody wants to know of a table in which all rows are there.
fn is_distinct(table: &TableDefinition, rows: &RecordBatch) -> Result<bool, Error> {
    match table.event().filter(|options| !options.dedup.is_none()) {
        Some(options) => are_distinct(rows, &options.sort_key()).map_err(columns_error),
        None => Ok(false),
    }
}

/// Smallest and largest event time; `None` for reference tables.
fn time_range(table: &TableDefinition, rows: &RecordBatch, split: SplitId) -> Result<Option<(i64, i64)>, Error> {
    let Some(options) = table.event() else { return Ok(None) };
    let times = event_times(table, rows)?;
    let (min, max) = times.iter().fold((i64::MAX, i64::MIN), |(min, max), time| (min.min(*time), max.max(*time)));
    let interval = options.split_interval_us;
    if split_of(min, interval) != split || split_of(max, interval) != split {
        return Err(Error::Columns(format!("rows of table \"{}\" lie outside split {split}", table.name)));
    }
    Ok(Some((min, max)))
}

/// What rows of a segment are ordered by.
struct SortKey<'a> {
    series: Option<Rows>,
    times: &'a [i64],
    sequences: &'a [u64],
}

impl<'a> SortKey<'a> {
    fn new(table: &TableDefinition, rows: &'a RecordBatch) -> Result<Self, Error> {
        let sequences = rows.column(rows.num_columns() - 1).as_primitive::<UInt64Type>().values();
        let Some(options) = table.event() else { return Ok(Self { series: None, times: &[], sequences }) };
        let columns: Vec<_> = options.series.iter().map(|position| Arc::clone(rows.column(*position))).collect();
        let fields = columns.iter().map(|column| SortField::new_with_options(column.data_type().clone(), SORT_ORDER));
        let series = match columns.is_empty() {
            true => None,
            false => Some(
                RowConverter::new(fields.collect()).and_then(|c| c.convert_columns(&columns)).map_err(columns_error)?,
            ),
        };
        Ok(Self { series, times: event_times(table, rows)?, sequences })
    }

    fn compare(&self, a: usize, b: usize) -> std::cmp::Ordering {
        let series = self.series.as_ref().map(|rows| (rows.row(a), rows.row(b)));
        let series = series.map_or(std::cmp::Ordering::Equal, |(a, b)| a.cmp(&b));
        series
            .then_with(|| self.times.get(a).cmp(&self.times.get(b)))
            .then_with(|| self.sequences[a].cmp(&self.sequences[b]))
    }
}

/// Orders rows by series, time and `__seq`; rows that are in order already stay where they are.
fn sort(table: &TableDefinition, rows: RecordBatch) -> Result<RecordBatch, Error> {
    let key = SortKey::new(table, &rows)?;
    if (1..rows.num_rows()).all(|row| key.compare(row - 1, row).is_le()) {
        drop(key);
        return Ok(rows);
    }
    let count =
        u32::try_from(rows.num_rows()).map_err(|_| Error::Columns("too many rows for one segment".to_owned()))?;
    let mut order: Vec<u32> = (0..count).collect();
    order.sort_by(|a, b| key.compare(*a as usize, *b as usize));
    take_record_batch(&rows, &UInt32Array::from(order)).map_err(columns_error)
}

fn write(table: &TableDefinition, rows: &RecordBatch, place: &SegmentPlace) -> Result<Bytes, Error> {
    let rows = &stored::stored(rows)?;
    let properties = properties(table, rows, place)?;
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).map_err(parquet_error)?;
    writer.write(rows).map_err(parquet_error)?;
    Ok(writer.into_inner().map_err(parquet_error)?.into())
}

fn properties(table: &TableDefinition, rows: &RecordBatch, place: &SegmentPlace) -> Result<WriterProperties, Error> {
    let compression = match table.compression {
        Compression::Zstd => parquet::basic::Compression::ZSTD(ZstdLevel::try_new(1).map_err(parquet_error)?),
        Compression::Lz4 => parquet::basic::Compression::LZ4_RAW,
        Compression::Snappy => parquet::basic::Compression::SNAPPY,
        Compression::None => parquet::basic::Compression::UNCOMPRESSED,
    };
    let mut builder = WriterProperties::builder()
        .set_compression(compression)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_sorting_columns(Some(sorting_columns(table)))
        .set_key_value_metadata(Some(metadata(table, place)));
    for (field, values) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        builder = match values.as_list_opt::<i32>() {
            None => encoding(builder, ColumnPath::new(vec![field.name().clone()]), values),
            // As Parquet lays out a list.
            Some(lists) => {
                let path = [field.name(), "list", Field::LIST_FIELD_DEFAULT_NAME].map(str::to_owned);
                encoding(builder, ColumnPath::new(path.to_vec()), lists.values())
            }
        };
    }
    Ok(builder.build())
}

/// Chooses the encoding of one column by its type, for floats by its values.
fn encoding(builder: WriterPropertiesBuilder, path: ColumnPath, values: &dyn Array) -> WriterPropertiesBuilder {
    let (dictionary, encoding) = match values.data_type() {
        DataType::Utf8 => (true, Some(Encoding::DELTA_BYTE_ARRAY)),
        DataType::Boolean => (false, None),
        DataType::Binary | DataType::FixedSizeBinary(_) => (true, None),
        DataType::Float32 | DataType::Float64 if repeats(values) => (true, None),
        DataType::Float32 | DataType::Float64 => (false, Some(Encoding::BYTE_STREAM_SPLIT)),
        // Beyond 18 digits the value is stored as 16 bytes, which have no delta encoding.
        DataType::Decimal128(19.., _) => (true, None),
        _ => (false, Some(Encoding::DELTA_BINARY_PACKED)),
    };
    let builder = builder.set_column_dictionary_enabled(path.clone(), dictionary);
    match encoding {
        Some(encoding) => builder.set_column_encoding(path, encoding),
        None => builder,
    }
}

/// Whether few of the sampled floats are distinct.
fn repeats(values: &dyn Array) -> bool {
    let step = values.len().div_ceil(SAMPLE_VALUES).max(1);
    let sampled = (0..values.len()).step_by(step).filter(|row| values.is_valid(*row));
    let bits: Vec<u64> = match values.data_type() {
        DataType::Float32 => {
            let values = values.as_primitive::<Float32Type>();
            sampled.map(|row| u64::from(values.value(row).to_bits())).collect()
        }
        _ => {
            let values = values.as_primitive::<Float64Type>();
            sampled.map(|row| values.value(row).to_bits()).collect()
        }
    };
    let distinct = bits.iter().collect::<HashSet<_>>().len();
    distinct * DICTIONARY_REPEATS <= bits.len()
}

/// Positions of the columns a segment is sorted by: series, time, `__seq`.
pub fn sort_columns(table: &TableDefinition) -> Vec<usize> {
    let mut columns = table.event().map_or_else(Vec::new, |options| {
        let mut columns = options.series.clone();
        columns.push(options.time_column);
        columns
    });
    columns.push(table.columns.len());
    columns
}

fn sorting_columns(table: &TableDefinition) -> Vec<SortingColumn> {
    let column = |position: usize| SortingColumn { column_idx: position as i32, descending: false, nulls_first: false };
    sort_columns(table).into_iter().map(column).collect()
}

fn metadata(table: &TableDefinition, place: &SegmentPlace) -> Vec<KeyValue> {
    let name = |position: &usize| table.columns.get(*position).map_or(SEQUENCE_COLUMN, |column| column.stored_name());
    let sort_key: Vec<&str> = sort_columns(table).iter().map(name).collect();
    let mut pairs = vec![
        ("annal.format", FORMAT.to_owned()),
        ("annal.table", table.id.to_string()),
        ("annal.shard", place.shard.to_string()),
        ("annal.split", place.split.to_string()),
        ("annal.schema_version", table.version.to_string()),
        ("annal.sort_key", sort_key.join(",")),
    ];
    if let Some(seal) = place.seal {
        pairs.push(("annal.seal", seal.to_string()));
    }
    if let Some(options) = table.event() {
        let (start, end) = window_of(place.split, options.split_interval_us);
        pairs.push(("annal.window_start_us", start.to_string()));
        pairs.push(("annal.window_end_us", end.to_string()));
    }
    pairs.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value)).collect()
}

pub(crate) fn columns_error(error: arrow::error::ArrowError) -> Error {
    Error::Columns(error.to_string())
}

fn parquet_error(error: parquet::errors::ParquetError) -> Error {
    Error::Columns(error.to_string())
}
