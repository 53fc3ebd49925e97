//! A session reads what it wrote, on every node.

use std::collections::BTreeSet;

use crate::history::{Fate, History, Read};

/// For every read *r* that a client asks for with its commit tokens, `asked` at that moment, and every statement *s* of the same client: if *s* was
/// acknowledged before, then *r* finds each row of *s* whose window nobody asked to forget, and that nobody asked to delete, before *r* was
/// answered.
///
/// # Errors
/// The violation in words.
pub fn check(history: &History, read: &Read, client: usize, asked: u64) -> Result<(), String> {
    let found: BTreeSet<i64> = read.ids.iter().copied().collect();
    let maybe_expired_us = history.tables.get(&read.table).and_then(|table| table.maybe_expired_us(read.ended));
    for (number, written, rows) in history.written_to(&read.table) {
        let is_own = written.client == client && matches!(written.fate, Fate::Acknowledged(at) if at < asked);
        let maybe_deleted = written.deleted.iter().any(|delete| delete.may_have_happened_before(read.ended));
        if !is_own || maybe_deleted {
            continue;
        }
        let kept = |end_us: i64| maybe_expired_us.is_none_or(|before_us| end_us > before_us);
        if let Some((id, _)) = rows.iter().find(|(id, end_us)| kept(**end_us) && !found.contains(id)) {
            return Err(format!(
                "node {} read table \"{}\": row {id} of statement {number} is the session's own, and not there",
                read.node + 1,
                read.table
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_client_misses_only_its_own_rows() {
        let mut history = History::default();
        let number = history.begin(3, BTreeMap::from([("t".to_owned(), BTreeMap::from([(10, 100)]))]));
        let at = history.tick();
        history.end(number, Fate::Acknowledged(at));
        let asked = history.tick();
        let read = Read { node: 0, table: "t".into(), begun: 0, ended: history.tick(), ids: vec![] };
        assert_eq!(check(&history, &read, 2, asked), Ok(()), "another's");
        assert_eq!(check(&history, &read, 3, at), Ok(()), "not acknowledged when it was asked for");
        assert!(check(&history, &read, 3, asked).unwrap_err().contains("row 10 of statement 0 is the session's own"));
        assert_eq!(check(&history, &Read { ids: vec![10], ..read }, 3, asked), Ok(()));
    }
}
