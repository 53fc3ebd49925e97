//! Known bugs, put back to see that the simulation finds them. Without the feature `mutants` there are none, and no trace of them.

use std::sync::OnceLock;

/// Whether the bug of that name is put back: `ANNAL_MUTANT` names it.
#[inline]
pub fn is_back(name: &str) -> bool {
    static BACK: OnceLock<Option<String>> = OnceLock::new();
    cfg!(feature = "mutants") && BACK.get_or_init(|| std::env::var("ANNAL_MUTANT").ok()).as_deref() == Some(name)
}
