//! What the clients of a run know: which statements were acknowledged, which may or may not have happened.
//!
//! Each statement writes rows with ids of its own, so that the rows found tell which statements happened, how often, and whether in part.

use std::collections::{BTreeMap, BTreeSet};

/// The fate of a statement as its client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged while the disk was still durable: must be there for ever.
    Acknowledged,
    /// Sent, and not acknowledged in time: may be there whole, or not at all.
    Uncertain,
}

/// The rows of one statement in one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Which statement; the same number in another table means the same transaction.
    pub statement: u64,
    /// Ids of its rows.
    pub ids: BTreeSet<i64>,
    /// What its client knows.
    pub fate: Fate,
}

/// What must be found in one table.
#[derive(Clone, Debug)]
pub struct ExpectedTable {
    /// Whether its CREATE was acknowledged.
    pub created: Fate,
    /// Whether a DROP was sent.
    pub dropped: Option<Fate>,
    /// Statements that wrote to it.
    pub written: Vec<Written>,
    /// When the time window of each row ends, in microseconds.
    pub ends_us: BTreeMap<i64, i64>,
    /// Times before which windows may have been forgotten, in the order they were asked for.
    pub maybe_expired_us: Vec<i64>,
}

/// What must be found in all tables, by name. A name is used once, so that a dropped table cannot hide behind a new one.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    /// By table name.
    pub tables: BTreeMap<String, ExpectedTable>,
}

/// What was found: the ids of each existing table, duplicates and all.
pub type Found = BTreeMap<String, Vec<i64>>;

impl Expectation {
    /// Compares what was found with what must and may be there; afterwards nothing is uncertain any more.
    ///
    /// # Errors
    /// The first violation in words.
    pub fn settle(&mut self, found: &Found) -> Result<(), String> {
        for name in found.keys() {
            if !self.tables.contains_key(name) {
                return Err(format!("table \"{name}\" exists and was never created"));
            }
        }
        let mut gone = Vec::new();
        let mut statements: BTreeMap<u64, bool> = BTreeMap::new();
        for (name, table) in &mut self.tables {
            match found.get(name) {
                None if table.created == Fate::Uncertain || table.dropped.is_some() => gone.push(name.clone()),
                None => return Err(format!("table \"{name}\" was created and is gone")),
                Some(_) if table.dropped == Some(Fate::Acknowledged) => {
                    return Err(format!("table \"{name}\" was dropped and is still there"));
                }
                Some(ids) => {
                    table.settle(name, ids, &mut statements)?;
                    table.created = Fate::Acknowledged;
                    table.dropped = None;
                }
            }
        }
        for name in gone {
            self.tables.remove(&name);
        }
        Ok(())
    }
}

impl ExpectedTable {
    /// A table that was asked for.
    pub fn new(created: Fate) -> ExpectedTable {
        ExpectedTable {
            created,
            dropped: None,
            written: Vec::new(),
            ends_us: BTreeMap::new(),
            maybe_expired_us: Vec::new(),
        }
    }

    /// Windows that ended at or before the time were forgotten, of all statements sent so far.
    pub fn expire(&mut self, before_us: i64) {
        let ends_us = &self.ends_us;
        for written in &mut self.written {
            written.ids.retain(|id| ends_us.get(id).is_none_or(|end_us| *end_us > before_us));
        }
        self.written.retain(|written| !written.ids.is_empty());
    }

    /// Like `settle_rows`, for the fewest of the uncertain expirations that agree with what was found. They happened in their order.
    fn settle(&mut self, name: &str, ids: &[i64], statements: &mut BTreeMap<u64, bool>) -> Result<(), String> {
        let mut attempt = self.clone();
        let mut violation = None;
        for before_us in [None].into_iter().chain(self.maybe_expired_us.clone().into_iter().map(Some)) {
            before_us.into_iter().for_each(|before_us| attempt.expire(before_us));
            let (mut settled, mut with) = (attempt.clone(), statements.clone());
            match settled.settle_rows(name, ids, &mut with) {
                Ok(()) => {
                    settled.maybe_expired_us.clear();
                    (*self, *statements) = (settled, with);
                    return Ok(());
                }
                Err(reason) => violation = violation.or(Some(reason)),
            }
        }
        violation.map_or(Ok(()), Err)
    }

    /// `statements` gathers over all tables whether a statement was found: a transaction is there in each, or in none.
    fn settle_rows(&mut self, name: &str, ids: &[i64], statements: &mut BTreeMap<u64, bool>) -> Result<(), String> {
        let mut left: BTreeSet<i64> = BTreeSet::new();
        for id in ids {
            if !left.insert(*id) {
                return Err(format!("table \"{name}\": row {id} is there twice"));
            }
        }
        let mut kept = Vec::new();
        for mut written in std::mem::take(&mut self.written) {
            let present = written.ids.iter().filter(|id| left.remove(id)).count();
            let statement = written.statement;
            if present != 0 && present != written.ids.len() {
                let all = written.ids.len();
                return Err(format!(
                    "table \"{name}\": statement {statement} is there in part, {present} of {all} rows"
                ));
            }
            let there = present != 0;
            if !there && written.fate == Fate::Acknowledged {
                return Err(format!("table \"{name}\": statement {statement} was acknowledged and is lost"));
            }
            if *statements.entry(statement).or_insert(there) != there {
                return Err(format!("statement {statement} is in one of its tables and not in \"{name}\""));
            }
            if there {
                written.fate = Fate::Acknowledged;
                kept.push(written);
            }
        }
        if let Some(id) = left.first() {
            return Err(format!("table \"{name}\": row {id} was never written"));
        }
        self.written = kept;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(written: &[(u64, &[i64], Fate)]) -> Expectation {
        let written = written
            .iter()
            .map(|(statement, ids, fate)| Written {
                statement: *statement,
                ids: ids.iter().copied().collect(),
                fate: *fate,
            })
            .collect();
        let table = ExpectedTable { written, ..ExpectedTable::new(Fate::Acknowledged) };
        Expectation { tables: BTreeMap::from([("t".to_string(), table)]) }
    }

    fn check(mut expected: Expectation, ids: &[i64], outcome: Result<(), &str>) {
        let found = Found::from([("t".to_string(), ids.to_vec())]);
        assert_eq!(expected.settle(&found), outcome.map_err(str::to_string));
    }

    #[test]
    fn every_kind_of_violation_is_seen() {
        let one = || table(&[(1, &[10, 11], Fate::Acknowledged), (2, &[20, 21], Fate::Uncertain)]);
        check(one(), &[10, 11], Ok(()));
        check(one(), &[11, 20, 10, 21], Ok(()));
        check(one(), &[10, 10, 11], Err("table \"t\": row 10 is there twice"));
        check(one(), &[20, 21], Err("table \"t\": statement 1 was acknowledged and is lost"));
        check(one(), &[10, 11, 20], Err("table \"t\": statement 2 is there in part, 1 of 2 rows"));
        check(one(), &[10, 11, 99], Err("table \"t\": row 99 was never written"));
    }

    #[test]
    fn a_transaction_in_one_of_two_tables_is_seen() {
        let mut both = table(&[(1, &[10], Fate::Uncertain)]);
        let other = table(&[(1, &[11], Fate::Uncertain)]).tables.remove("t").expect("made above");
        both.tables.insert("u".to_string(), other);
        let found = Found::from([("t".to_string(), vec![10]), ("u".to_string(), vec![])]);
        assert_eq!(both.settle(&found), Err("statement 1 is in one of its tables and not in \"u\"".to_string()));
    }

    #[test]
    fn a_window_is_forgotten_whole_or_not_at_all() {
        let with = |maybe: &[i64]| {
            let mut expected = table(&[(1, &[10, 11], Fate::Acknowledged), (2, &[20], Fate::Uncertain)]);
            let table = expected.tables.get_mut("t").expect("made above");
            table.ends_us = BTreeMap::from([(10, 100), (11, 200), (20, 100)]);
            table.maybe_expired_us = maybe.to_vec();
            expected
        };
        check(with(&[100]), &[10, 11], Ok(()));
        check(with(&[100]), &[11], Ok(()));
        check(with(&[100, 200]), &[], Ok(()));
        check(with(&[99]), &[11], Err("table \"t\": statement 1 is there in part, 1 of 2 rows"));
        check(with(&[100]), &[11, 20], Err("table \"t\": statement 1 is there in part, 1 of 2 rows"));
        let mut expired = with(&[]);
        expired.tables.get_mut("t").expect("made above").expire(100);
        check(expired.clone(), &[11], Ok(()));
        check(expired, &[10, 11], Err("table \"t\": row 10 was never written"));
    }

    #[test]
    fn a_lost_table_is_seen() {
        assert_eq!(table(&[]).settle(&Found::new()), Err("table \"t\" was created and is gone".to_string()));
    }
}
