//! The demonstration's tables and their rows, which are part of the program.
//!
//! Provenance: data/nyc2013/README.md.

/// A table of the demonstration.
#[derive(Debug)]
pub struct DemoTable {
    /// Its name.
    pub name: &'static str,
    /// Its columns and constraints, as standard SQL has them.
    pub columns: &'static str,
    /// The options of an event table; none for a reference table.
    pub options: Option<&'static str>,
    /// Rows in the file.
    pub rows: u64,
    /// The CSV file with a header, compressed with gzip or not.
    file: File,
}

#[derive(Debug)]
enum File {
    Plain(&'static [u8]),
    Gzip(&'static [u8]),
}

/// The tables: two of events, two of reference.
pub const TABLES: &[DemoTable] = &[
    DemoTable {
        name: "airlines",
        columns: "carrier text NOT NULL, name text NOT NULL",
        options: None,
        rows: 16,
        file: File::Plain(include_bytes!("../../data/nyc2013/airlines.csv")),
    },
    DemoTable {
        name: "airports",
        columns: "faa text NOT NULL, name text NOT NULL, lat double precision, lon double precision, alt integer, \
                  tz integer, dst text, tzone text",
        options: None,
        rows: 1_458,
        file: File::Plain(include_bytes!("../../data/nyc2013/airports.csv")),
    },
    DemoTable {
        name: "weather",
        columns: "time timestamptz NOT NULL, origin text NOT NULL, temp double precision, dewp double precision, \
                  humid double precision, wind_dir double precision, wind_speed double precision, \
                  wind_gust double precision, precip double precision, pressure double precision, \
                  visib double precision",
        options: Some("time_column = 'time', series = 'origin', split_interval = '28 days'"),
        rows: 26_115,
        file: File::Gzip(include_bytes!("../../data/nyc2013/weather.csv.gz")),
    },
    DemoTable {
        name: "flights",
        columns: "sched timestamptz NOT NULL, origin text NOT NULL, dest text NOT NULL, carrier text NOT NULL, \
                  flight integer NOT NULL, tailnum text, dep_delay integer, arr_delay integer, air_time integer, \
                  distance integer",
        options: Some("time_column = 'sched', series = 'origin,carrier', split_interval = '7 days'"),
        rows: 336_776,
        file: File::Gzip(include_bytes!("../../data/nyc2013/flights.csv.gz")),
    },
];

impl DemoTable {
    /// The statement that makes the table.
    pub fn create(&self) -> String {
        let options = self.options.map(|options| format!(" WITH ({options})")).unwrap_or_default();
        format!("CREATE TABLE IF NOT EXISTS {} ({}){options}", self.name, self.columns)
    }

    /// The statement that loads the rows of [`DemoTable::csv`].
    pub fn copy(&self) -> String {
        format!("COPY {} FROM STDIN WITH (FORMAT csv, HEADER true)", self.name)
    }

    /// The rows as CSV with a header.
    pub fn csv(&self) -> Box<dyn std::io::Read + Send> {
        match self.file {
            File::Plain(bytes) => Box::new(bytes),
            File::Gzip(bytes) => Box::new(flate2::read::GzDecoder::new(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    #[test]
    fn each_file_has_the_rows_it_claims() {
        for table in TABLES {
            let lines = BufReader::new(table.csv()).lines().map(Result::unwrap).filter(|line| !line.is_empty());
            assert_eq!(lines.count() as u64, table.rows + 1, "{}", table.name);
        }
    }
}
