//! Segments read piece by piece, and no piece believed that is not what was written.
//!
//! A manifest knows the checksum of a segment as a whole. Whoever reads a segment first in this process verifies that, and keeps a checksum of
//! each of its blocks, four bytes for 16 KiB. Every later read takes whole blocks and compares them: disks rot between two reads as well as
//! before the first. What does not fit is verified as a whole again, which fetches it from another node where there is one, and read once more.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use event::limits::PROVEN_BLOCKS_MAX;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::SegmentStore;
use crate::Error;
use crate::segment::{SegmentMeta, SegmentRef};

/// Name of the store in its errors.
const STORE: &str = "ProvenSegment";
/// Bytes of a block, of which a read takes whole ones.
const BLOCK_BYTES: u64 = 16 << 10;

/// Checksums of the blocks of an object whose whole was found right.
#[derive(Debug)]
pub struct Blocks {
    len: u64,
    sums: Vec<u32>,
}

/// Makes [`Blocks`] of the bytes of an object, from front to back.
#[derive(Debug, Default)]
pub(super) struct BlockSums {
    len: u64,
    sums: Vec<u32>,
}

impl BlockSums {
    /// The next bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let within = self.len % BLOCK_BYTES;
            let room = usize::try_from(BLOCK_BYTES - within).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            match self.sums.last_mut() {
                Some(sum) if within > 0 => *sum = crc32c::crc32c_append(*sum, now),
                _ => self.sums.push(crc32c::crc32c(now)),
            }
            self.len += now.len() as u64;
            bytes = later;
        }
    }

    /// Once all bytes were given.
    pub(super) fn finish(self) -> Blocks {
        Blocks { len: self.len, sums: self.sums }
    }
}

impl Blocks {
    /// The smallest range of whole blocks around `range`.
    fn around(&self, range: &Range<u64>) -> Range<u64> {
        range.start / BLOCK_BYTES * BLOCK_BYTES..range.end.next_multiple_of(BLOCK_BYTES).min(self.len)
    }

    /// Where the first block lies that is not what it was; `bytes` are whole blocks and begin at `start`.
    fn first_wrong(&self, start: u64, bytes: &[u8]) -> Option<u64> {
        let block = usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX);
        let first = usize::try_from(start / BLOCK_BYTES).unwrap_or(usize::MAX);
        let expected = self.sums.get(first..).unwrap_or_default();
        let wrong = bytes.chunks(block).zip(expected).position(|(bytes, sum)| crc32c::crc32c(bytes) != *sum)?;
        Some(start + wrong as u64 * BLOCK_BYTES)
    }
}

/// The segments that this process has verified. Cheap to clone.
#[derive(Clone)]
pub struct Proofs {
    store: SegmentStore,
    proved: Arc<Mutex<Proved>>,
}

/// By name. A cell without a value is a verification under way, or a failed one.
#[derive(Default)]
struct Proved {
    segments: HashMap<String, Arc<OnceCell<Arc<Blocks>>>>,
    /// Of all segments that were entered.
    blocks: u64,
}

impl Proofs {
    /// Nothing is verified yet.
    pub fn new(store: SegmentStore) -> Proofs {
        Proofs { store, proved: Arc::default() }
    }

    /// A segment of the store, to be read.
    pub fn segment(&self, segment: SegmentRef) -> ProvenSegment {
        let location = Path::from(segment.meta.name.as_str());
        ProvenSegment { proofs: self.clone(), location, segment }
    }

    /// Completes once the object is known to be what was written; who comes while another verifies it waits for the verdict.
    async fn prove(&self, meta: &SegmentMeta) -> std::result::Result<Arc<Blocks>, Error> {
        let verdict = {
            let mut proved = self.proved.lock();
            if !proved.segments.contains_key(&meta.name) {
                if proved.blocks > PROVEN_BLOCKS_MAX {
                    *proved = Proved::default();
                }
                proved.blocks += meta.bytes.div_ceil(BLOCK_BYTES);
            }
            Arc::clone(proved.segments.entry(meta.name.clone()).or_default())
        };
        let blocks = verdict.get_or_try_init(|| async { self.store.blocks(meta).await.map(Arc::new) });
        blocks.await.map(Arc::clone)
    }

    /// What was proved of a segment is so no longer. Whoever comes next verifies it again.
    fn doubt(&self, meta: &SegmentMeta, blocks: &Arc<Blocks>) {
        let mut proved = self.proved.lock();
        let is_newest = proved.segments.get(&meta.name).and_then(|cell| cell.get());
        if is_newest.is_some_and(|newest| Arc::ptr_eq(newest, blocks)) {
            proved.segments.remove(&meta.name);
            proved.blocks = proved.blocks.saturating_sub(meta.bytes.div_ceil(BLOCK_BYTES));
        }
    }
}

impl fmt::Debug for Proofs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proofs").field("segments", &self.proved.lock().segments.len()).finish_non_exhaustive()
    }
}

/// One segment, as an object store of that object alone, which only reads. Errors of its own are [`object_store::Error::Generic`] around an
/// [`Error`], see [`into_own`].
#[derive(Clone, Debug)]
pub struct ProvenSegment {
    proofs: Proofs,
    location: Path,
    segment: SegmentRef,
}

impl ProvenSegment {
    /// Bytes of the object.
    #[expect(clippy::len_without_is_empty, reason = "no segment is empty")]
    pub fn len(&self) -> u64 {
        self.segment.meta.bytes
    }

    /// Verifies the whole object, unless this process has done so.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the file when it is not what was written and nobody has it sound.
    pub async fn prove(&self) -> std::result::Result<(), Error> {
        self.proofs.prove(&self.segment.meta).await.map(drop)
    }

    /// The bytes of ranges that lie within the object, as they were written.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the file, or the disk's.
    pub async fn read(&self, ranges: &[Range<u64>]) -> std::result::Result<Vec<Bytes>, Error> {
        let meta = &self.segment.meta;
        let mut wrong = 0;
        for _ in 0..2 {
            let blocks = self.proofs.prove(meta).await?;
            let around: Vec<Range<u64>> = ranges.iter().map(|range| blocks.around(range)).collect();
            let read = match self.proofs.store.get_ranges(&self.location, &around).await {
                Ok(read) => read,
                // Shorter than it was.
                Err(error) if super::segments::is_cut_off(&error) => {
                    self.proofs.doubt(meta, &blocks);
                    continue;
                }
                Err(error) => return Err(super::segments::unreadable(meta, error)),
            };
            let checked = around.iter().zip(&read).find_map(|(range, bytes)| blocks.first_wrong(range.start, bytes));
            let Some(at) = checked else {
                let within = |((range, around), bytes): ((&Range<u64>, &Range<u64>), &Bytes)| {
                    let from = usize::try_from(range.start - around.start).unwrap_or(usize::MAX);
                    let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
                    bytes.slice(from..from + len)
                };
                return Ok(ranges.iter().zip(&around).zip(&read).map(within).collect());
            };
            tracing::error!(segment = %meta.name, offset = at, "a segment is not what it was when it was verified");
            wrong = at;
            self.proofs.doubt(meta, &blocks);
        }
        let reason = "its bytes are others each time they are read".to_owned();
        Err(Error::Corrupt { file: format!("segments/{}", meta.name), offset: wrong, reason })
    }

    fn describe(&self) -> ObjectMeta {
        super::describe(self.location.clone(), self.segment.meta.bytes)
    }
}

/// The error of this crate that a [`ProvenSegment`] has put into the store's, or the store's own.
pub fn into_own(error: object_store::Error) -> std::result::Result<Error, object_store::Error> {
    match error {
        object_store::Error::Generic { store: STORE, source } => {
            source.downcast().map(|own| *own).map_err(|source| object_store::Error::Generic { store: STORE, source })
        }
        other => Err(other),
    }
}

fn wrapped(error: Error) -> object_store::Error {
    object_store::Error::Generic { store: STORE, source: Box::new(error) }
}

fn only_reads<T>() -> Result<T> {
    Err(super::not_supported("anything but reads of a segment"))
}

impl fmt::Display for ProvenSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE}({})", self.location)
    }
}

#[async_trait]
impl ObjectStore for ProvenSegment {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        only_reads()
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        only_reads()
    }

    async fn get_opts(&self, _: &Path, options: GetOptions) -> Result<GetResult> {
        let meta = self.describe();
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            Some(range) => range.as_range(meta.size).map_err(|error| super::generic(error.into()))?,
            None => 0..meta.size,
        };
        let read = match options.head {
            true => Vec::new(),
            false => self.read(std::slice::from_ref(&range)).await.map_err(wrapped)?,
        };
        let payload = GetResultPayload::Stream(stream::iter(read.into_iter().map(Ok)).boxed());
        Ok(GetResult { payload, meta, range, attributes: Default::default() })
    }

    async fn get_ranges(&self, _: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.read(ranges).await.map_err(wrapped)
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::once(std::future::ready(only_reads())).boxed()
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::once(std::future::ready(Ok(self.describe()))).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Ok(ListResult { common_prefixes: Vec::new(), objects: vec![self.describe()] })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        only_reads()
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;
    use crate::objects::DiskObjectStore;
    use crate::segment::Segment;
    use crate::{Disk, SimulatedDisk};

    /// Four blocks, the last not whole.
    const LEN: usize = 50_000;
    const FILE: &str = "segments/a/b";

    fn bytes() -> Bytes {
        (0..LEN).map(|at| (at * 7 % 251) as u8).collect()
    }

    fn meta() -> SegmentMeta {
        SegmentMeta {
            name: "a/b".to_owned(),
            table: event::TableId(1),
            shard: event::ShardId(0),
            split: event::SplitId(0),
            version: event::SchemaVersion(1),
            rows: 0,
            bytes: LEN as u64,
            checksum: crc32c::crc32c(&bytes()),
            time_min_us: None,
            time_max_us: None,
            sequence_base: 0,
            distinct: false,
            columns: Vec::new(),
        }
    }

    /// A store with one object, and that object; another node has it as well when that is said.
    async fn one_segment(elsewhere: bool) -> (Arc<SimulatedDisk>, ProvenSegment) {
        let disk = Arc::new(SimulatedDisk::new(1));
        let below: Arc<dyn Disk> = disk.clone();
        let mut store = SegmentStore::from(DiskObjectStore::open(below, "segments", "tmp").await.unwrap());
        store.put(&Path::from("a/b"), bytes().into()).await.unwrap();
        if elsewhere {
            let whole = || stream::iter([Ok(bytes())]).boxed();
            store = store.filled(Arc::new(move |_| Box::pin(async move { Ok(whole()) })));
        }
        (disk, Proofs::new(store).segment(Segment::unpinned(meta())))
    }

    async fn read(segment: &ProvenSegment, range: Range<u64>) -> std::result::Result<(), Error> {
        read_all(segment, std::slice::from_ref(&range)).await
    }

    async fn read_all(segment: &ProvenSegment, ranges: &[Range<u64>]) -> std::result::Result<(), Error> {
        let read = segment.read(ranges).await?;
        let expected = ranges.iter().map(|range| bytes().slice(range.start as usize..range.end as usize));
        assert_eq!(read, expected.collect::<Vec<_>>());
        Ok(())
    }

    #[tokio::test]
    async fn any_ranges_are_read_as_they_were_written() {
        let (_, segment) = one_segment(false).await;
        let len = LEN as u64;
        let edges = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES, len - 1, len];
        for start in edges {
            for end in edges.into_iter().filter(|end| *end > start) {
                read(&segment, start..end).await.unwrap();
                read_all(&segment, &[start..end, 5..17, len - 3..len]).await.unwrap();
            }
        }
        assert_eq!(segment.get(&Path::from("a/b")).await.unwrap().bytes().await.unwrap(), bytes());
        assert_eq!(segment.head(&Path::from("a/b")).await.unwrap().size, len);
    }

    #[tokio::test]
    async fn what_rots_after_it_was_verified_is_named_and_not_served() {
        let (disk, segment) = one_segment(false).await;
        read(&segment, 0..100).await.unwrap();
        disk.flip_bit(FILE, 20_000, 3).unwrap();
        let error = read(&segment, 19_000..19_001).await.unwrap_err();
        assert!(matches!(&error, Error::Corrupt { file, .. } if file == FILE), "{error}");
        // Nothing of it is believed from then on.
        assert!(matches!(read(&segment, 0..100).await, Err(Error::Corrupt { .. })));
        disk.flip_bit(FILE, 20_000, 3).unwrap();
        read(&segment, 19_000..19_001).await.unwrap();
    }

    #[tokio::test]
    async fn what_rots_after_it_was_verified_comes_from_another_node() {
        let (disk, segment) = one_segment(true).await;
        for at in [0, 20_000, LEN as u64 - 1] {
            read(&segment, 0..100).await.unwrap();
            disk.flip_bit(FILE, at, 3).unwrap();
            read(&segment, at..at + 1).await.unwrap();
            // Here it is sound again.
            assert!(segment.proofs.store.verify_or_mend(&segment.segment.meta).await.is_ok_and(|mended| !mended));
        }
    }

    #[tokio::test]
    async fn the_error_of_a_damaged_segment_is_found_in_that_of_the_store() {
        let (disk, segment) = one_segment(false).await;
        disk.flip_bit(FILE, 0, 0).unwrap();
        let error = segment.get_range(&Path::from("a/b"), 0..1).await.unwrap_err();
        assert!(matches!(into_own(error), Ok(Error::Corrupt { .. })));
        assert!(
            into_own(object_store::Error::NotImplemented { operation: String::new(), implementer: String::new() })
                .is_err()
        );
    }
}
