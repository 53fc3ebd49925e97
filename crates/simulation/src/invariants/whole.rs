//! No statement happens twice or in part, and none that was refused or never sent happens at all.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Fate, History, Read};

/// For every read *r* of a table: no row is found twice; every row found belongs to a statement that was sent and not answered with an error
/// that says it did not happen; and of each statement either every row in windows that nobody asked to forget before *r* was answered is found,
/// or none. Statements whose fate is unknown are no exception.
///
/// # Errors
/// The violation in words.
pub fn check(history: &History, read: &Read) -> Result<(), String> {
    let mut found: BTreeSet<i64> = BTreeSet::new();
    for id in &read.ids {
        if !found.insert(*id) {
            return Err(format!("row {id} is there twice"));
        }
        let owner = history.owner(*id).ok_or_else(|| format!("row {id} was never written"))?;
        if history.written[owner].fate == Fate::Refused {
            return Err(format!("row {id} of statement {owner} is there, and the statement was refused"));
        }
        if !history.written[owner].rows.contains_key(&read.table) {
            return Err(format!("row {id} of statement {owner} was written to another table"));
        }
    }
    let maybe_expired_us = history.tables.get(&read.table).and_then(|table| table.maybe_expired_us(read.ended));
    for (number, _, rows) in history.written_to(&read.table) {
        let kept = rows.iter().filter(|(_, end_us)| maybe_expired_us.is_none_or(|before_us| **end_us > before_us));
        let (there, all) =
            kept.fold((0, 0), |(there, all), (id, _)| (there + usize::from(found.contains(id)), all + 1));
        if there != 0 && there != all {
            return Err(format!("statement {number} is there in part, {there} of {all} rows"));
        }
    }
    Ok(())
}

/// For every statement that wrote to several tables: when all of them were read in one cut, or after the last statement had come to its end, it
/// is found in each of them, or in none. Tables that may have been dropped or lost windows say nothing.
///
/// # Errors
/// The violation in words.
pub fn check_across(history: &History, reads: &BTreeMap<String, BTreeSet<i64>>) -> Result<(), String> {
    for (number, written) in history.written.iter().enumerate() {
        let mut there = None;
        for (name, rows) in &written.rows {
            let expires = history.tables.get(name).is_none_or(|table| !table.expired.is_empty());
            let Some(found) = reads.get(name).filter(|_| !expires) else { continue };
            let is_there = rows.keys().any(|id| found.contains(id));
            if *there.get_or_insert(is_there) != is_there {
                return Err(format!("statement {number} is in one of its tables and not in another"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(ids: &[i64], fate: Fate, expected: Result<(), &str>) {
        let mut history = History::default();
        let number = history.begin(0, BTreeMap::from([("t".to_owned(), BTreeMap::from([(10, 100), (11, 200)]))]));
        history.end(number, fate);
        let read = Read { node: 0, table: "t".into(), begun: history.tick(), ended: history.tick(), ids: ids.to_vec() };
        assert_eq!(check(&history, &read), expected.map_err(str::to_owned));
    }

    #[test]
    fn every_kind_of_violation_is_seen() {
        check_one(&[], Fate::Unknown, Ok(()));
        check_one(&[11, 10], Fate::Unknown, Ok(()));
        check_one(&[10], Fate::Open, Err("statement 0 is there in part, 1 of 2 rows"));
        check_one(&[10, 11, 10], Fate::Unknown, Err("row 10 is there twice"));
        check_one(&[12], Fate::Unknown, Err("row 12 was never written"));
        check_one(&[10, 11], Fate::Refused, Err("row 10 of statement 0 is there, and the statement was refused"));
    }

    #[test]
    fn a_transaction_in_one_of_two_tables_is_seen() {
        let mut history = History::default();
        let created = history.change();
        for name in ["t", "u"] {
            let table = crate::history::TableHistory { created, dropped: None, expired: Vec::new() };
            history.tables.insert(name.to_owned(), table);
        }
        let rows = |id| BTreeMap::from([(id, 100)]);
        history.begin(0, BTreeMap::from([("t".to_owned(), rows(1)), ("u".to_owned(), rows(2))]));
        let mut reads = BTreeMap::from([("t".to_owned(), BTreeSet::from([1])), ("u".to_owned(), BTreeSet::from([2]))]);
        assert_eq!(check_across(&history, &reads), Ok(()));
        reads.insert("u".to_owned(), BTreeSet::new());
        assert!(check_across(&history, &reads).is_err());
    }
}
