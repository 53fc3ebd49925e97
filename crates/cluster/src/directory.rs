//! The data directory (architecture, D17): who it belongs to, and where what lies.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use event::NodeId;
use serde::{Deserialize, Serialize};
use storage::Disk;
use storage::disk::OpenMode;

use crate::catalog::state::NODE_ID_FIRST;
use crate::error::Error;

pub(crate) const LOG_DIR: &str = "log";
pub(crate) const CHECKPOINTS_DIR: &str = "checkpoints";
pub(crate) const SEGMENTS_DIR: &str = "segments";
/// Copies of segments that lie elsewhere.
pub(crate) const CACHE_DIR: &str = "cache";
pub(crate) const TMP_DIR: &str = "tmp";
const QUARANTINE_DIR: &str = "quarantine";
const IDENTITY_FILE: &str = "identity.json";
/// What a node asks to join with, from the first try until it is taken in.
const NONCE_FILE: &str = "joining";
/// Where a file is written before it gets its name.
const WRITTEN_TMP: &str = "tmp/written";

/// The layout and formats this program reads and writes.
const FORMAT_VERSION: u32 = 1;
/// The node that founds a cluster.
pub(crate) const FIRST_NODE: NodeId = NodeId(NODE_ID_FIRST);

/// Who the data directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// Version of the directory's layout and of every format in it.
    pub(crate) format_version: u32,
    /// Drawn when the cluster is founded.
    pub(crate) cluster: u64,
    /// This node.
    pub(crate) node: NodeId,
    /// How often this node has been started, this time included.
    pub(crate) boot: u64,
    /// CRC-32C over the other fields; files of before it was written have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<u32>,
}

impl Identity {
    /// With the checksum that belongs to its fields.
    fn sealed(self) -> Identity {
        let Identity { format_version, cluster, node, boot, .. } = &self;
        let fields = format!("{format_version} {cluster} {node} {boot}");
        Identity { checksum: Some(crc32c::crc32c(fields.as_bytes())), ..self }
    }
}

/// Makes what is missing of the directory and counts this boot; durable when it returns. `None` for a directory that belongs to nobody.
pub(crate) async fn open(disk: &Arc<dyn Disk>) -> Result<Option<Identity>, Error> {
    for dir in [LOG_DIR, CHECKPOINTS_DIR, SEGMENTS_DIR, TMP_DIR, QUARANTINE_DIR] {
        disk.create_dir_all(dir).await.map_err(|e| failed("create directory", dir, e))?;
    }
    let Some(found) = read(disk).await? else {
        refuse_foreign(disk).await?;
        return Ok(None);
    };
    let identity = Identity { boot: found.boot + 1, ..found }.sealed();
    write(disk, &identity).await?;
    Ok(Some(identity))
}

/// Gives the directory to a node: the first of a new cluster, or one that a cluster has taken in.
pub(crate) async fn take(disk: &Arc<dyn Disk>, cluster: u64, node: NodeId) -> Result<Identity, Error> {
    let identity = Identity { format_version: FORMAT_VERSION, cluster, node, boot: 1, checksum: None }.sealed();
    write(disk, &identity).await?;
    // What is left of it is never read again.
    if let Err(error) = disk.remove(NONCE_FILE).await
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(%error, file = NONCE_FILE, "could not remove a file");
    }
    Ok(identity)
}

/// The number that a node without identity asks to join with: always the same for a directory, so that one which was taken in and did not live to
/// write that down is known again, with the id it got and the token it used up.
pub(crate) async fn nonce(disk: &Arc<dyn Disk>, drawn: u64) -> Result<u64, Error> {
    if let Some(bytes) = read_file(disk, NONCE_FILE).await? {
        let written = std::str::from_utf8(&bytes).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
        return written.ok_or_else(|| Error::DataDirectory(format!("file \"{NONCE_FILE}\" cannot be read")));
    }
    write_file(disk, NONCE_FILE, format!("{drawn:016x}").into()).await?;
    Ok(drawn)
}

async fn read(disk: &Arc<dyn Disk>) -> Result<Option<Identity>, Error> {
    read_file(disk, IDENTITY_FILE).await?.map(|bytes| parse(&bytes)).transpose()
}

async fn read_file(disk: &Arc<dyn Disk>, name: &str) -> Result<Option<Bytes>, Error> {
    let file = match disk.open(name, OpenMode::Read).await {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|e| failed("open", name, e))?,
    };
    let len = disk.len(file).await.map_err(|e| failed("read", name, e))?;
    let bytes = disk.read_at(file, 0, len as usize).await.map_err(|e| failed("read", name, e))?;
    disk.close(file).await.map_err(|e| failed("close", name, e))?;
    Ok(Some(bytes))
}

fn parse(bytes: &[u8]) -> Result<Identity, Error> {
    /// The part that every version has.
    #[derive(Deserialize)]
    struct Versioned {
        format_version: u32,
    }
    let damaged = |e: serde_json::Error| Error::DataDirectory(format!("file \"{IDENTITY_FILE}\" cannot be read: {e}"));
    let Versioned { format_version } = serde_json::from_slice(bytes).map_err(damaged)?;
    if format_version != FORMAT_VERSION {
        return Err(Error::DataDirectory(format!(
            "the data directory has format version {format_version}, this program needs {FORMAT_VERSION}"
        )));
    }
    let identity: Identity = serde_json::from_slice(bytes).map_err(damaged)?;
    if identity.checksum.is_some() && identity.clone().sealed() != identity {
        let reason = "its checksum does not match";
        return Err(Error::DataDirectory(format!("file \"{IDENTITY_FILE}\" is damaged: {reason}")));
    }
    Ok(identity)
}

/// A log without an identity is somebody's data that must not be taken for new.
async fn refuse_foreign(disk: &Arc<dyn Disk>) -> Result<(), Error> {
    let files = disk.list(LOG_DIR).await.map_err(|e| failed("list", LOG_DIR, e))?;
    match files.first() {
        None => Ok(()),
        Some(file) => Err(Error::DataDirectory(format!(
            "the data directory has a log (\"{LOG_DIR}/{}\") but no file \"{IDENTITY_FILE}\"",
            file.name
        ))),
    }
}

async fn write(disk: &Arc<dyn Disk>, identity: &Identity) -> Result<(), Error> {
    let json = serde_json::to_vec_pretty(identity).map_err(|e| failed("write", IDENTITY_FILE, io::Error::other(e)))?;
    write_file(disk, IDENTITY_FILE, json.into()).await
}

/// Writes a file whole or not at all; durable when it returns.
async fn write_file(disk: &Arc<dyn Disk>, name: &str, content: Bytes) -> Result<(), Error> {
    let written = async {
        match disk.remove(WRITTEN_TMP).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = disk.open(WRITTEN_TMP, OpenMode::CreateNew).await?;
        disk.write_at(file, 0, vec![content]).await?;
        disk.sync(file).await?;
        disk.close(file).await?;
        disk.rename(WRITTEN_TMP, name).await?;
        disk.sync_dir("").await
    };
    written.await.map_err(|e| failed("write", name, e))
}

fn failed(verb: &str, file: &str, source: io::Error) -> Error {
    Error::Storage(storage::Error::Io { context: format!("could not {verb} \"{file}\""), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_of_the_identity_is_found_or_changes_nothing() {
        let identity = Identity { format_version: 1, cluster: 987_654_321, node: NodeId(1), boot: 12, checksum: None };
        let identity = identity.sealed();
        let bytes = serde_json::to_vec_pretty(&identity).unwrap();
        assert_eq!(parse(&bytes).unwrap(), identity);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                match parse(&damaged) {
                    Ok(found) => assert_eq!(found, identity, "byte {at}, bit {bit}"),
                    Err(error) => assert!(matches!(error, Error::DataDirectory(_)), "{error}"),
                }
            }
        }
    }

    #[test]
    fn an_identity_without_checksum_is_still_read() {
        let old = br#"{"format_version": 1, "cluster": 5, "node": 1, "boot": 7}"#;
        assert_eq!(parse(old).unwrap().boot, 7);
    }
}
