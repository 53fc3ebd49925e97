//! How segments are read: through the segment store, footers cached, and no byte that has not proved undamaged (see [`storage::objects::Proofs`]).

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use storage::objects::{Proofs, ProvenSegment, SegmentStore};
use storage::segment::SegmentRef;

/// Under which URL the segment store is registered.
pub(crate) const SEGMENTS_URL: &str = "annal://segments/";

/// The segment store as scans use it.
#[derive(Debug)]
pub(crate) struct SegmentSource {
    url: ObjectStoreUrl,
    readers: Arc<ProvenReaders>,
}

impl SegmentSource {
    /// Registers `store` with `environment` and prepares to read from it.
    pub(crate) fn register(store: SegmentStore, environment: &RuntimeEnv) -> Result<SegmentSource> {
        let url = ObjectStoreUrl::parse(SEGMENTS_URL)?;
        environment.register_object_store(url.as_ref(), store.objects());
        let footers = environment.cache_manager.get_file_metadata_cache();
        Ok(SegmentSource { url, readers: Arc::new(ProvenReaders { proofs: Proofs::new(store), footers }) })
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
struct ProvenReaders {
    proofs: Proofs,
    footers: Arc<FileMetadataCache>,
}

impl ParquetFileReaderFactory for ProvenReaders {
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
        let segment = self.proofs.segment(segment);
        let cached = CachedParquetFileReaderFactory::new(Arc::new(segment.clone()), Arc::clone(&self.footers));
        let inner = cached.create_reader(partition_index, file, metadata_size_hint, metrics)?;
        Ok(Box::new(ProvenReader { inner, segment }))
    }
}

/// Reads through the library, and gives errors of damage as they are.
struct ProvenReader {
    inner: Box<dyn AsyncFileReader + Send>,
    segment: ProvenSegment,
}

/// Takes our own error out of that of the object store.
fn own(error: ParquetError) -> ParquetError {
    let ParquetError::External(source) = error else { return error };
    match source.downcast::<object_store::Error>().map(|error| storage::objects::into_own(*error)) {
        Ok(Ok(own)) => ParquetError::External(Box::new(own)),
        Ok(Err(of_store)) => ParquetError::External(Box::new(of_store)),
        Err(other) => ParquetError::External(other),
    }
}

impl AsyncFileReader for ProvenReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        self.inner.get_bytes(range).map(|read| read.map_err(own)).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        self.inner.get_byte_ranges(ranges).map(|read| read.map_err(own)).boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            // The library makes text of what goes wrong there.
            self.segment.prove().await.map_err(|error| ParquetError::External(Box::new(error)))?;
            self.inner.get_metadata(options).await
        }
        .boxed()
    }
}
