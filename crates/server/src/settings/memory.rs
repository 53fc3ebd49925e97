//! How the memory of a node is divided, from what the machine or its control group has.
//!
//! Invariant: memtables and queries together leave room for uncommitted rows and for the queues and caches whose sizes are fixed.

use std::path::{Path, PathBuf};

use super::{SettingsError, units};

/// The node gets this part of the machine's memory unless told otherwise.
const MACHINE_DIVISOR: u64 = 2;
/// What the node gets when the machine does not say how much memory it has.
const FALLBACK: u64 = 2 << 30;
/// Less memory than this cannot hold the log's queues and one query.
const NODE_MIN: u64 = 256 << 20;
/// Queries get this part of the node's memory unless told otherwise.
const QUERY_DIVISOR: u64 = 2;
/// Less memory than this runs no useful query.
const QUERY_MIN: u64 = 16 << 20;
/// A seal has at most this part of the node's memory, and memtables some seals.
const SEAL_DIVISOR: u64 = 16;

/// Validated sizes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What memtables, uncommitted rows and queries may hold together.
    pub node: usize,
    /// What all running queries may hold of it.
    pub queries: usize,
    /// Unflushed bytes of a group above which it is sealed.
    pub seal: usize,
}

impl Memory {
    /// Sizes as the file gives them, and the defaults for a machine with `machine` bytes.
    pub(super) fn resolve(
        node: Option<&str>,
        queries: Option<&str>,
        seal: Option<&str>,
        machine: Option<u64>,
    ) -> Result<Memory, SettingsError> {
        let node = match node {
            Some(text) => units::bytes("memory", text)?,
            None => machine.map_or(FALLBACK, |all| all / MACHINE_DIVISOR).max(NODE_MIN),
        };
        at_least("memory", node, NODE_MIN)?;
        let queries = match queries {
            Some(text) => units::bytes("query.memory", text)?,
            None => node / QUERY_DIVISOR,
        };
        at_least("query.memory", queries, QUERY_MIN)?;
        let seal_min = event::limits::ENTRY_BYTES_MAX as u64;
        let seal = match seal {
            Some(text) => units::bytes("storage.seal_size", text)?,
            None => (node / SEAL_DIVISOR).clamp(seal_min, event::limits::SEAL_BYTES as u64),
        };
        at_least("storage.seal_size", seal, seal_min)?;
        for (key, bytes, bytes_max) in
            [("query.memory", queries, node), ("storage.seal_size", seal, node / SEAL_DIVISOR)]
        {
            if bytes > bytes_max {
                let message = format!(
                    "\"{key}\" is {} MiB, more than {} MiB, which \"memory\" leaves for it",
                    bytes >> 20,
                    bytes_max >> 20
                );
                return Err(SettingsError::new(message).with_hint("raise \"memory\", or lower this"));
            }
        }
        Ok(Memory {
            node: word("memory", node)?,
            queries: word("query.memory", queries)?,
            seal: word("storage.seal_size", seal)?,
        })
    }
}

fn at_least(key: &str, bytes: u64, bytes_min: u64) -> Result<(), SettingsError> {
    if bytes >= bytes_min {
        return Ok(());
    }
    Err(SettingsError::new(format!("\"{key}\" must be at least {} MiB", bytes_min >> 20)))
}

fn word(key: &str, bytes: u64) -> Result<usize, SettingsError> {
    usize::try_from(bytes).map_err(|_| SettingsError::new(format!("\"{key}\" is beyond this machine's address space")))
}

/// Bytes of memory this machine has, or the process's control group may use.
pub(super) fn of_machine() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = meminfo.lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim();
        kib.parse::<u64>().ok()
    })?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|file| {
        // "max" means none.
        std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()
    });
    limits.chain([total << 10]).min()
}

/// The files that bound the memory of a process in `groups` (the content of `/proc/self/cgroup`), of both versions. In a container the
/// group's own directory may be mounted at the top.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (mount, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            controllers if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = Path::new(mount).join(path.trim_start_matches('/'));
        // A bound of any ancestor holds as well.
        files.extend(group.ancestors().take_while(|dir| dir.starts_with(mount)).map(|dir| dir.join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn sizes(
        node: Option<&str>,
        queries: Option<&str>,
        seal: Option<&str>,
        machine: Option<u64>,
    ) -> Result<[u64; 3], String> {
        let memory = Memory::resolve(node, queries, seal, machine).map_err(|error| error.message)?;
        Ok([memory.node, memory.queries, memory.seal].map(|bytes| bytes as u64 >> 20))
    }

    #[test]
    fn defaults_follow_the_machine() {
        assert_eq!(sizes(None, None, None, Some(16 * GIB)), Ok([8192, 4096, 64]));
        assert_eq!(sizes(None, None, None, Some(GIB)), Ok([512, 256, 32]));
        assert_eq!(sizes(None, None, None, Some(GIB / 8)), Ok([256, 128, 16]));
        assert_eq!(sizes(None, None, None, None), Ok([2048, 1024, 64]));
        assert_eq!(sizes(Some("1 GiB"), Some("100 MiB"), Some("8 MiB"), None), Ok([1024, 100, 8]));
    }

    #[test]
    fn parts_fit_into_the_whole() {
        assert_eq!(sizes(Some("255 MiB"), None, None, None), Err("\"memory\" must be at least 256 MiB".to_owned()));
        let refused = |queries, seal| sizes(Some("512 MiB"), queries, seal, None).unwrap_err();
        assert_eq!(
            refused(Some("513 MiB"), None),
            "\"query.memory\" is 513 MiB, more than 512 MiB, which \"memory\" leaves for it"
        );
        assert_eq!(
            refused(None, Some("33 MiB")),
            "\"storage.seal_size\" is 33 MiB, more than 32 MiB, which \"memory\" leaves for it"
        );
        assert_eq!(refused(None, Some("1 MiB")), "\"storage.seal_size\" must be at least 4 MiB");
        assert_eq!(refused(Some("1 MiB"), None), "\"query.memory\" must be at least 16 MiB");
    }

    #[test]
    fn both_versions_of_control_groups_are_asked() {
        let shown =
            |groups: &str| limit_files(groups).iter().map(|file| file.display().to_string()).collect::<Vec<_>>();
        assert_eq!(
            shown("5:pids:/x\n4:cpu,memory:/a/b\n"),
            ["/a/b", "/a", ""].map(|group| format!("/sys/fs/cgroup/memory{group}/memory.limit_in_bytes"))
        );
        assert_eq!(shown("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
    }
}
