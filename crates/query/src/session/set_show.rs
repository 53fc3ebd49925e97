//! SET and SHOW.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::sql::sqlparser::ast::{ContextModifier, Expr, Ident, Set, Value};
use futures::stream;

use super::ddl::folded;
use super::plan::text_rows;
use super::{Block, Outcome, Rows, Session};
use crate::error::{Condition, Error};

impl Session {
    pub(super) fn set_statement(&mut self, set: &Set) -> Result<Outcome, Error> {
        let done = Outcome::Done("SET".to_owned());
        let (name, value, local) = match set {
            Set::SingleAssignment { scope, variable, values, .. } => {
                let name = variable.to_string().replace('"', "");
                let values: Vec<String> = values.iter().map(setting_value).collect();
                (name, values.join(", "), matches!(scope, Some(ContextModifier::Local)))
            }
            Set::SetTimeZone { local, value } => ("TimeZone".to_owned(), setting_value(value), *local),
            Set::SetNames { charset_name, .. } => ("client_encoding".to_owned(), folded(charset_name), false),
            Set::SetTransaction { modes, session, snapshot: None } => {
                self.set_transaction(modes, *session)?;
                return Ok(done);
            }
            other => return Err(Error::report(Condition::FeatureNotSupported, format!("{other} is not supported"))),
        };
        let is_default = value.eq_ignore_ascii_case("default");
        {
            let mut settings = self.settings.lock();
            match (is_default, local) {
                (true, _) => settings.reset(&name)?,
                (false, true) => settings.set_local(&name, &value)?,
                (false, false) => settings.set(&name, &value)?,
            }
        }
        if local && self.block == Block::None {
            self.notice("WARNING", "25P01", "SET LOCAL can only be used in transaction blocks");
        }
        self.end_single();
        Ok(done)
    }

    pub(super) fn show(&mut self, variable: &[Ident]) -> Result<Outcome, Error> {
        let name = setting_name(variable);
        if name == "all" {
            let all = self.settings.lock().all();
            let (names, values): (Vec<String>, Vec<String>) = all.into_iter().unzip();
            let columns = show_schema(variable);
            let descriptions = vec![String::new(); names.len()];
            let arrays: Vec<ArrayRef> = vec![
                Arc::new(StringArray::from(names)),
                Arc::new(StringArray::from(values)),
                Arc::new(StringArray::from(descriptions)),
            ];
            let batch = RecordBatch::try_new(Arc::clone(&columns), arrays)
                .map_err(|error| Error::report(Condition::Internal, error.to_string()));
            return Ok(Outcome::Rows(Rows { columns, batches: Box::pin(stream::iter([batch])), tag: "SHOW" }));
        }
        let value = match name.as_str() {
            "transaction_read_only" => Some(if self.is_read_only() { "on" } else { "off" }.to_owned()),
            "transaction_isolation" => Some(self.isolation().to_string()),
            _ => self.setting(&name),
        };
        match value {
            Some(value) => Ok(Outcome::Rows(text_rows(show_schema(variable), vec![value], "SHOW"))),
            None => {
                let message = format!("unrecognized configuration parameter \"{name}\"");
                Err(Error::report(Condition::UndefinedObject, message))
            }
        }
    }
}

fn setting_value(value: &Expr) -> String {
    match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => text.clone(),
            other => other.to_string(),
        },
        Expr::Identifier(ident) => ident.value.clone(),
        Expr::Interval(interval) => setting_value(&interval.value),
        Expr::Cast { expr, .. } => setting_value(expr),
        other => other.to_string(),
    }
}

/// `SHOW TIME ZONE` and `SHOW TRANSACTION ISOLATION LEVEL` are several words for one name.
fn setting_name(variable: &[Ident]) -> String {
    let words: Vec<String> = variable.iter().map(|word| word.value.to_lowercase()).collect();
    match words.join(" ").as_str() {
        "time zone" => "timezone".to_owned(),
        "transaction isolation level" => "transaction_isolation".to_owned(),
        _ => words.join("."),
    }
}

/// The columns of SHOW.
pub(super) fn show_schema(variable: &[Ident]) -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let name = setting_name(variable);
    Arc::new(Schema::new(match name.as_str() {
        "all" => vec![text("name"), text("setting"), text("description")],
        // PostgreSQL spells the setting's own name.
        "timezone" => vec![text("TimeZone")],
        "datestyle" => vec![text("DateStyle")],
        "intervalstyle" => vec![text("IntervalStyle")],
        other => vec![text(other)],
    }))
}
