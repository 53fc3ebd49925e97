//! What was acknowledged, every later strong read finds, on every node; and so what any earlier read found. A read that says how old it may be
//! does so as of then.

use crate::history::{Fate, History, Read};

/// For every read *r* of a table and every statement *s* that wrote to it: if *s* was acknowledged, or found by another read, before *r* was
/// asked for, then *r* finds each row of *s* whose window nobody asked to forget, and that nobody asked to delete, before *r* was answered. If the
/// windows before a time were forgotten, acknowledged before *r* was asked for, and *s* was acknowledged before that was asked for, then *r* finds
/// no row of *s* in them; and none at all if *s* was deleted, acknowledged before *r* was asked for. A read that is not strong and says how old
/// it may be counts as asked for that long before it was answered.
///
/// # Errors
/// The violation in words.
pub fn check(history: &History, read: &Read) -> Result<(), String> {
    let table = history.tables.get(&read.table).ok_or("it was never created")?;
    let found: std::collections::BTreeSet<i64> = read.ids.iter().copied().collect();
    let maybe_expired_us = table.maybe_expired_us(read.ended);
    for (number, written, rows) in history.written_to(&read.table) {
        let acknowledged = match written.fate {
            Fate::Acknowledged(at) if at < read.begun => Some(at),
            _ => None,
        };
        let maybe_deleted = written.deleted.iter().any(|delete| delete.may_have_happened_before(read.ended));
        let must_be_there =
            !maybe_deleted && (acknowledged.is_some() || written.seen.is_some_and(|at| at < read.begun));
        let deleted = written.deleted.iter().any(|delete| delete.is_done_before(read.begun));
        if deleted && let Some(id) = rows.keys().find(|id| found.contains(id)) {
            return Err(format!("row {id} of statement {number} was deleted and is back"));
        }
        let kept = |end_us: i64| maybe_expired_us.is_none_or(|before_us| end_us > before_us);
        if must_be_there && let Some((id, _)) = rows.iter().find(|(id, end_us)| kept(**end_us) && !found.contains(id)) {
            let how = if acknowledged.is_some() { "acknowledged" } else { "read before" };
            return Err(format!("row {id} of statement {number} was {how} and is lost"));
        }
        for (before_us, change) in &table.expired {
            let forgotten = change.is_done_before(read.begun) && acknowledged.is_some_and(|at| at < change.begun);
            let back = |(id, end_us): &(&i64, &i64)| **end_us <= *before_us && found.contains(id);
            if forgotten && let Some((id, _)) = rows.iter().find(back) {
                return Err(format!("row {id} of statement {number} was forgotten with its window and is back"));
            }
        }
    }
    Ok(())
}

/// For every strong read *r* of the catalog and every table *t*: if the CREATE of *t* was acknowledged before *r* was asked for and no DROP was
/// sent before *r* was answered, then *r* finds *t*; if its DROP was acknowledged before *r* was asked for, or its CREATE never sent, it does not.
///
/// # Errors
/// The violation in words.
pub fn check_catalog(history: &History, names: &[String], begun: u64, ended: u64) -> Result<(), String> {
    for (name, table) in &history.tables {
        let there = names.contains(name);
        let dropped = table.dropped.as_ref();
        if !there && table.created.is_done_before(begun) && dropped.is_none_or(|drop| drop.begun > ended) {
            return Err(format!("table \"{name}\" was created and is gone"));
        }
        if there && dropped.is_some_and(|drop| drop.is_done_before(begun)) {
            return Err(format!("table \"{name}\" was dropped and is still there"));
        }
    }
    match names.iter().find(|name| !history.tables.contains_key(*name)) {
        Some(name) => Err(format!("table \"{name}\" was never created")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::history::{Change, TableHistory};

    fn read(history: &mut History, ids: &[i64]) -> Result<(), String> {
        let (begun, ended) = (history.tick(), history.tick());
        let read = Read { node: 0, table: "t".into(), begun, ended, ids: ids.to_vec() };
        check(history, &read)?;
        history.note_seen(&read);
        Ok(())
    }

    fn history() -> History {
        let mut history = History::default();
        let created = Change { begun: history.tick(), fate: Fate::Acknowledged(1) };
        history.tables.insert("t".into(), TableHistory { created, dropped: None, expired: Vec::new() });
        let rows = BTreeMap::from([("t".to_owned(), BTreeMap::from([(10, 100), (11, 200)]))]);
        assert_eq!(history.begin(0, rows), 0);
        history
    }

    #[test]
    fn what_was_acknowledged_or_seen_must_be_found() {
        let mut history = history();
        assert_eq!(read(&mut history, &[]), Ok(()), "it may not have happened yet");
        assert_eq!(read(&mut history, &[10, 11]), Ok(()));
        let lost = "row 10 of statement 0 was read before and is lost";
        assert_eq!(read(&mut history, &[11]), Err(lost.to_owned()));
        let at = history.tick();
        history.end(0, Fate::Acknowledged(at));
        assert!(read(&mut history, &[10]).unwrap_err().contains("row 11 of statement 0 was acknowledged and is lost"));
    }

    #[test]
    fn a_window_that_was_forgotten_stays_forgotten() {
        let mut history = history();
        let at = history.tick();
        history.end(0, Fate::Acknowledged(at));
        let mut change = history.change();
        history.tables.get_mut("t").unwrap().expired.push((100, change));
        assert_eq!(read(&mut history, &[10, 11]), Ok(()), "not yet");
        assert_eq!(read(&mut history, &[11]), Ok(()), "already");
        change.fate = Fate::Acknowledged(history.tick());
        history.tables.get_mut("t").unwrap().expired[0].1 = change;
        assert!(read(&mut history, &[10, 11]).unwrap_err().contains("is back"));
    }
}
