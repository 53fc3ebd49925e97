//! The extended protocol: Parse, Bind, Describe, Execute, Close, Sync.
//!
//! Between two Syncs everything is one implicit transaction. When Sync has already arrived behind an Execute, that Execute is
//! all there is, and it commits by itself; otherwise the commit happens at Sync, before its ReadyForQuery.

use arrow::datatypes::FieldRef;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Describe, Execute, Parse, ParseComplete, PortalSuspended,
};
use query::{Outcome, Prepared, Rows, ScalarValue, TransactionStatus};

use crate::binary;
use crate::connection::{Connection, End};
use crate::error::Failure;
use crate::guard::{Guard, Stopped};
use crate::message::utf8;
use crate::rows::{Encoder, Format, description};
use crate::simple::next_batch;
use crate::types::{PgType, parameter};

/// The type byte of Sync.
const SYNC: u8 = b'S';
/// The object ids with which a client leaves a type to the server: none, and `unknown`.
const UNSPECIFIED: [u32; 2] = [0, 705];

/// A prepared statement.
#[derive(Debug)]
pub(crate) struct Named {
    prepared: Prepared,
    /// Object ids of its parameters, as ParameterDescription tells them.
    parameter_oids: Vec<u32>,
}

/// A bound statement, and how far its rows have been sent.
pub(crate) struct Portal {
    prepared: Prepared,
    parameters: Vec<ScalarValue>,
    formats: Vec<Format>,
    state: State,
}

enum State {
    /// Not executed yet.
    Bound,
    /// Giving rows.
    Rows { rows: Rows, batch: Option<(Encoder, usize)> },
    /// Everything was sent, under this command word.
    Done(&'static str),
    /// It gave no rows, or failed: it cannot be run again.
    Ended,
}

impl Connection<'_> {
    pub(crate) async fn parse(&mut self, message: Parse) -> Result<(), Stopped> {
        let name = message.name.unwrap_or_default();
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(Failure::new("42P05", format!("prepared statement \"{name}\" already exists")).into());
        }
        let guard = self.guard();
        let statements = guard.run(self.session.parse(&message.query)).await?;
        let [statement] = statements.as_slice() else {
            let failure = Failure::new("42601", "cannot insert multiple commands into a prepared statement");
            return Err(failure.into());
        };
        let types: Vec<_> = message.type_oids.iter().map(|oid| parameter(*oid)).collect();
        let prepared = guard.run(self.session.prepare(statement, &types)).await?;
        let oid = |(at, field): (usize, &FieldRef)| match message.type_oids.get(at) {
            Some(oid) if !UNSPECIFIED.contains(oid) => *oid,
            _ => PgType::of(field).oid(),
        };
        let parameter_oids = prepared.parameters.iter().enumerate().map(oid).collect();
        self.statements.insert(name, Named { prepared, parameter_oids });
        self.socket.put(&ParseComplete::new());
        Ok(())
    }

    pub(crate) fn bind(&mut self, message: Bind) -> Result<(), Stopped> {
        let name = message.portal_name.unwrap_or_default();
        if !name.is_empty() && self.portals.contains_key(&name) {
            return Err(Failure::new("42P03", format!("cursor \"{name}\" already exists")).into());
        }
        let statement = message.statement_name.unwrap_or_default();
        let prepared = self.statement(&statement)?.prepared.clone();
        let expected = prepared.parameters.len();
        let given = message.parameters.len();
        if given != expected {
            let text = format!(
                "bind message supplies {given} parameters, but prepared statement \"{statement}\" requires {expected}"
            );
            return Err(Failure::new("08P01", text).into());
        }
        let formats = Format::of_codes(&message.parameter_format_codes, given)?;
        let zone = self.session.zone();
        let values = message.parameters.into_iter().zip(&prepared.parameters).zip(formats);
        let parameters = values.map(|((bytes, field), format)| match (bytes, format) {
            (None, _) => {
                ScalarValue::try_from(field.data_type()).map_err(|error| Failure::new("0A000", error.to_string()))
            }
            (Some(bytes), Format::Binary) => binary::parameter(bytes, field, &zone),
            (Some(bytes), Format::Text) => binary::read_text(utf8(&bytes)?, field.data_type(), &zone),
        });
        let parameters = parameters.collect::<Result<_, _>>()?;
        let columns = prepared.columns.as_ref().map_or(0, |columns| columns.fields().len());
        let formats = match columns {
            0 => Vec::new(),
            columns => Format::of_codes(&message.result_column_format_codes, columns)?,
        };
        self.portals.insert(name, Portal { prepared, parameters, formats, state: State::Bound });
        self.socket.put(&BindComplete::new());
        Ok(())
    }

    pub(crate) fn describe(&mut self, message: &Describe) -> Result<(), Stopped> {
        let name = message.name.clone().unwrap_or_default();
        let rows = match message.target_type {
            b'S' => {
                let named = self.statement(&name)?;
                let parameters = ParameterDescription::new(named.parameter_oids.clone());
                let rows = named.prepared.columns.as_ref().map(|columns| description(columns, &[])).transpose()?;
                self.socket.put(&parameters);
                rows
            }
            _ => {
                // What DECLARE made is a portal as well.
                match (self.portals.get(&name), self.session.cursor_columns(&name)) {
                    (Some(portal), _) => {
                        let columns = portal.prepared.columns.as_ref();
                        columns.map(|columns| description(columns, &portal.formats)).transpose()?
                    }
                    (None, Some(columns)) => Some(description(&columns, &[])?),
                    (None, None) => return Err(no_portal(&name).into()),
                }
            }
        };
        match rows {
            Some(rows) => self.socket.put(&rows),
            None => self.socket.put(&NoData::new()),
        }
        Ok(())
    }

    pub(crate) async fn execute(&mut self, message: &Execute) -> Result<(), Stopped> {
        let name = message.name.clone().unwrap_or_default();
        let mut portal = self.portals.remove(&name).ok_or_else(|| no_portal(&name))?;
        let in_block = self.session.status() != TransactionStatus::Idle;
        let limit = usize::try_from(message.max_rows).ok().filter(|limit| *limit > 0);
        let run = self.run_portal(&name, &mut portal, limit).await;
        if run.is_err() {
            portal.state = State::Ended;
        }
        if in_block {
            // It may have been the COMMIT.
            self.end_portals();
        }
        if !in_block || self.session.status() != TransactionStatus::Idle {
            self.portals.insert(name, portal);
        }
        run
    }

    /// Begins a portal, or goes on with it.
    async fn run_portal(&mut self, name: &str, portal: &mut Portal, limit: Option<usize>) -> Result<(), Stopped> {
        let guard = self.guard();
        if matches!(portal.state, State::Bound) {
            self.door.metrics.statements.inc();
            let _timed = self.door.metrics.statement_seconds.start_timer();
            if !self.socket.next_is(SYNC) {
                self.session.begin_implicit();
            }
            let parameters = std::mem::take(&mut portal.parameters);
            match guard.run(self.session.execute(&portal.prepared, parameters)).await? {
                Outcome::Rows(rows) => portal.state = State::Rows { rows, batch: None },
                other => {
                    portal.state = State::Ended;
                    return self.send_other(&guard, other).await;
                }
            }
            return self.send_portal(&guard, name, portal, limit).await;
        }
        if self.session.status() == TransactionStatus::Failed {
            let text = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(Failure::new("25P02", text).into());
        }
        self.send_portal(&guard, name, portal, limit).await
    }

    /// Sends at most `limit` rows of a portal.
    async fn send_portal(
        &mut self,
        guard: &Guard,
        name: &str,
        portal: &mut Portal,
        limit: Option<usize>,
    ) -> Result<(), Stopped> {
        let (rows, batch) = match &mut portal.state {
            State::Rows { rows, batch } => (rows, batch),
            State::Done(tag) => {
                self.complete_rows(tag, 0);
                return Ok(());
            }
            State::Ended => return Err(Failure::new("55000", format!("portal \"{name}\" cannot be run")).into()),
            State::Bound => unreachable!("it was executed just now"),
        };
        if portal.formats.len() != rows.columns.fields().len() {
            portal.formats = vec![Format::Text; rows.columns.fields().len()];
        }
        let mut sent = 0;
        loop {
            if limit == Some(sent) {
                self.socket.put(&PortalSuspended::new());
                return Ok(());
            }
            match batch {
                Some((encoder, at)) if *at < encoder.rows() => {
                    self.send_row(guard, encoder, *at, &portal.formats).await?;
                    *at += 1;
                    sent += 1;
                }
                _ => match guard.run(next_batch(rows)).await? {
                    Some(next) => *batch = Some((Encoder::new(&next, self.session.zone())?, 0)),
                    None => break,
                },
            }
        }
        let tag = rows.tag;
        portal.state = State::Done(tag);
        self.complete_rows(tag, sent);
        Ok(())
    }

    pub(crate) fn close(&mut self, message: &Close) -> Result<(), Stopped> {
        let name = message.name.clone().unwrap_or_default();
        // Closing what is not there is no error.
        match message.target_type {
            b'S' => drop(self.statements.remove(&name)),
            _ => drop(self.portals.remove(&name)),
        }
        self.socket.put(&CloseComplete::new());
        Ok(())
    }

    pub(crate) async fn sync(&mut self) -> Result<(), End> {
        let commit = !self.skip_to_sync;
        self.skip_to_sync = false;
        self.end_implicit(commit).await?;
        self.ready();
        Ok(())
    }

    fn statement(&self, name: &str) -> Result<&Named, Failure> {
        self.statements.get(name).ok_or_else(|| {
            let text = match name {
                "" => "unnamed prepared statement does not exist".to_owned(),
                name => format!("prepared statement \"{name}\" does not exist"),
            };
            Failure::new("26000", text)
        })
    }
}

fn no_portal(name: &str) -> Failure {
    Failure::new("34000", format!("portal \"{name}\" does not exist"))
}
