//! A segment never crosses its window.

use cluster::TableSnapshot;
use event::split::window_of;

/// For every segment of every manifest: its smallest and largest event times lie in the window of its split, and so do those of the rows of a
/// split that are still in memory.
///
/// # Errors
/// The violation in words.
pub fn check(snapshot: &TableSnapshot) -> Result<(), String> {
    let Some(options) = snapshot.table.definition.event() else { return Ok(()) };
    for shard in &snapshot.shards {
        let segments =
            shard.segments.iter().map(|s| (s.meta.name.as_str(), s.meta.split, s.meta.time_min_us, s.meta.time_max_us));
        let memory = shard.memory.iter().map(|rows| ("memory", rows.split, rows.time_min_us, rows.time_max_us));
        for (name, split, min_us, max_us) in segments.chain(memory) {
            let (begin_us, end_us) = window_of(split, options.split_interval_us);
            let within = |time_us: Option<i64>| time_us.is_none_or(|time_us| begin_us <= time_us && time_us < end_us);
            if !within(min_us) || !within(max_us) {
                return Err(format!("\"{name}\" has rows outside the window of split {split}"));
            }
        }
    }
    Ok(())
}
