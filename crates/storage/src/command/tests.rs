use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use event::{ColumnId, GroupId, NodeId, Origin, SchemaVersion, ShardId, SplitId, StatementId, TableId};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::segment::{ColumnStatistics, StatisticsValue};
use crate::testing::{any_rows, every_type_table, golden, kept, small_rows, small_table, wide_table};

fn statement(counter: u64, commands: Vec<Command>) -> Statement {
    let id = StatementId { node: NodeId(3), boot: 2, counter };
    Statement { origin: Origin { id, settled: counter / 2 }, commands }
}

fn append(shard: u64, rows: RecordBatch) -> Command {
    Command::Append { shard: ShardId(shard), version: SchemaVersion(1), rows }
}

fn meta() -> SegmentMeta {
    let value = StatisticsValue::Integer(i128::from(i64::MIN) * 3);
    let statistics = ColumnStatistics {
        column: ColumnId(1),
        nulls: 1,
        nans: 0,
        min: Some(StatisticsValue::FloatBits(f64::NEG_INFINITY.to_bits())),
        max: Some(StatisticsValue::Decimal(i128::MAX)),
        sum: Some(value),
    };
    SegmentMeta {
        name: "1/2/-3/9-1-1-0.parquet".to_owned(),
        table: TableId(1),
        shard: ShardId(2),
        split: SplitId(-3),
        version: SchemaVersion(1),
        rows: 10,
        bytes: 1000,
        checksum: 7,
        time_min_us: Some(i64::MIN),
        time_max_us: None,
        sequence_base: 0,
        distinct: false,
        columns: vec![statistics],
    }
}

fn entry() -> Entry {
    let put = SchemaChange::Put { shard: ShardId(4), table: Arc::new(wide_table()) };
    Entry {
        time_us: -5,
        statements: vec![
            statement(1, vec![append(1, small_rows(&[1, 2, 3])), append(2, small_rows(&[4]))]),
            statement(2, vec![append(1, small_rows(&[5])), append(1, small_rows(&[]))]),
            statement(3, vec![Command::Seal]),
            statement(4, vec![Command::Install(Install { seal: Some(9), segments: vec![meta()] })]),
            statement(5, vec![Command::Schema(put), Command::Schema(SchemaChange::Drop { shard: ShardId(5) })]),
            statement(6, vec![]),
        ],
    }
}

/// Commands hold batches, whose debug form shows every value.
fn assert_equal(a: &Entry, b: &Entry) {
    assert_eq!(a.time_us, b.time_us);
    assert_eq!(a.statements.len(), b.statements.len());
    for (a, b) in a.statements.iter().zip(&b.statements) {
        assert_eq!(a.origin, b.origin);
        assert_eq!(a.commands.len(), b.commands.len());
        for pair in a.commands.iter().zip(&b.commands) {
            match pair {
                (
                    Command::Append { shard: sa, version: va, rows: ra },
                    Command::Append { shard: sb, version: vb, rows: rb },
                ) => assert_eq!((sa, va, ra), (sb, vb, rb)),
                (Command::Install(a), Command::Install(b)) => assert_eq!(a, b),
                (a, b) => assert_eq!(format!("{a:?}"), format!("{b:?}")),
            }
        }
    }
}

#[test]
fn every_command_survives() {
    let mut entry = entry();
    let numbers = SequenceSet::range(3, 9);
    let splits = vec![(SplitId(-1), numbers.clone())];
    let replace =
        Replace { shard: ShardId(1), split: SplitId(0), inputs: vec![], outputs: vec![meta()], purged: numbers };
    let transaction = entry.statements[0].origin.id;
    let joined = vec![Joined { group: GroupId(2), index: 9 }, Joined { group: GroupId(1), index: u64::MAX }];
    entry.statements.push(statement(
        8,
        vec![
            Command::Delete(Delete { shard: ShardId(1), version: SchemaVersion(2), read: 7, splits }),
            Command::Replace(replace),
            Command::Expire { shard: ShardId(1), before_us: -1 },
            Command::Truncate { shard: ShardId(2) },
            Command::Expect { shard: ShardId(3), index: 4 },
            Command::Decide { transaction, commit: true, until_us: 8, joined: joined.clone() },
            Command::Prepare { transaction, decider: GroupId(3), until_us: -1 },
            Command::Conclude { transaction, commit: true, joined },
            Command::Settle { transaction },
        ],
    ));
    assert_equal(&Entry::decode(&entry.encode().unwrap()).unwrap(), &entry);
}

#[test]
fn entries_of_all_versions_open() {
    let mut entry = entry();
    let times: Vec<i64> = (0..500).collect();
    entry.statements.push(statement(7, vec![append(3, small_rows(&times))]));
    let today = golden("entry-v3.bin", &entry.encode().unwrap());
    assert_equal(&Entry::decode(&today).unwrap(), &entry);
    // Version 2 had no plain blocks.
    assert_equal(&Entry::decode(&kept("entry-v2.bin")).unwrap(), &entry);
    // Version 1 said nothing of what was settled.
    entry.statements.iter_mut().for_each(|statement| statement.origin.settled = 0);
    assert_equal(&Entry::decode(&kept("entry-v1.bin")).unwrap(), &entry);
}

#[test]
fn rows_of_one_shard_share_a_message() {
    let one = |count: u64| Entry {
        time_us: 0,
        statements: (0..count).map(|n| statement(n, vec![append(1, small_rows(&[n as i64]))])).collect(),
    };
    let single = one(1).encode().unwrap().len();
    let hundred = one(100).encode().unwrap().len();
    assert!(single < 200, "one row takes {single} bytes");
    assert!((hundred - single) / 99 < 80, "each further row takes {} bytes", (hundred - single) / 99);
}

#[test]
fn large_batches_are_compressed() {
    let times: Vec<i64> = (0..10_000).collect();
    let rows = small_rows(&times);
    let plain = crate::row_bytes(&rows);
    let entry = Entry { time_us: 0, statements: vec![statement(1, vec![append(1, rows)])] };
    let bytes = entry.encode().unwrap();
    assert!(bytes.len() < plain * 3 / 4, "{} bytes of {plain}", bytes.len());
    assert_equal(&Entry::decode(&bytes).unwrap(), &entry);
}

/// Where the values of the third column lie after a round trip, and the entry's bytes.
fn decoded_values(times: &[i64]) -> (*const u8, Bytes) {
    let entry = Entry { time_us: 0, statements: vec![statement(1, vec![append(1, small_rows(times))])] };
    let bytes = entry.encode().unwrap();
    let decoded = Entry::decode(&bytes).unwrap();
    let Command::Append { rows, .. } = &decoded.statements[0].commands[0] else { panic!("not an append") };
    (rows.column(2).to_data().buffers()[0].as_ptr(), bytes)
}

#[test]
fn large_columns_are_used_where_they_lie_and_small_ones_let_go() {
    let noise = (0..2000i64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64));
    let (values, bytes) = decoded_values(&noise.collect::<Vec<_>>());
    assert!(bytes.as_ptr_range().contains(&values), "the column was copied");
    let (values, bytes) = decoded_values(&[1, 2, 3]);
    assert!(!bytes.as_ptr_range().contains(&values), "three rows keep the entry");
}

#[test]
fn contradicting_definitions_are_refused() {
    let mut table = small_table(1);
    if let event::TableKind::Event(options) = &mut table.kind {
        options.time_column = 9;
    }
    let put = Command::Schema(SchemaChange::Put { shard: ShardId(1), table: Arc::new(table) });
    let bytes = Entry { time_us: 0, statements: vec![statement(1, vec![put])] }.encode().unwrap();
    let error = Entry::decode(&bytes).unwrap_err();
    assert_eq!(error.to_string(), "cannot decode table definition: table \"t1\" contradicts itself");
}

#[test]
fn every_cut_is_refused() {
    let bytes = entry().encode().unwrap();
    for len in 0..bytes.len() {
        assert!(Entry::decode(&bytes.slice(..len)).is_err(), "cut at {len}");
    }
}

#[test]
fn flipped_bytes_are_survived() {
    let flip = |whole: &Bytes, position: usize| {
        for mask in [0x01, 0x80, 0xff] {
            let mut bytes = whole.to_vec();
            bytes[position] ^= mask;
            let _ = Entry::decode(&Bytes::from(bytes));
        }
    };
    let small = entry().encode().unwrap();
    (0..small.len()).for_each(|position| flip(&small, position));
    let times: Vec<i64> = (0..1000).collect();
    let large = Entry { time_us: 0, statements: vec![statement(1, vec![append(1, small_rows(&times))])] };
    let large = large.encode().unwrap();
    (0..1000).chain((1000..large.len()).step_by(41)).for_each(|position| flip(&large, position));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_of_every_type_survive(parts in vec(any_rows(every_type_table(), 60, None), 1..4), misaligned in 0usize..16) {
        let statements =
            parts.iter().zip(1..).map(|(rows, n)| statement(n, vec![append(n % 2, rows.clone())])).collect();
        let entry = Entry { time_us: 1, statements };
        let bytes = entry.encode().unwrap();
        assert_equal(&Entry::decode(&bytes).unwrap(), &entry);
        let mut moved = vec![0; misaligned];
        moved.extend_from_slice(&bytes);
        assert_equal(&Entry::decode(&Bytes::from(moved).slice(misaligned..)).unwrap(), &entry);
    }

    #[test]
    fn slices_survive(rows in any_rows(every_type_table(), 60, None), start in 0usize..60, len in 0usize..60) {
        let start = start.min(rows.num_rows());
        let rows = rows.slice(start, len.min(rows.num_rows() - start));
        let entry = Entry { time_us: 1, statements: vec![statement(1, vec![append(1, rows)])] };
        assert_equal(&Entry::decode(&entry.encode().unwrap()).unwrap(), &entry);
    }

    #[test]
    fn arbitrary_bytes_are_survived(bytes in vec(any::<u8>(), 0..400)) {
        let _ = Entry::decode(&Bytes::from(bytes));
    }

    #[test]
    fn several_changed_bytes_are_survived(changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = entry().encode().unwrap().to_vec();
        for (position, value) in changes {
            let position = position.index(bytes.len());
            bytes[position] = value;
        }
        let _ = Entry::decode(&Bytes::from(bytes));
    }
}
