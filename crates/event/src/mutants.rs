//! Known bugs, put back to see that the simulation finds them. Without the feature `mutants` there are none, and no trace of them.

/// Whether the bug of that name is put back: `ANNAL_MUTANT` names it.
#[inline]
pub fn is_back(name: &str) -> bool {
    cfg!(feature = "mutants") && std::env::var("ANNAL_MUTANT").is_ok_and(|mutant| mutant == name)
}
