//! Open files of recently read objects, so that reading a range is one operation of the disk and not three.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use event::limits::OPEN_OBJECTS_MAX;
use parking_lot::Mutex;

use crate::Disk;
use crate::disk::{FileId, OpenMode};

/// An object open for reading; the file is closed with the last handle. The object may be deleted meanwhile.
#[derive(Debug)]
pub(super) struct OpenObject {
    disk: Arc<dyn Disk>,
    /// The file.
    pub(super) file: FileId,
    /// Its length: objects do not change.
    pub(super) len: u64,
}

impl OpenObject {
    /// Opens the file at `path`.
    pub(super) async fn open(disk: &Arc<dyn Disk>, path: &str) -> io::Result<OpenObject> {
        let file = disk.open(path, OpenMode::Read).await?;
        // Made first, so that the file is closed whatever comes.
        let mut object = OpenObject { disk: disk.clone(), file, len: 0 };
        object.len = disk.len(file).await?;
        Ok(object)
    }
}

impl Drop for OpenObject {
    fn drop(&mut self) {
        self.disk.release(self.file);
    }
}

/// The `OPEN_OBJECTS_MAX` objects read last.
#[derive(Debug, Default)]
pub(super) struct OpenObjects(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// By path, with the time of the last use.
    objects: BTreeMap<String, (u64, Arc<OpenObject>)>,
    uses: u64,
    changes: u64,
}

impl OpenObjects {
    /// The object at `path` if it is kept, else how many changes there were, for [`OpenObjects::keep`].
    pub(super) fn get(&self, path: &str) -> Result<Arc<OpenObject>, u64> {
        let mut kept = self.0.lock();
        kept.uses += 1;
        let now = kept.uses;
        match kept.objects.get_mut(path) {
            Some((used, object)) => {
                *used = now;
                Ok(object.clone())
            }
            None => Err(kept.changes),
        }
    }

    /// Keeps an object that was opened when there were `changes`; one that changed since may be another by now.
    pub(super) fn keep(&self, path: String, object: &Arc<OpenObject>, changes: u64) {
        let mut kept = self.0.lock();
        if kept.changes != changes {
            return;
        }
        kept.uses += 1;
        let now = kept.uses;
        kept.objects.insert(path, (now, object.clone()));
        if kept.objects.len() > OPEN_OBJECTS_MAX {
            let oldest = kept.objects.iter().min_by_key(|(_, (used, _))| *used).map(|(path, _)| path.clone());
            kept.objects.remove(&oldest.expect("more are kept than may be"));
        }
    }

    /// The object at `path` was replaced or deleted.
    pub(super) fn changed(&self, path: &str) {
        let mut kept = self.0.lock();
        kept.changes += 1;
        kept.objects.remove(path);
    }
}
