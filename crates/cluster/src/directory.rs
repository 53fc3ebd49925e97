//! The data directory (architecture, D17): who it belongs to, and where what lies.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use event::{Entropy, NodeId};
use serde::{Deserialize, Serialize};
use storage::Disk;
use storage::disk::OpenMode;

use crate::error::Error;

pub(crate) const LOG_DIR: &str = "log";
pub(crate) const CHECKPOINTS_DIR: &str = "checkpoints";
pub(crate) const SEGMENTS_DIR: &str = "segments";
pub(crate) const TMP_DIR: &str = "tmp";
const QUARANTINE_DIR: &str = "quarantine";
const IDENTITY_FILE: &str = "identity.json";
const IDENTITY_TMP: &str = "tmp/identity.json";

/// The layout and formats this program reads and writes.
const FORMAT_VERSION: u32 = 1;
/// The node that founds a cluster.
const FIRST_NODE: NodeId = NodeId(1);

/// Who the data directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Version of the directory's layout and of every format in it.
    pub(crate) format_version: u32,
    /// Drawn when the cluster is founded.
    pub(crate) cluster: u64,
    /// This node.
    pub(crate) node: NodeId,
    /// How often this node has been started, this time included.
    pub(crate) boot: u64,
}

/// Makes what is missing of the directory and counts this boot; durable when it returns.
pub(crate) async fn open(disk: &Arc<dyn Disk>, entropy: &Entropy) -> Result<Identity, Error> {
    for dir in [LOG_DIR, CHECKPOINTS_DIR, SEGMENTS_DIR, TMP_DIR, QUARANTINE_DIR] {
        disk.create_dir_all(dir).await.map_err(|e| failed("create directory", dir, e))?;
    }
    let identity = match read(disk).await? {
        Some(found) => Identity { boot: found.boot + 1, ..found },
        None => {
            refuse_foreign(disk).await?;
            Identity { format_version: FORMAT_VERSION, cluster: entropy.next_u64(), node: FIRST_NODE, boot: 1 }
        }
    };
    write(disk, &identity).await.map_err(|e| failed("write", IDENTITY_FILE, e))?;
    Ok(identity)
}

async fn read(disk: &Arc<dyn Disk>) -> Result<Option<Identity>, Error> {
    let file = match disk.open(IDENTITY_FILE, OpenMode::Read).await {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|e| failed("open", IDENTITY_FILE, e))?,
    };
    let len = disk.len(file).await.map_err(|e| failed("read", IDENTITY_FILE, e))?;
    let bytes = disk.read_at(file, 0, len as usize).await.map_err(|e| failed("read", IDENTITY_FILE, e))?;
    disk.close(file).await.map_err(|e| failed("close", IDENTITY_FILE, e))?;
    parse(&bytes).map(Some)
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
    serde_json::from_slice(bytes).map_err(damaged)
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

async fn write(disk: &Arc<dyn Disk>, identity: &Identity) -> io::Result<()> {
    let json = serde_json::to_vec_pretty(identity).map_err(io::Error::other)?;
    match disk.remove(IDENTITY_TMP).await {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = disk.open(IDENTITY_TMP, OpenMode::CreateNew).await?;
    disk.write_at(file, 0, vec![Bytes::from(json)]).await?;
    disk.sync(file).await?;
    disk.close(file).await?;
    disk.rename(IDENTITY_TMP, IDENTITY_FILE).await?;
    disk.sync_dir("").await
}

fn failed(verb: &str, file: &str, source: io::Error) -> Error {
    Error::Storage(storage::Error::Io { context: format!("could not {verb} \"{file}\""), source })
}
