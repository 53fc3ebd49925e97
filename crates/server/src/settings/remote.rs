//! An S3-compatible store for the segments, when the file names one.

use super::{SettingsError, file, units};

/// Bytes of copies kept on this disk unless told otherwise.
const CACHE_DEFAULT: u64 = 4 << 30;
/// A smaller cache would not hold one segment.
const CACHE_MIN: u64 = 256 << 20;
/// How a URL of such a store begins.
const SCHEME: &str = "s3://";
/// What stores that know no regions are content with.
const REGION_DEFAULT: &str = "us-east-1";

/// Where the segments lie when not below the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The bucket.
    pub bucket: String,
    /// What names of objects begin with; may be empty.
    pub prefix: String,
    /// The URL of the store, when it is not Amazon's.
    pub endpoint: Option<String>,
    /// The region of the bucket.
    pub region: String,
    /// Bytes of copies kept below the data directory.
    pub cache_bytes: u64,
}

impl Remote {
    /// The store that the file names; `None` when it names none.
    pub(super) fn resolve(storage: &file::Storage) -> Result<Option<Remote>, SettingsError> {
        let Some(url) = &storage.url else {
            let others = [
                ("storage.endpoint", storage.endpoint.is_some()),
                ("storage.region", storage.region.is_some()),
                ("storage.cache_size", storage.cache_size.is_some()),
            ];
            return match others.iter().find(|(_, given)| *given) {
                Some((key, _)) => Err(SettingsError::new(format!("\"{key}\" needs \"storage.url\""))),
                None => Ok(None),
            };
        };
        let place = url.strip_prefix(SCHEME).filter(|place| !place.is_empty() && !place.starts_with('/'));
        let Some(place) = place else {
            let message = format!("\"storage.url\" must name a bucket, not \"{url}\"");
            return Err(SettingsError::new(message).with_hint("for example s3://bucket/annal"));
        };
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let cache_bytes = match &storage.cache_size {
            Some(text) => units::bytes("storage.cache_size", text)?,
            None => CACHE_DEFAULT,
        };
        if cache_bytes < CACHE_MIN {
            let message = format!("\"storage.cache_size\" must be at least {} MiB", CACHE_MIN >> 20);
            return Err(SettingsError::new(message));
        }
        let endpoint = storage.endpoint.clone();
        if let Some(endpoint) =
            endpoint.as_deref().filter(|url| !url.starts_with("http://") && !url.starts_with("https://"))
        {
            let message = format!("\"storage.endpoint\" must be a URL, not \"{endpoint}\"");
            return Err(SettingsError::new(message).with_hint("for example http://127.0.0.1:9000"));
        }
        Ok(Some(Remote {
            bucket: bucket.to_owned(),
            prefix: prefix.trim_end_matches('/').to_owned(),
            endpoint,
            region: storage.region.clone().unwrap_or_else(|| REGION_DEFAULT.to_owned()),
            cache_bytes,
        }))
    }

    /// The URL, without a slash at its end.
    pub fn url(&self) -> String {
        format!("{SCHEME}{}/{}", self.bucket, self.prefix).trim_end_matches('/').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(storage: file::Storage) -> Result<Option<Remote>, String> {
        Remote::resolve(&storage).map_err(|error| error.message)
    }

    fn of(url: &str) -> file::Storage {
        file::Storage { url: Some(url.to_owned()), ..file::Storage::default() }
    }

    #[test]
    fn a_url_names_bucket_and_prefix() {
        let remote = resolve(of("s3://events/annal/one/")).unwrap().unwrap();
        assert_eq!((remote.bucket.as_str(), remote.prefix.as_str()), ("events", "annal/one"));
        assert_eq!(remote.url(), "s3://events/annal/one");
        assert_eq!(resolve(of("s3://events")).unwrap().unwrap().url(), "s3://events");
        assert_eq!(resolve(file::Storage::default()), Ok(None));
    }

    #[test]
    fn a_wrong_url_and_what_makes_no_sense_without_one_are_refused() {
        for url in ["", "events", "s3://", "s3:///annal", "http://events"] {
            let message = format!("\"storage.url\" must name a bucket, not \"{url}\"");
            assert_eq!(resolve(of(url)), Err(message));
        }
        let lone = file::Storage { cache_size: Some("1 GiB".to_owned()), ..file::Storage::default() };
        assert_eq!(resolve(lone), Err("\"storage.cache_size\" needs \"storage.url\"".to_owned()));
        let small = file::Storage { cache_size: Some("1 MiB".to_owned()), ..of("s3://events") };
        assert_eq!(resolve(small), Err("\"storage.cache_size\" must be at least 256 MiB".to_owned()));
        let endpoint = file::Storage { endpoint: Some("127.0.0.1:9000".to_owned()), ..of("s3://events") };
        assert_eq!(resolve(endpoint), Err("\"storage.endpoint\" must be a URL, not \"127.0.0.1:9000\"".to_owned()));
    }
}
