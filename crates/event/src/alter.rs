//! Changes of a definition's columns. Rows are not touched: they are read by the ids and the stored names of columns.

use crate::ids::ColumnId;
use crate::table::{Column, DroppedColumn, TableDefinition, TableKind};
use crate::types::ColumnType;

impl TableDefinition {
    /// Adds a column behind the others; its id and its name in files are chosen here.
    pub fn add_column(&mut self, column: Column) {
        let dropped = self.dropped.iter().map(|column| column.id.0);
        let last = self.columns.iter().map(|column| column.id.0).chain(dropped).max().unwrap_or(0);
        let is_free = |name: &String| {
            self.columns.iter().all(|column| column.stored_name() != name)
                && self.dropped.iter().all(|column| column.stored != *name)
        };
        let numbered = (2..).map(|number: u32| format!("{}__{number}", column.name));
        let stored = std::iter::once(column.name.clone()).chain(numbered).find(is_free);
        let stored = stored.filter(|stored| *stored != column.name);
        self.columns.push(Column { id: ColumnId(last + 1), stored, ..column });
    }

    /// Gives the column at `at` another name.
    pub fn rename_column(&mut self, at: usize, name: String) {
        let column = &mut self.columns[at];
        let stored = column.stored_name().to_owned();
        column.stored = Some(stored).filter(|stored| *stored != name);
        column.name = name;
    }

    /// Takes the column at `at` away, with the keys of a reference table that it is in.
    ///
    /// # Panics
    /// For a column that orders the rows of an event table.
    pub fn drop_column(&mut self, at: usize) {
        let column = self.columns.remove(at);
        self.dropped.push(DroppedColumn { id: column.id, stored: column.stored.unwrap_or(column.name) });
        let moved = |position: &mut usize| *position -= usize::from(*position > at);
        self.unique.retain(|key| !key.columns.contains(&at));
        self.unique.iter_mut().flat_map(|key| &mut key.columns).for_each(moved);
        if self.primary_key.contains(&at) {
            assert!(self.event().is_none(), "a column of the primary key orders the rows of an event table");
            self.primary_key.clear();
            self.primary_key_named = None;
        }
        self.primary_key.iter_mut().for_each(moved);
        if let TableKind::Event(options) = &mut self.kind {
            assert!(options.time_column != at && !options.series.contains(&at), "the column orders the rows");
            moved(&mut options.time_column);
            options.series.iter_mut().for_each(moved);
            options.sharding.by.iter_mut().for_each(moved);
        }
    }
}

impl ColumnType {
    /// Whether every value of this type is one of `other` as it stands, the type itself included.
    pub fn widens_to(&self, other: ColumnType) -> bool {
        use ColumnType::{BigInt, Double, Integer, Numeric, Real, SmallInt};
        let digits = |integer: ColumnType| match integer {
            SmallInt => Some(5),
            Integer => Some(10),
            BigInt => Some(19),
            _ => None,
        };
        match (*self, other) {
            (own, other) if own == other => true,
            (SmallInt, Integer | BigInt | Real | Double) | (Integer, BigInt | Double) | (Real, Double) => true,
            // Statistics of segments are unscaled: the scale stays.
            (Numeric { precision: p, scale: s }, Numeric { precision, scale }) => scale == s && precision >= p,
            (own, Numeric { precision, scale }) => {
                digits(own).is_some_and(|digits| i16::from(precision) - i16::from(scale) >= digits)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{SchemaVersion, TableId};
    use crate::table::{Compression, Dedup, EventOptions, UniqueKey};

    fn column(id: u32, name: &str) -> Column {
        let (column_type, nullable, default) = (ColumnType::Timestamp, false, None);
        Column {
            id: ColumnId(id),
            name: name.to_owned(),
            stored: None,
            column_type,
            nullable,
            default,
            initial: None,
            identity: None,
            modifier: None,
            required: false,
        }
    }

    fn table(kind: TableKind) -> TableDefinition {
        TableDefinition {
            id: TableId(1),
            namespace: "public".to_owned(),
            name: "t".to_owned(),
            version: SchemaVersion(1),
            columns: vec![column(1, "a"), column(2, "b"), column(3, "ts")],
            primary_key: vec![2],
            primary_key_named: None,
            unique: Vec::new(),
            kind,
            compression: Compression::Zstd,
            checks: Vec::new(),
            consistency: crate::Consistency::Strong,
            replicas: crate::Replicas::default(),
            dropped: Vec::new(),
        }
    }

    fn names(table: &TableDefinition) -> Vec<(u32, &str, &str)> {
        table.columns.iter().map(|c| (c.id.0, c.name.as_str(), c.stored_name())).collect()
    }

    #[test]
    fn names_in_files_and_ids_are_given_once() {
        let mut table = table(TableKind::Reference);
        table.rename_column(0, "x".to_owned());
        table.add_column(column(0, "a"));
        table.drop_column(3);
        table.drop_column(1);
        table.add_column(column(0, "a"));
        table.add_column(column(0, "b"));
        table.rename_column(0, "a2".to_owned());
        assert_eq!(names(&table), [(1, "a2", "a"), (3, "ts", "ts"), (5, "a", "a__3"), (6, "b", "b__2")]);
        table.rename_column(0, "c".to_owned());
        table.rename_column(2, "d".to_owned());
        table.rename_column(0, "a".to_owned());
        assert_eq!(names(&table)[0], (1, "a", "a"));
    }

    #[test]
    fn positions_follow_their_columns() {
        let options = EventOptions {
            time_column: 2,
            series: vec![1],
            split_interval_us: 1,
            retention_us: None,
            dedup: Dedup::None,
            sharding: crate::Sharding { shards: 2, by: vec![1] },
        };
        let mut events = table(TableKind::Event(options));
        events.drop_column(0);
        assert_eq!(events.event().unwrap().sharding.by, [0]);
        assert_eq!((&events.primary_key[..], &events.event().unwrap().sort_key()[..]), (&[1][..], &[0, 1][..]));

        let mut rows = table(TableKind::Reference);
        let key = |name: &str, columns: &[usize]| UniqueKey { name: name.to_owned(), columns: columns.to_vec() };
        rows.unique = vec![key("k", &[0, 2]), key("l", &[1, 2])];
        rows.drop_column(0);
        assert_eq!((&rows.primary_key[..], &rows.unique[..]), (&[1][..], &[key("l", &[0, 1])][..]));
        rows.drop_column(1);
        assert!(rows.primary_key.is_empty() && rows.unique.is_empty());
    }

    #[test]
    fn a_wider_type_holds_every_value() {
        let numeric = |precision, scale| ColumnType::Numeric { precision, scale };
        assert!(
            ColumnType::SmallInt.widens_to(ColumnType::BigInt) && ColumnType::Integer.widens_to(ColumnType::Double)
        );
        assert!(!ColumnType::BigInt.widens_to(ColumnType::Double) && !ColumnType::Integer.widens_to(ColumnType::Real));
        assert!(!ColumnType::BigInt.widens_to(ColumnType::Integer) && !ColumnType::Double.widens_to(ColumnType::Real));
        assert!(ColumnType::Integer.widens_to(numeric(12, 2)) && !ColumnType::Integer.widens_to(numeric(11, 2)));
        assert!(numeric(10, 2).widens_to(numeric(12, 2)) && !numeric(10, 2).widens_to(numeric(12, 4)));
    }
}
