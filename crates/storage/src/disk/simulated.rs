//! A disk in memory that can lose power: what was synced survives, of the rest each sector and directory entry survives
//! or not as a seed decides.
//!
//! Everything is deterministic and happens within the call; only a sync may yield a few times first, or take its time, so that other
//! tasks get between a write and its sync as they do on a real disk. Files are sparse: an untouched page costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{DirEntry, DirectoryLock, Disk, FileId, OpenMode, check_path, parent};
use crate::Error;

/// What survives or not as one piece.
const SECTOR: u64 = 512;
/// What is shared between an image and its copies as one piece.
const PAGE: u64 = 4096;
/// A sync yields less often than this.
const SYNC_YIELDS: u32 = 3;

/// How calls answer once durability is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// They go on succeeding: the process does not learn of the power failure.
    Succeed,
    /// Writing and syncing fail from then on.
    Fail,
}

/// A disk in memory that can crash: keeps what was synced, and of the rest what its seed lets survive.
#[derive(Debug)]
pub struct SimulatedDisk {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    image: Image,
    /// What power would have left at the moment of freezing, pending writes and all.
    frozen: Option<Image>,
    open: BTreeMap<FileId, Handle>,
    next_handle: u64,
    yields: StdRng,
    /// A sync takes at most so long.
    sync_time: Duration,
    syncs: u64,
    freeze_at: Option<(u64, Frozen)>,
    fail_sync: bool,
    /// Bytes that files may still grow by.
    space: Option<u64>,
    /// Writes, then syncs, that fail for lack of room although it was reserved.
    full: (u32, u32),
    /// The sync that fails for lack of room.
    full_at: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Handle {
    inode: u64,
    writable: bool,
}

/// All that lies on the disk, durable or not.
#[derive(Clone, Debug, Default)]
struct Image {
    next_inode: u64,
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<String, Name>,
    durable_names: BTreeMap<String, Name>,
    /// Changes of `names` since `durable_names`, in order.
    pending: Vec<NameChange>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Dir,
    File(u64),
}

/// A change of a directory. A rename is one change, whole or not at all, until a sync of either side settles it.
#[derive(Clone, Debug)]
struct NameChange {
    put: Option<(String, Name)>,
    removed: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    now: Content,
    durable: Content,
    /// Sectors written since the last sync.
    dirty: BTreeSet<u64>,
    /// Bytes that were taken from the disk's room.
    reserved: u64,
}

#[derive(Clone, Debug, Default)]
struct Content {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE as usize]>>,
}

impl SimulatedDisk {
    /// An empty disk. The seed decides how often a sync yields.
    pub fn new(seed: u64) -> Self {
        let mut image = Image::default();
        image.names.insert(String::new(), Name::Dir);
        image.durable_names.insert(String::new(), Name::Dir);
        Self::holding(image, seed)
    }

    fn holding(image: Image, seed: u64) -> Self {
        let state = State {
            image,
            frozen: None,
            open: BTreeMap::new(),
            next_handle: 0,
            yields: StdRng::seed_from_u64(seed),
            sync_time: Duration::ZERO,
            syncs: 0,
            freeze_at: None,
            fail_sync: false,
            space: None,
            full: (0, 0),
            full_at: None,
        };
        Self { state: Mutex::new(state) }
    }

    /// Syncs of files and directories so far.
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// Files open now.
    pub fn open_files(&self) -> usize {
        self.state.lock().open.len()
    }

    /// From now on each sync takes a time of at most so long, as the seed decides. Without it a sync takes none, and one who waits only for
    /// syncs may do so for ever where time passes only when nobody has anything to do.
    pub fn set_sync_time(&self, at_most: Duration) {
        self.state.lock().sync_time = at_most;
    }

    /// From the `n`-th sync on (the first is 1) nothing becomes durable.
    pub fn freeze_at_sync(&self, n: u64, then: Frozen) {
        self.state.lock().freeze_at = Some((n, then));
    }

    /// Whether the sync of [`SimulatedDisk::freeze_at_sync`] has come: what is acknowledged from now on may be lost.
    pub fn is_frozen(&self) -> bool {
        self.state.lock().frozen.is_some()
    }

    /// The disk as it is found after power was lost, at the freeze or now. Unsynced sectors, lengths and directory
    /// entries survive or not as `seed` decides; what was read from this disk before no longer counts.
    pub fn crash(&self, seed: u64) -> SimulatedDisk {
        let state = self.state.lock();
        let image = state.frozen.as_ref().unwrap_or(&state.image);
        Self::holding(image.after_power_loss(&mut StdRng::seed_from_u64(seed)), seed)
    }

    /// The disk as the next process finds it when only the process died: unsynced bytes are still there, and unsynced.
    pub fn restart(&self, seed: u64) -> SimulatedDisk {
        Self::holding(self.state.lock().image.clone(), seed)
    }

    /// The next sync of a file or directory fails with EIO, once. What the file's sync should have written can be read
    /// until power is lost, and no later sync makes it durable unless it is written again.
    pub fn fail_next_sync(&self) {
        self.state.lock().fail_sync = true;
    }

    /// Files may grow by `bytes` more, then ENOSPC: a longer length is given or not as a whole, the write that hits the end
    /// leaves a part. What is removed or cut off gives room back. `None` ends it.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.state.lock().space = bytes;
    }

    /// As a disk does that reserves nothing: the next `writes` fail with ENOSPC after their first half, and after them the next
    /// `syncs` do, without having made anything durable.
    pub fn fail_for_lack_of_room(&self, writes: u32, syncs: u32) {
        self.state.lock().full = (writes, syncs);
    }

    /// The `n`-th sync of a file or directory (the first is 1) fails with ENOSPC, once.
    pub fn lack_room_at_sync(&self, n: u64) {
        self.state.lock().full_at = Some(n);
    }

    /// The length of the file of that name, whether anything of it is durable or not.
    pub fn len_of(&self, path: &str) -> io::Result<u64> {
        let mut state = self.state.lock();
        let inode = state.image.file(path)?;
        Ok(state.inode(inode).now.len)
    }

    /// Turns one bit of a file, synced or not, as rot does.
    pub fn flip_bit(&self, path: &str, offset: u64, bit: u8) -> io::Result<()> {
        let mut state = self.state.lock();
        let inode = state.image.file(path)?;
        let inode = state.image.inodes.get_mut(&inode).expect("a name's inode exists");
        for content in [&mut inode.now, &mut inode.durable] {
            if offset < content.len {
                content.page_mut(offset / PAGE)[(offset % PAGE) as usize] ^= 1 << (bit % 8);
            }
        }
        Ok(())
    }
}

impl State {
    /// Counts a sync; says whether it may make anything durable.
    fn begin_sync(&mut self) -> io::Result<bool> {
        self.syncs += 1;
        if std::mem::take(&mut self.fail_sync) {
            return Err(io::Error::other("simulated input/output error in a sync"));
        }
        if self.full_at == Some(self.syncs) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.full.0 == 0 && self.full.1 > 0 {
            self.full.1 -= 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.frozen.is_none() && self.freeze_at.is_some_and(|(n, _)| self.syncs >= n) {
            self.frozen = Some(self.image.clone());
        }
        self.check_power()?;
        Ok(self.frozen.is_none())
    }

    fn check_power(&self) -> io::Result<()> {
        match self.freeze_at {
            Some((_, Frozen::Fail)) if self.frozen.is_some() => Err(io::Error::other("simulated power failure")),
            _ => Ok(()),
        }
    }

    fn handle(&self, file: FileId) -> io::Result<Handle> {
        self.open.get(&file).copied().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "file is not open"))
    }

    fn writable(&self, file: FileId) -> io::Result<u64> {
        self.check_power()?;
        let handle = self.handle(file)?;
        if handle.writable { Ok(handle.inode) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    fn inode(&mut self, inode: u64) -> &mut Inode {
        self.image.inodes.get_mut(&inode).expect("an open file's inode exists")
    }

    /// Creates a directory if need be; whether its name is durable already.
    fn make_dir(&mut self, path: &str) -> io::Result<bool> {
        self.check_power()?;
        match self.image.names.get(path) {
            Some(Name::Dir) => {}
            Some(Name::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            None => self.image.change(NameChange { put: Some((path.to_owned(), Name::Dir)), removed: None }),
        }
        Ok(self.image.durable_names.contains_key(path))
    }

    /// Reserves an inode's bytes up to `end`, or fewer when there is no more room; up to where they are now.
    fn reserve(&mut self, inode: u64, end: u64) -> u64 {
        let reserved = self.inode(inode).reserved;
        let wanted = end.saturating_sub(reserved);
        let taken = self.space.map_or(wanted, |space| wanted.min(space));
        self.space = self.space.map(|space| space - taken);
        self.inode(inode).reserved += taken;
        reserved + taken
    }

    /// Gives back what a file reserved above `len`.
    fn give_back(&mut self, inode: u64, len: u64) {
        let inode = self.inode(inode);
        let given = inode.reserved.saturating_sub(len);
        inode.reserved -= given;
        self.space = self.space.map(|space| space + given);
    }
}

impl Image {
    fn file(&self, path: &str) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Name::File(inode)) => Ok(*inode),
            Some(Name::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn create(&mut self, path: &str) -> io::Result<u64> {
        if self.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if self.names.get(parent(path)) != Some(&Name::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.next_inode += 1;
        self.inodes.insert(self.next_inode, Inode::default());
        self.change(NameChange { put: Some((path.to_owned(), Name::File(self.next_inode))), removed: None });
        Ok(self.next_inode)
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn sync_dir(&mut self, dir: &str) {
        for change in &mut self.pending {
            if let Some(path) = change.removed.take_if(|path| parent(path) == dir) {
                self.durable_names.remove(&path);
            }
            if let Some((path, name)) = change.put.take_if(|(path, _)| parent(path) == dir) {
                self.durable_names.insert(path, name);
            }
        }
        self.pending.retain(|change| change.put.is_some() || change.removed.is_some());
    }

    fn after_power_loss(&self, random: &mut StdRng) -> Image {
        let mut names = self.durable_names.clone();
        for change in &self.pending {
            if random.random_bool(0.5) {
                change.apply(&mut names);
            }
        }
        // A directory sorts before what lies in it; with it, that is lost too.
        let mut kept: BTreeMap<String, Name> = BTreeMap::new();
        for (path, name) in names {
            if path.is_empty() || kept.get(parent(&path)) == Some(&Name::Dir) {
                kept.insert(path, name);
            }
        }
        let names = kept;
        let alive: BTreeSet<u64> =
            names.values().filter_map(|name| if let Name::File(inode) = name { Some(*inode) } else { None }).collect();
        let inodes = self.inodes.iter().filter(|(id, _)| alive.contains(id));
        let inodes = inodes.map(|(id, inode)| (*id, inode.after_power_loss(random))).collect();
        Image { next_inode: self.next_inode, inodes, durable_names: names.clone(), names, pending: Vec::new() }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, Name>) {
        if let Some(path) = &self.removed {
            names.remove(path);
        }
        if let Some((path, name)) = &self.put {
            names.insert(path.clone(), *name);
        }
    }
}

impl Inode {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        self.now.write(offset, bytes);
        self.dirty.extend(offset / SECTOR..end.div_ceil(SECTOR));
    }

    fn sync(&mut self) {
        self.durable.set_len(self.now.len);
        for sector in std::mem::take(&mut self.dirty) {
            let start = sector * SECTOR;
            if start < self.now.len {
                let len = SECTOR.min(self.now.len - start);
                self.durable.write(start, &self.now.read(start, len as usize));
            }
        }
    }

    fn after_power_loss(&self, random: &mut StdRng) -> Inode {
        let mut left = self.durable.clone();
        if self.now.len != left.len && random.random_bool(0.5) {
            left.set_len(self.now.len);
        }
        // A crash may keep next to nothing, next to everything, or anything between.
        let share = [0.05, 0.5, 0.95][random.random_range(0..3)];
        for &sector in &self.dirty {
            let start = sector * SECTOR;
            let end = (start + SECTOR).min(left.len).min(self.now.len);
            if start < end && random.random_bool(share) {
                left.write(start, &self.now.read(start, (end - start) as usize));
            }
        }
        Inode { reserved: left.len, now: left.clone(), durable: left, dirty: BTreeSet::new() }
    }
}

impl Content {
    fn page_mut(&mut self, page: u64) -> &mut [u8; PAGE as usize] {
        Arc::make_mut(self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE as usize])))
    }

    fn write(&mut self, mut offset: u64, mut bytes: &[u8]) {
        self.len = self.len.max(offset + bytes.len() as u64);
        while !bytes.is_empty() {
            let within = (offset % PAGE) as usize;
            let now = bytes.len().min(PAGE as usize - within);
            self.page_mut(offset / PAGE)[within..within + now].copy_from_slice(&bytes[..now]);
            offset += now as u64;
            bytes = &bytes[now..];
        }
    }

    fn read(&self, offset: u64, len: usize) -> BytesMut {
        let mut bytes = BytesMut::zeroed(len);
        let end = offset + len as u64;
        for (page, content) in self.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            let start = offset.max(page * PAGE);
            let stop = end.min((page + 1) * PAGE);
            let from = (start - page * PAGE) as usize;
            let len = (stop - start) as usize;
            bytes[(start - offset) as usize..][..len].copy_from_slice(&content[from..from + len]);
        }
        bytes
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.retain(|page, _| page * PAGE < len);
            if !len.is_multiple_of(PAGE) && self.pages.contains_key(&(len / PAGE)) {
                self.page_mut(len / PAGE)[(len % PAGE) as usize..].fill(0);
            }
        }
        self.len = len;
    }
}

#[async_trait]
impl Disk for SimulatedDisk {
    fn lock(&self) -> Result<DirectoryLock, Error> {
        Ok(DirectoryLock::unshared())
    }

    async fn open(&self, path: &str, mode: OpenMode) -> io::Result<FileId> {
        check_path(path)?;
        let mut state = self.state.lock();
        let inode = match mode {
            OpenMode::CreateNew => {
                state.check_power()?;
                state.image.create(path)?
            }
            OpenMode::Read | OpenMode::Write => state.image.file(path)?,
        };
        state.next_handle += 1;
        let id = FileId(state.next_handle);
        state.open.insert(id, Handle { inode, writable: mode != OpenMode::Read });
        Ok(id)
    }

    async fn close(&self, file: FileId) -> io::Result<()> {
        let mut state = self.state.lock();
        state.handle(file)?;
        state.open.remove(&file);
        Ok(())
    }

    fn release(&self, file: FileId) {
        self.state.lock().open.remove(&file);
    }

    async fn read_at(&self, file: FileId, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut state = self.state.lock();
        let inode = state.handle(file)?.inode;
        let content = &state.inode(inode).now;
        if offset.checked_add(len as u64).is_none_or(|end| end > content.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(content.read(offset, len).freeze())
    }

    async fn write_at(&self, file: FileId, mut offset: u64, parts: Vec<Bytes>) -> io::Result<()> {
        let mut state = self.state.lock();
        let inode = state.writable(file)?;
        let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let mut room = state.reserve(inode, offset + len).saturating_sub(offset).min(len);
        if state.full.0 > 0 {
            state.full.0 -= 1;
            room = room.min(len / 2);
        }
        for part in parts {
            let now = (part.len() as u64).min(room);
            state.inode(inode).write(offset, &part[..now as usize]);
            if now < part.len() as u64 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            (offset, room) = (offset + now, room - now);
        }
        Ok(())
    }

    async fn sync(&self, file: FileId) -> io::Result<()> {
        self.take_time().await;
        let mut state = self.state.lock();
        let inode = state.handle(file)?.inode;
        match state.begin_sync() {
            Ok(true) => state.inode(inode).sync(),
            Ok(false) => {}
            Err(error) => {
                // As Linux does: what could not be written counts as clean, stays readable, and is not tried again.
                state.inode(inode).dirty.clear();
                return Err(error);
            }
        }
        Ok(())
    }

    async fn len(&self, file: FileId) -> io::Result<u64> {
        let mut state = self.state.lock();
        let inode = state.handle(file)?.inode;
        Ok(state.inode(inode).now.len)
    }

    async fn set_len(&self, file: FileId, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let inode = state.writable(file)?;
        let before = state.inode(inode).reserved;
        if state.reserve(inode, len) < len {
            state.give_back(inode, before);
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.give_back(inode, len);
        let inode = state.inode(inode);
        // What is cut off and grown again is zero: those sectors differ from the durable ones too.
        let shorter = len.min(inode.now.len);
        let longer = inode.now.len.min(inode.durable.len).max(shorter);
        inode.dirty.extend(shorter / SECTOR..longer.div_ceil(SECTOR));
        inode.now.set_len(len);
        Ok(())
    }

    async fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.take_time().await;
        let mut state = self.state.lock();
        if state.image.names.get(dir) != Some(&Name::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if state.begin_sync()? {
            state.image.sync_dir(dir);
        }
        Ok(())
    }

    async fn create_dir_all(&self, dir: &str) -> io::Result<()> {
        if dir.is_empty() {
            return Ok(());
        }
        check_path(dir)?;
        let ends = dir.match_indices('/').map(|(end, _)| end).chain([dir.len()]);
        for path in ends.map(|end| &dir[..end]) {
            let settled = self.state.lock().make_dir(path)?;
            if !settled {
                self.sync_dir(parent(path)).await?;
            }
        }
        Ok(())
    }

    async fn list(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        let state = self.state.lock();
        let within = state.image.names.iter().filter(|(path, _)| !path.is_empty() && parent(path) == dir);
        let entry = |(path, name): (&String, &Name)| DirEntry {
            name: path.rsplit('/').next().unwrap_or(path).to_owned(),
            len: if let Name::File(inode) = name { state.image.inodes[inode].now.len } else { 0 },
            is_dir: *name == Name::Dir,
        };
        Ok(within.map(entry).collect())
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_path(to)?;
        let mut state = self.state.lock();
        state.check_power()?;
        let inode = state.image.file(from)?;
        if state.image.names.get(parent(to)) != Some(&Name::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if let Ok(replaced) = state.image.file(to) {
            state.give_back(replaced, 0);
        }
        let put = Some((to.to_owned(), Name::File(inode)));
        state.image.change(NameChange { put, removed: Some(from.to_owned()) });
        Ok(())
    }

    async fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check_power()?;
        let inode = state.image.file(path)?;
        state.give_back(inode, 0);
        state.image.change(NameChange { put: None, removed: Some(path.to_owned()) });
        Ok(())
    }
}

impl SimulatedDisk {
    /// Lets other tasks run a few times, or time pass, as the seed decides.
    async fn take_time(&self) {
        let (times, time) = {
            let mut state = self.state.lock();
            let times = state.yields.random_range(0..SYNC_YIELDS);
            let at_most_us = state.sync_time.as_micros() as u64;
            let time_us = if at_most_us > 0 { state.yields.random_range(0..=at_most_us) } else { 0 };
            (times, Duration::from_micros(time_us))
        };
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        for _ in 0..times {
            let mut yielded = false;
            std::future::poll_fn(|context| {
                if std::mem::replace(&mut yielded, true) {
                    return std::task::Poll::Ready(());
                }
                context.waker().wake_by_ref();
                std::task::Poll::Pending
            })
            .await;
        }
    }
}
