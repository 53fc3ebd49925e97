//! How segments are read: through the segment store, footers cached, and no byte before the whole object has proved undamaged.
//!
//! The checksum of a segment is verified by the first reader that opens it in this process; readers that come meanwhile wait for the
//! verdict. A segment that fails is never read: each attempt verifies again and names the file.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use event::limits::VERIFIED_SEGMENTS_MAX;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use storage::objects::SegmentStore;
use storage::segment::{SegmentMeta, SegmentRef};
use tokio::sync::OnceCell;

/// Under which URL the segment store is registered.
pub(crate) const SEGMENTS_URL: &str = "annal://segments/";

/// The segment store as scans use it.
#[derive(Debug)]
pub(crate) struct SegmentSource {
    url: ObjectStoreUrl,
    readers: Arc<VerifyingReaders>,
}

impl SegmentSource {
    /// Registers `store` with `environment` and prepares to read from it.
    pub(crate) fn register(store: SegmentStore, environment: &RuntimeEnv) -> Result<SegmentSource> {
        let url = ObjectStoreUrl::parse(SEGMENTS_URL)?;
        environment.register_object_store(url.as_ref(), store.objects());
        let footers = environment.cache_manager.get_file_metadata_cache();
        let readers = Arc::new(VerifyingReaders {
            cached: CachedParquetFileReaderFactory::new(store.objects(), footers),
            verdicts: Arc::new(Verdicts { store, proved: Mutex::default() }),
        });
        Ok(SegmentSource { url, readers })
    }

    /// The URL that names the store.
    pub(crate) fn url(&self) -> ObjectStoreUrl {
        self.url.clone()
    }

    /// What opens segments.
    pub(crate) fn readers(&self) -> Arc<dyn ParquetFileReaderFactory> {
        Arc::clone(&self.readers) as Arc<dyn ParquetFileReaderFactory>
    }
}

/// Opens segments whose files carry their [`SegmentRef`] as an extension.
#[derive(Debug)]
struct VerifyingReaders {
    cached: CachedParquetFileReaderFactory,
    verdicts: Arc<Verdicts>,
}

impl ParquetFileReaderFactory for VerifyingReaders {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let segment = file.extension::<SegmentRef>().map(Arc::clone).ok_or_else(|| {
            DataFusionError::Internal(format!("file \"{}\" is read without its segment", file.path()))
        })?;
        let inner = self.cached.create_reader(partition_index, file, metadata_size_hint, metrics)?;
        Ok(Box::new(VerifyingReader { inner, segment, verdicts: Arc::clone(&self.verdicts) }))
    }
}

/// The segments whose checksum was found right, by name. A cell without a value is a verification under way, or a failed one.
struct Verdicts {
    store: SegmentStore,
    proved: Mutex<HashMap<String, Arc<OnceCell<()>>>>,
}

impl fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verdicts").field("proved", &self.proved.lock().len()).finish_non_exhaustive()
    }
}

impl Verdicts {
    /// Completes once the object is known to be what was written.
    async fn prove(&self, segment: &SegmentMeta) -> Result<(), storage::Error> {
        let verdict = {
            let mut proved = self.proved.lock();
            if proved.len() >= VERIFIED_SEGMENTS_MAX && !proved.contains_key(&segment.name) {
                proved.clear();
            }
            Arc::clone(proved.entry(segment.name.clone()).or_default())
        };
        verdict.get_or_try_init(|| self.store.verify(segment)).await.copied()
    }
}

struct VerifyingReader {
    inner: Box<dyn AsyncFileReader + Send>,
    segment: SegmentRef,
    verdicts: Arc<Verdicts>,
}

impl VerifyingReader {
    /// Exclusive only because the reader below cannot be shared between threads.
    async fn prove(&mut self) -> Result<(), ParquetError> {
        self.verdicts.prove(&self.segment.meta).await.map_err(|error| ParquetError::External(Box::new(error)))
    }
}

impl AsyncFileReader for VerifyingReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            self.prove().await?;
            self.inner.get_bytes(range).await
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move {
            self.prove().await?;
            self.inner.get_byte_ranges(ranges).await
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            self.prove().await?;
            self.inner.get_metadata(options).await
        }
        .boxed()
    }
}
