//! Makes the tables, copies the rows in, and flushes them to Parquet.

use std::io::Read;
use std::time::Instant;

use bytes::Bytes;
use futures::SinkExt;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use tokio_postgres::Client;

use super::data::{DemoTable, TABLES};
use super::{failed, say};
use crate::error::Error;

/// Bytes of one CopyData message.
const CHUNK_BYTES: usize = 64 << 10;

/// Loads what is not loaded yet and flushes it.
pub(super) async fn load(client: &Client) -> Result<(), Error> {
    let mut loaded = false;
    for table in TABLES {
        client.batch_execute(&table.create()).await.map_err(|error| failed("create a table", &error))?;
        if rows_in(client, table).await? == 0 {
            copy(client, table).await?;
            loaded = true;
        } else {
            say(&format!("{:<9} was loaded before", table.name));
        }
    }
    if loaded {
        let begin = Instant::now();
        client.batch_execute("SELECT annal.flush()").await.map_err(|error| failed("flush", &error))?;
        say(&format!("sealed, sorted and written as Parquet in {:.1} s", begin.elapsed().as_secs_f64()));
    }
    Ok(())
}

/// A COPY is all there or not at all, so any row means that all are there.
async fn rows_in(client: &Client, table: &DemoTable) -> Result<i64, Error> {
    let sql = format!("SELECT count(*) FROM {}", table.name);
    let row = client.query_one(&sql, &[]).await.map_err(|error| failed("count rows", &error))?;
    Ok(row.get(0))
}

/// One COPY, with a progress bar on a terminal.
async fn copy(client: &Client, table: &DemoTable) -> Result<(), Error> {
    let begin = Instant::now();
    let bar = progress(table);
    let mut csv = table.csv();
    let sink = client.copy_in(&table.copy()).await.map_err(|error| failed("begin COPY", &error))?;
    let mut sink = std::pin::pin!(sink);
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let read = csv.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
        if read == 0 {
            break;
        }
        let rows = chunk.iter().filter(|byte| **byte == b'\n').count();
        sink.send(Bytes::from(chunk)).await.map_err(|error| failed("send rows", &error))?;
        bar.inc(rows as u64);
    }
    let rows = sink.as_mut().finish().await.map_err(|error| failed("commit COPY", &error))?;
    bar.finish_and_clear();
    let seconds = begin.elapsed().as_secs_f64();
    if rows != table.rows {
        return Err(Error::Demo(format!("COPY of \"{}\" wrote {rows} rows, not {}", table.name, table.rows)));
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate for people"
    )]
    let rate = (rows as f64 / seconds.max(f64::EPSILON)) as u64;
    say(&format!(
        "{:<9} {:>8} rows in {seconds:.1} s ({} rows/s)",
        table.name,
        HumanCount(rows).to_string(),
        HumanCount(rate)
    ));
    Ok(())
}

/// Draws on stderr when that is a terminal, and nowhere otherwise.
fn progress(table: &DemoTable) -> ProgressBar {
    let template = "{msg:<9} [{bar:40}] {human_pos:>8}/{human_len} rows, {per_sec}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(table.rows).with_style(style.progress_chars("=> ")).with_message(table.name)
}
