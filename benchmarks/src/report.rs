//! What a program writes: one JSON file with everything, or one CSV line for each measurement, by the name of the output file.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::Error;
use crate::machine::Load;

/// The outcome of one run of a program.
#[derive(Debug, Serialize)]
pub struct Report<M> {
    /// The program.
    pub program: &'static str,
    /// Load before it began.
    pub load_before: Load,
    /// Load at its end.
    pub load_after: Load,
    /// Processor cores.
    pub cores: usize,
    /// The measurements; each serializes to a flat object.
    pub measurements: Vec<M>,
}

impl<M: Serialize> Report<M> {
    /// Begins a report: takes the load.
    pub fn begin(program: &'static str) -> Self {
        let load = Load::now();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Report { program, load_before: load, load_after: load, cores, measurements: Vec::new() }
    }

    /// Takes the load again and writes the report: JSON unless the path ends in `.csv`.
    pub fn write(&mut self, path: &Path) -> Result<(), Error> {
        self.load_after = Load::now();
        let text = if path.extension().is_some_and(|extension| extension == "csv") {
            self.csv()?
        } else {
            serde_json::to_string_pretty(self)? + "\n"
        };
        std::fs::write(path, text)?;
        Ok(())
    }

    fn csv(&self) -> Result<String, Error> {
        let mut lines = Vec::new();
        for measurement in &self.measurements {
            let Value::Object(fields) = serde_json::to_value(measurement)? else {
                return Err("a measurement must be a flat object".into());
            };
            if lines.is_empty() {
                let mut names = vec!["load1".to_string()];
                names.extend(fields.keys().cloned());
                lines.push(names.join(","));
            }
            let mut cells = vec![self.load_before.one.to_string()];
            cells.extend(fields.values().map(|value| match value {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            }));
            lines.push(cells.join(","));
        }
        Ok(lines.join("\n") + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Point {
        name: &'static str,
        rate: Option<f64>,
    }

    #[test]
    fn csv_has_a_line_for_each_measurement() {
        let mut report = Report::begin("test");
        report.measurements = vec![Point { name: "a", rate: Some(1.5) }, Point { name: "b", rate: None }];
        let csv = report.csv().unwrap();
        let lines: Vec<&str> = csv.lines().map(|line| line.split_once(',').unwrap().1).collect();
        assert_eq!(lines, ["name,rate", "a,1.5", "b,"]);
    }
}
