//! What holds whatever fails, one invariant a file.

pub mod acknowledged;
pub mod leaders;
pub mod own;
pub mod purged;
pub mod replicas;
pub mod whole;
pub mod windows;

use crate::history::{History, Read};

/// Checks what one read found, then remembers it.
///
/// # Errors
/// The first violation in words.
pub fn check_read(history: &mut History, read: &Read) -> Result<(), String> {
    let checked = whole::check(history, read).and_then(|()| acknowledged::check(history, read));
    checked.map_err(|reason| format!("node {} read table \"{}\": {reason}", read.node + 1, read.table))?;
    history.note_seen(read);
    Ok(())
}
