//! Every bound of the system, with the relations between them checked when it is compiled.
//!
//! Sizes are bytes, counts are counts, durations carry their unit in the name.

/// The largest Raft entry. What a statement or transaction holds beyond this goes the bulk way.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;
/// Bytes of the rows that one statement or transaction deletes, as an entry names them.
pub const DELETE_BYTES_MAX: usize = 3 << 20;
/// Reading the log for replication or re-apply stops after this many bytes.
pub const LOG_READ_BYTES_MAX: usize = 8 << 20;
/// The size at which the node's log rolls to the next file.
pub const LOG_FILE_BYTES: u64 = 64 << 20;
/// Log files kept for the next use: one that is new, or those whose records were purged.
pub const LOG_SPARES_MAX: usize = 2;
/// How long the log waits before it looks again for room on a full disk.
pub const LOG_FULL_RETRY_MS: u64 = 200;
/// Log files that one group may keep from being used again before it is checkpointed for that reason alone.
pub const LOG_FILES_HELD_MAX: u64 = 4;
/// Appends waiting for the log writer.
pub const LOG_QUEUE_LEN: usize = 4096;
/// Bytes the log writer puts into one write before it syncs.
pub const LOG_WRITE_BYTES_MAX: usize = 16 << 20;
/// Writes of the log up to this size find zeros where they go; a larger one turns reserved room into written blocks by itself.
pub const LOG_SMALL_WRITE_BYTES: u64 = 64 << 10;
/// Zeros that a small write brings along for those after it.
pub const LOG_ZEROS_BYTES: usize = 256 << 10;
/// Bytes of appends waiting for the log writer.
pub const LOG_QUEUE_BYTES: usize = 64 << 20;
/// Bytes of synced records kept in memory, so that the recent ones are read without the disk.
pub const LOG_CACHE_BYTES: usize = 32 << 20;
/// File operations under way at once.
pub const DISK_CALLS_MAX: usize = 64;
/// Objects of the embedded store kept open for reading.
pub const OPEN_OBJECTS_MAX: usize = 256;
/// Objects of one statement or seal written to the embedded store at once.
pub const PUTS_MAX: usize = 8;

/// How long the proposer waits for company before it proposes an entry.
pub const PROPOSE_LINGER_US: u64 = 500;
/// Statements waiting for the proposer.
pub const PROPOSE_QUEUE_LEN: usize = 4096;
/// Bytes of statements waiting for the proposer or in flight.
pub const PROPOSE_QUEUE_BYTES: usize = 64 << 20;
/// Statements of one entry.
pub const ENTRY_STATEMENTS_MAX: usize = 4096;
/// Entries of a group proposed and not yet applied.
pub const ENTRIES_IN_FLIGHT_MAX: usize = 4;
/// Bytes of entries kept decoded between append and apply.
pub const APPLY_CACHE_BYTES: usize = 32 << 20;

/// Bytes of statements of a group in flight on one node; beyond them, or fewer when it falls behind, statements are refused.
pub const ADMISSION_BYTES_MAX: u64 = PROPOSE_QUEUE_BYTES as u64;
/// The fewest bytes in flight that a group which falls behind is left.
pub const ADMISSION_BYTES_MIN: u64 = 1 << 20;
/// Statements in flight that are never too many, whatever they bring: those wait instead of being refused.
pub const ADMISSION_STATEMENTS_MIN: usize = 32;
/// What a small statement counts, so that no more are in flight than the proposer's queue holds.
pub const ADMISSION_STATEMENT_BYTES_MIN: u64 = ADMISSION_BYTES_MAX / PROPOSE_QUEUE_LEN as u64;

/// How long a statement or read looks for a leader that answers.
pub const LEADER_WAIT_MS: u64 = 20_000;
/// How long one leader may take to answer before it is asked again.
pub const LEADER_ATTEMPT_MS: u64 = 10_000;
/// Bytes of one message between nodes.
pub const PEER_MESSAGE_BYTES_MAX: usize = 20 << 20;
/// Bytes of a segment in one message.
pub const PEER_PIECE_BYTES: usize = 1 << 20;
/// Pieces of a segment read ahead of the node that fetches it.
pub const SERVED_PIECES_MAX: usize = 4;
/// Sets of segments kept for statements of other nodes that are not committed yet.
pub const PROMISES_MAX: usize = 1024;
/// Data groups of a new cluster: as many as there are voters, so that each of those can lead one.
pub const DATA_GROUPS: usize = 3;
/// Shards of one table.
pub const SHARDS_MAX: u32 = 64;
/// Join tokens that nobody has used yet.
pub const JOIN_TOKENS_MAX: usize = 256;
/// Voters of a group, once there are enough nodes, unless a table in it asks for more.
pub const VOTERS: usize = 3;
/// Voters that a table can ask for.
pub const VOTERS_MAX: usize = 7;
/// A voter that its leader has not heard for so long gives its vote to a learner, if there is one.
pub const REPLACE_AFTER_MS: u64 = 300_000;
/// A node that has not answered for so long is down.
pub const NODE_DOWN_AFTER_MS: u64 = 10_000;
/// How long a node that stops waits for others to take over what it leads.
pub const HAND_OVER_WAIT_MS: u64 = 3_000;
/// Entries by which a learner may be behind when it becomes a voter.
pub const PROMOTE_LAG_ENTRIES: u64 = 1_000;

/// Statements that wait for memory at once; one more is refused.
pub const MEMORY_WAITERS_MAX: usize = 64;
/// Rows of one statement or transaction kept in memory before they are staged as segments.
pub const STAGE_BYTES_MAX: usize = 32 << 20;
/// Unflushed bytes of a group above which it is sealed.
pub const SEAL_BYTES: usize = 64 << 20;
/// Age of the oldest unflushed row at which a group is sealed.
pub const SEAL_AGE_MS: u64 = 600_000;
/// Unflushed rows of an ended window are sealed after this time.
pub const SEAL_WINDOW_GRACE_MS: u64 = 60_000;
/// Raft entries since the last checkpoint above which a group is sealed, rows or none.
pub const SEAL_ENTRIES: u64 = 20_000;
/// Seals that may wait for their Install.
pub const SEALS_OUTSTANDING_MAX: usize = 2;

/// Names of objects in one question to another node.
pub const NAMES_ASKED_MAX: usize = 1000;

/// Segments merged at once.
pub const COMPACT_INPUTS_MAX: usize = 16;
/// Bytes of the segments merged at once, and about those of their output.
pub const COMPACT_BYTES_MAX: u64 = 128 << 20;
/// Objects that only a checkpoint still names make a new one after this time.
pub const GARBAGE_AGE_MS: u64 = 60_000;

/// Bytes of the segment descriptions of one Install.
pub const INSTALL_BYTES_MAX: usize = 16 << 20;
/// Entries of the catalog group since its checkpoint above which it is checkpointed.
pub const CATALOG_CHECKPOINT_ENTRIES: u64 = 1000;
/// Flushes asked for and not yet begun.
pub const FLUSH_QUEUE_LEN: usize = 16;

/// Rows of a Parquet row group.
pub const ROW_GROUP_ROWS: usize = 128 << 10;
/// Rows of a Parquet data page.
pub const PAGE_ROWS: usize = 16 << 10;

/// The largest message a client may send.
pub const CLIENT_MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Bytes of large messages that all clients together have sent and that are still worked on.
pub const CLIENT_INPUT_BYTES_MAX: usize = 256 << 20;
/// Connections served at once.
pub const CONNECTIONS_MAX: usize = 1000;
/// COPY data waiting between the socket and the decoder.
pub const COPY_QUEUE_LEN: usize = 8;
/// Blocks of one COPY that are decoded at once, or wait for those before them.
pub const COPY_BLOCKS_MAX: usize = 4;
/// Manifests given to readers outside whose files are kept at once.
pub const HOLDS_MAX: usize = 64;
/// Blocks of segments whose checksum this process remembers: four bytes each, for 256 GiB of segments.
pub const PROVEN_BLOCKS_MAX: u64 = 1 << 24;
/// Decoded Parquet footers kept for the next query.
pub const SEGMENT_FOOTER_CACHE_BYTES: usize = 64 << 20;
/// Bytes of the rows that RETURNING gives back.
pub const RETURNING_BYTES_MAX: usize = 64 << 20;
/// Rows of one INSERT with ON CONFLICT that come from a query: they are held until all keys were looked up.
pub const CONFLICT_BYTES_MAX: usize = 64 << 20;
/// Open cursors of one session: each is a query that waits for its rows to be fetched.
pub const CURSORS_MAX: usize = 64;
/// Result batches waiting between a query and its socket.
pub const RESULT_QUEUE_LEN: usize = 4;

const _: () = assert!(DELETE_BYTES_MAX < ENTRY_BYTES_MAX);
const _: () = assert!(LOG_READ_BYTES_MAX >= ENTRY_BYTES_MAX);
// A request to append holds what one read of the log gives, at least one entry, and an entry beyond it at most.
const _: () = assert!(PEER_MESSAGE_BYTES_MAX >= LOG_READ_BYTES_MAX + ENTRY_BYTES_MAX);
const _: () = assert!(PEER_MESSAGE_BYTES_MAX > INSTALL_BYTES_MAX);
const _: () = assert!(PEER_PIECE_BYTES < PEER_MESSAGE_BYTES_MAX);
const _: () = assert!(LEADER_ATTEMPT_MS < LEADER_WAIT_MS);
const _: () = assert!(VOTERS % 2 == 1 && VOTERS_MAX % 2 == 1 && VOTERS <= VOTERS_MAX);
const _: () = assert!(PROPOSE_QUEUE_BYTES >= ENTRIES_IN_FLIGHT_MAX * ENTRY_BYTES_MAX);
const _: () =
    assert!(ADMISSION_BYTES_MIN >= 64 * ADMISSION_STATEMENT_BYTES_MIN && ADMISSION_BYTES_MIN < ADMISSION_BYTES_MAX);
const _: () = assert!(APPLY_CACHE_BYTES >= ENTRIES_IN_FLIGHT_MAX * ENTRY_BYTES_MAX);
const _: () = assert!(LOG_WRITE_BYTES_MAX >= ENTRY_BYTES_MAX);
const _: () = assert!(LOG_QUEUE_BYTES >= LOG_WRITE_BYTES_MAX);
const _: () = assert!(LOG_ZEROS_BYTES as u64 > LOG_SMALL_WRITE_BYTES);
const _: () = assert!(LOG_FILE_BYTES > 2 * INSTALL_BYTES_MAX as u64);
const _: () = assert!(LOG_FILE_BYTES >= 4 * ENTRY_BYTES_MAX as u64);
const _: () = assert!(STAGE_BYTES_MAX >= ENTRY_BYTES_MAX);
const _: () = assert!(SEAL_BYTES >= ENTRY_BYTES_MAX);
const _: () = assert!(CLIENT_MESSAGE_BYTES_MAX >= ENTRY_BYTES_MAX);
const _: () = assert!(CLIENT_INPUT_BYTES_MAX >= CLIENT_MESSAGE_BYTES_MAX);
const _: () = assert!(ROW_GROUP_ROWS.is_multiple_of(PAGE_ROWS));
