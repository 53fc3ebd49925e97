//! The store elsewhere that takes the segments, built from settings and the environment.

use std::sync::Arc;
use std::time::Duration;

use cluster::RemoteSegments;
use object_store::aws::AmazonS3Builder;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use crate::settings::Remote;

/// How often a request is tried again, with growing pauses.
const RETRIES_MAX: usize = 6;
/// And for how long: then a query fails rather than hanging, and a flush begins anew.
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);
/// For one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Credentials come from the environment as with Amazon's own tools: `AWS_ACCESS_KEY_ID` and so on, or the machine's role.
///
/// # Errors
/// What the settings lack.
pub(crate) fn segments(remote: &Remote) -> Result<RemoteSegments, object_store::Error> {
    let retry = RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
    let plain = remote.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let client = ClientOptions::new().with_allow_http(plain).with_timeout(REQUEST_TIMEOUT);
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&remote.bucket)
        .with_region(&remote.region)
        .with_client_options(client)
        .with_retry(retry);
    if let Some(endpoint) = &remote.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    let bucket = builder.build()?;
    let store: Arc<dyn ObjectStore> = match remote.prefix.as_str() {
        "" => Arc::new(bucket),
        prefix => Arc::new(PrefixStore::new(bucket, prefix)),
    };
    Ok(RemoteSegments { store, url: remote.url(), cache_bytes: remote.cache_bytes })
}
