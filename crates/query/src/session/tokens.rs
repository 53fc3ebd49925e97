//! Commit tokens: what a session has written, in a form that another session can ask to see.
//!
//! A token names for each group the entry up to which it is to be seen, `group:entry` with commas between. Tokens of several commits can
//! be joined by a comma: the later entry of each group counts.

use cluster::Positions;
use event::GroupId;

/// The token of `positions`.
pub(super) fn write(positions: &Positions) -> String {
    let each = positions.iter().map(|(group, index)| format!("{group}:{index}"));
    each.collect::<Vec<_>>().join(",")
}

/// What a token names; `None` when it is none. The empty one names nothing.
pub(super) fn read(token: &str) -> Option<Positions> {
    let mut positions = Positions::new();
    for part in token.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (group, index) = part.split_once(':')?;
        add(&mut positions, GroupId(group.trim().parse().ok()?), index.trim().parse().ok()?);
    }
    Some(positions)
}

/// What is to be seen now, too.
pub(super) fn add(positions: &mut Positions, group: GroupId, index: u64) {
    let known = positions.entry(group).or_default();
    *known = (*known).max(index);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let positions = Positions::from([(GroupId(1), 7), (GroupId(3), u64::MAX)]);
        assert_eq!(write(&positions), "1:7,3:18446744073709551615");
        assert_eq!(read(&write(&positions)), Some(positions));
        assert_eq!(read(" 2:9 , 1:4, 2:3,"), Some(Positions::from([(GroupId(1), 4), (GroupId(2), 9)])));
        assert_eq!(read(""), Some(Positions::new()));
        for bad in ["7", "1:", ":7", "1:x", "1:7;2:8", "-1:7"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
