//! The fifteen query types: Annal through the wire beside bare DataFusion over Parquet files sorted the same way, in the same run.
#![expect(clippy::print_stdout, reason = "the figures are the program's output")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::sum;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef, TimeUnit};
use benchmarks::devops::{self, Form, METRICS, Reading, Readings, SPLIT_US, Size};
use benchmarks::machine::{Load, geometric_mean, median};
use benchmarks::report::Report;
use benchmarks::servers::{Product, Server};
use benchmarks::{Error, statements};
use clap::Parser;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext, col};
use futures::SinkExt;
use serde::Serialize;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

/// Measures the query types of the Time Series Benchmark Suite's devops CPU-only use case.
#[derive(Debug, Parser)]
struct Arguments {
    /// Hosts in the data; each reports every 10 s.
    #[arg(long, default_value_t = 100)]
    hosts: usize,
    /// Hours of data, at least 12.
    #[arg(long, default_value_t = 72)]
    hours: usize,
    /// Seed of the data and of the queries.
    #[arg(long, default_value_t = 123)]
    seed: u64,
    /// Instances of each type.
    #[arg(long, default_value_t = 5)]
    instances: usize,
    /// Times each instance runs on each engine after one run that is not counted.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only types whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// The annal binary [default: beside this program].
    #[arg(long)]
    annal: Option<PathBuf>,
    /// A running Annal that holds the data already, instead of one started and loaded here.
    #[arg(long)]
    annal_dsn: Option<String>,
    /// Where data is written.
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// Where the figures go, .json or .csv.
    #[arg(long, default_value = "queries.json")]
    out: PathBuf,
}

/// One query type.
#[derive(Debug, Serialize)]
struct Measurement {
    query: &'static str,
    instances: usize,
    rows: usize,
    annal_ms: f64,
    datafusion_ms: f64,
    ratio: f64,
    answers_agree: bool,
    load_one: f64,
}

/// What two engines must agree on: rows, and the sum of each column of floating point numbers.
#[derive(Debug, Default)]
struct Answer {
    rows: usize,
    sums: Vec<f64>,
}

impl Answer {
    fn agrees(&self, other: &Answer) -> bool {
        // Sums of doubles depend on the order of the rows in the last digits.
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0);
        self.rows == other.rows
            && self.sums.len() == other.sums.len()
            && self.sums.iter().zip(&other.sums).all(|(a, b)| near(*a, *b))
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments = Arguments::parse();
    let size = Size { hosts: arguments.hosts, instants: arguments.hours * 360, interval_s: 10 };
    let mut report = Report::begin("queries");
    println!("{} cores, load {:.2}, {} rows", report.cores, report.load_before.one, size.rows());

    let files = tempfile::Builder::new().prefix("parquet-").tempdir_in(&arguments.directory)?;
    write_parquet(files.path(), size, arguments.seed)?;
    let datafusion = open_parquet(files.path(), report.cores).await?;
    let server = match &arguments.annal_dsn {
        Some(dsn) => Server::given(Product::Annal, dsn),
        None => loaded_annal(&arguments, size).await?,
    };
    let client = server.connect().await?;

    for kind in statements::TYPES.into_iter().filter(|kind| kind.contains(&arguments.only)) {
        let drawn = statements::instances(kind, size, arguments.seed, arguments.instances);
        let measurement = measure(kind, &drawn, arguments.rounds, &client, &datafusion).await?;
        println!(
            "{:24} annal {:>9.2} ms  datafusion {:>9.2} ms  ratio {:>6.2}  rows {:>7}  {}",
            measurement.query,
            measurement.annal_ms,
            measurement.datafusion_ms,
            measurement.ratio,
            measurement.rows,
            if measurement.answers_agree { "agree" } else { "ANSWERS DIFFER" },
        );
        report.measurements.push(measurement);
    }
    let ratios: Vec<f64> = report.measurements.iter().map(|measurement| measurement.ratio).collect();
    println!("geometric mean of the ratios annal / datafusion: {:.2}", geometric_mean(&ratios).unwrap_or(f64::NAN));
    report.write(&arguments.out)?;
    println!("load {:.2}; figures in {}", report.load_after.one, arguments.out.display());
    if report.measurements.iter().any(|measurement| !measurement.answers_agree) {
        return Err("answers differ".into());
    }
    Ok(())
}

async fn loaded_annal(arguments: &Arguments, size: Size) -> Result<Server, Error> {
    let binary = match &arguments.annal {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("annal"),
    };
    let server = Server::start_annal(&binary, &arguments.directory).await?;
    let client = server.connect().await?;
    let options = "WITH (time_column = 'time', series = 'hostname', split_interval = '12 hours')";
    client.simple_query(&format!("CREATE TABLE cpu ({}) {options}", devops::columns())).await?;
    // One COPY is one statement: it goes the bulk way, and its rows lie in sorted segments when it is answered.
    let sink = client.copy_in("COPY cpu FROM STDIN (FORMAT csv)").await?;
    futures::pin_mut!(sink);
    for (lines, _) in devops::batches(Readings::new(size, arguments.seed), 10_000, Form::Copy) {
        sink.send(lines).await?;
    }
    let stored = sink.finish().await?;
    if stored != size.rows() as u64 {
        return Err(format!("COPY of {} rows stored {stored}", size.rows()).into());
    }
    Ok(server)
}

async fn measure(
    kind: &'static str,
    drawn: &[String],
    rounds: usize,
    client: &Client,
    datafusion: &SessionContext,
) -> Result<Measurement, Error> {
    let load = Load::now();
    let (mut annal_ms, mut datafusion_ms, mut rows, mut agree) = (Vec::new(), Vec::new(), 0, true);
    for sql in drawn {
        let expected = run_datafusion(datafusion, sql).await?;
        let answered = run_annal(client, sql).await?;
        rows += expected.rows;
        agree &= expected.agrees(&answered);
        for _ in 0..rounds {
            let begin = Instant::now();
            client.simple_query(sql).await?;
            annal_ms.push(begin.elapsed().as_secs_f64() * 1e3);
            let begin = Instant::now();
            datafusion.sql(sql).await?.collect().await?;
            datafusion_ms.push(begin.elapsed().as_secs_f64() * 1e3);
        }
    }
    let (annal_ms, datafusion_ms) = (median(&annal_ms).unwrap_or(0.0), median(&datafusion_ms).unwrap_or(0.0));
    Ok(Measurement {
        query: kind,
        instances: drawn.len(),
        rows,
        annal_ms,
        datafusion_ms,
        ratio: annal_ms / datafusion_ms,
        answers_agree: agree,
        load_one: load.one,
    })
}

async fn run_annal(client: &Client, sql: &str) -> Result<Answer, Error> {
    let mut answer = Answer::default();
    for row in client.query(sql, &[]).await? {
        let floats = row.columns().iter().enumerate().filter(|(_, column)| *column.type_() == Type::FLOAT8);
        let mut values = Vec::new();
        for (at, _) in floats {
            values.push(row.try_get::<_, Option<f64>>(at)?.unwrap_or(0.0));
        }
        add(&mut answer, 1, &values);
    }
    Ok(answer)
}

async fn run_datafusion(context: &SessionContext, sql: &str) -> Result<Answer, Error> {
    let mut answer = Answer::default();
    for batch in context.sql(sql).await?.collect().await? {
        let floats = batch.columns().iter().filter(|column| *column.data_type() == DataType::Float64);
        let values: Vec<f64> = floats.map(|column| sum(column.as_primitive::<Float64Type>()).unwrap_or(0.0)).collect();
        add(&mut answer, batch.num_rows(), &values);
    }
    Ok(answer)
}

fn add(answer: &mut Answer, rows: usize, values: &[f64]) {
    answer.rows += rows;
    answer.sums.resize(values.len(), 0.0);
    for (total, value) in answer.sums.iter_mut().zip(values) {
        *total += value;
    }
}

fn parquet_schema() -> SchemaRef {
    let mut fields = vec![
        Field::new("time", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        Field::new("hostname", DataType::Utf8, true),
    ];
    fields.extend(METRICS.map(|metric| Field::new(metric, DataType::Float64, true)));
    Arc::new(Schema::new(fields))
}

/// One file for each split of 12 hours, sorted by (hostname, time).
fn write_parquet(directory: &Path, size: Size, seed: u64) -> Result<(), Error> {
    let (mut rows, mut split) = (Vec::new(), None);
    for reading in Readings::new(size, seed) {
        let of = reading.time_us.div_euclid(SPLIT_US);
        if split.is_some_and(|split| split != of) {
            write_split(directory, &mut rows)?;
        }
        split = Some(of);
        rows.push(reading);
    }
    write_split(directory, &mut rows)
}

fn write_split(directory: &Path, rows: &mut Vec<Reading>) -> Result<(), Error> {
    let Some(first) = rows.first() else { return Ok(()) };
    let file = std::fs::File::create(directory.join(format!("{}.parquet", first.time_us.div_euclid(SPLIT_US))))?;
    rows.sort_by_cached_key(|reading| (format!("host_{}", reading.host), reading.time_us));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(128 << 10))
        .set_data_page_row_count_limit(16 << 10)
        .build();
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|reading| reading.time_us));
    let hosts = StringArray::from_iter_values(rows.iter().map(|reading| format!("host_{}", reading.host)));
    let mut columns: Vec<ArrayRef> = vec![Arc::new(times.with_timezone("UTC")), Arc::new(hosts)];
    for metric in 0..METRICS.len() {
        columns.push(Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| f64::from(r.usage[metric])))));
    }
    let batch = RecordBatch::try_new(parquet_schema(), columns)?;
    let mut writer = ArrowWriter::try_new(file, parquet_schema(), Some(properties))?;
    writer.write(&batch)?;
    writer.close()?;
    rows.clear();
    Ok(())
}

async fn open_parquet(directory: &Path, partitions: usize) -> Result<SessionContext, Error> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(partitions));
    let order = vec![vec![col("hostname").sort(true, false), col("time").sort(true, false)]];
    let options = ParquetReadOptions::default().file_sort_order(order);
    context.register_parquet("cpu", &directory.display().to_string(), options).await?;
    Ok(context)
}
