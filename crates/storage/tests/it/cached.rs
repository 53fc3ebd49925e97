//! Copies of objects that lie elsewhere: read again and again, never more than there is room for, never trusted over the original.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use storage::objects::CachedObjectStore;
use storage::{Disk, SimulatedDisk};

async fn open(remote: &Arc<InMemory>, disk: &Arc<dyn Disk>, bytes_max: u64) -> CachedObjectStore {
    let remote: Arc<dyn ObjectStore> = remote.clone();
    CachedObjectStore::open(remote, disk.clone(), "cache", "tmp", bytes_max).await.unwrap()
}

fn new() -> (Arc<InMemory>, Arc<dyn Disk>) {
    (Arc::new(InMemory::new()), Arc::new(SimulatedDisk::new(1)))
}

fn body(byte: u8) -> Bytes {
    Bytes::from(vec![byte; 100])
}

fn path(name: &str) -> Path {
    Path::from(name)
}

async fn copies(disk: &Arc<dyn Disk>) -> Vec<String> {
    disk.list("cache").await.unwrap().into_iter().map(|entry| entry.name).collect()
}

#[tokio::test]
async fn what_was_put_or_read_is_read_here() {
    let (remote, disk) = new();
    let store = open(&remote, &disk, 1000).await;
    store.put(&path("a"), body(1).into()).await.unwrap();
    remote.put(&path("b"), body(2).into()).await.unwrap();
    assert_eq!(store.get_range(&path("b"), 10..12).await.unwrap(), body(2).slice(10..12));
    assert_eq!(copies(&disk).await, ["a", "b"], "the whole object is copied for a part of it");
    // Only copies can answer now.
    remote.delete(&path("a")).await.unwrap();
    remote.delete(&path("b")).await.unwrap();
    assert_eq!(store.get(&path("a")).await.unwrap().bytes().await.unwrap(), body(1));
    let reopened = open(&remote, &disk, 1000).await;
    let ranges = reopened.get_ranges(&path("b"), &[0..1, 99..100]).await.unwrap();
    assert_eq!(ranges, [body(2).slice(0..1), body(2).slice(0..1)]);
    assert!(matches!(store.get(&path("c")).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn the_copies_read_longest_ago_make_room() {
    let (remote, disk) = new();
    let store = open(&remote, &disk, 250).await;
    for (name, byte) in [("a", 1), ("b", 2)] {
        store.put(&path(name), body(byte).into()).await.unwrap();
    }
    store.get(&path("a")).await.unwrap();
    store.put(&path("c"), body(3).into()).await.unwrap();
    assert_eq!(copies(&disk).await, ["a", "c"]);
    assert_eq!(store.copied_bytes(), 200);
    assert_eq!(store.get(&path("b")).await.unwrap().bytes().await.unwrap(), body(2), "fetched again");
    // What does not fit at all is read where it lies, and a smaller cache keeps less of what it finds.
    store.put(&path("large"), Bytes::from(vec![9; 300]).into()).await.unwrap();
    assert_eq!(store.get_range(&path("large"), 299..300).await.unwrap(), Bytes::from_static(&[9]));
    assert!(store.copied_bytes() <= 250);
    assert_eq!(open(&remote, &disk, 100).await.copied_bytes(), 100);
    assert_eq!(copies(&disk).await.len(), 1);
}

#[tokio::test]
async fn a_copy_goes_with_its_object_and_when_it_is_forgotten() {
    let (remote, disk) = new();
    let store = open(&remote, &disk, 1000).await;
    store.put(&path("a"), body(1).into()).await.unwrap();
    assert!(store.forget(&path("a")).await);
    assert!(!store.forget(&path("a")).await);
    assert!(copies(&disk).await.is_empty());
    assert_eq!(store.get(&path("a")).await.unwrap().bytes().await.unwrap(), body(1));
    store.delete(&path("a")).await.unwrap();
    assert!(copies(&disk).await.is_empty());
    assert!(matches!(store.get(&path("a")).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn many_readers_of_one_object_get_it() {
    let (remote, disk) = new();
    remote.put(&path("a"), body(7).into()).await.unwrap();
    let store = open(&remote, &disk, 1000).await;
    let (one, all) = (path("a"), 0..50);
    let reads = join_all(all.map(|_| store.get_range(&one, 0..100))).await;
    assert!(reads.into_iter().all(|read| read.unwrap() == body(7)));
    assert_eq!(store.copied_bytes(), 100);
}
