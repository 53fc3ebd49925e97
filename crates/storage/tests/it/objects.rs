//! The object store: durable once a put returns, whole or not there at all, and nothing outside its root.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use storage::disk::Frozen;
use storage::objects::DiskObjectStore;
use storage::{Disk, RealDisk, SimulatedDisk};

async fn open(disk: Arc<dyn Disk>) -> DiskObjectStore {
    DiskObjectStore::open(disk, "segments", "tmp").await.unwrap()
}

fn path(name: &str) -> Path {
    Path::parse(name).unwrap()
}

async fn names(store: &DiskObjectStore, prefix: Option<&str>) -> Vec<String> {
    let prefix = prefix.map(path);
    let objects: Vec<_> = store.list(prefix.as_ref()).try_collect().await.unwrap();
    objects.into_iter().map(|object| object.location.to_string()).collect()
}

async fn works_as_a_store(disk: Arc<dyn Disk>) {
    let store = open(disk.clone()).await;
    let body: Bytes = (0..9_000_000u32).map(|n| n as u8).collect();
    store.put(&path("1/2/3/a.parquet"), body.clone().into()).await.unwrap();
    store.put(&path("1/2/b.parquet"), PutPayload::from_static(b"bbbb")).await.unwrap();
    store.put(&path("1/2/b.parquet"), PutPayload::from_static(b"other")).await.unwrap();

    assert_eq!(store.get(&path("1/2/3/a.parquet")).await.unwrap().bytes().await.unwrap(), body);
    assert_eq!(store.head(&path("1/2/b.parquet")).await.unwrap().size, 5);
    assert_eq!(store.get_range(&path("1/2/b.parquet"), 1..3).await.unwrap(), "th");
    let ranges = store.get_ranges(&path("1/2/3/a.parquet"), &[5..8, 8_000_000..8_000_002, 0..1]).await.unwrap();
    assert_eq!(ranges, [body.slice(5..8), body.slice(8_000_000..8_000_002), body.slice(0..1)]);
    let beyond = store.get_ranges(&path("1/2/b.parquet"), &[0..1, 3..6]).await;
    assert!(beyond.unwrap_err().to_string().contains("not within"));

    let create = |body: &'static [u8]| {
        let store = store.clone();
        async move { store.put_opts(&path("c"), PutPayload::from_static(body), PutMode::Create.into()).await }
    };
    let (one, other) = tokio::join!(create(b"1"), create(b"2"));
    assert!(one.is_ok() != other.is_ok(), "one of two creators is told that the object exists");
    assert!(matches!(create(b"3").await, Err(Error::AlreadyExists { .. })));

    store.copy(&path("c"), &path("1/c")).await.unwrap();
    store.rename(&path("1/c"), &path("1/d")).await.unwrap();
    assert_eq!(names(&store, None).await, ["1/2/3/a.parquet", "1/2/b.parquet", "1/d", "c"]);
    assert_eq!(names(&store, Some("1/2")).await, ["1/2/3/a.parquet", "1/2/b.parquet"]);
    let listed = store.list_with_delimiter(Some(&path("1"))).await.unwrap();
    assert_eq!(listed.common_prefixes, [path("1/2")]);
    assert_eq!(listed.objects[0].location, path("1/d"));

    let reading = store.get(&path("1/2/3/a.parquet")).await.unwrap();
    store.delete(&path("1/2/3/a.parquet")).await.unwrap();
    assert_eq!(reading.bytes().await.unwrap(), body, "who reads an object keeps it");
    let gone = store.get(&path("1/2/3/a.parquet")).await;
    assert!(matches!(gone, Err(Error::NotFound { .. })));
    assert!(matches!(store.delete(&path("nothing")).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.put_multipart(&path("m")).await, Err(Error::NotSupported { .. })));
    assert_eq!(disk.list("tmp").await.unwrap(), []);
}

#[tokio::test]
async fn a_real_disk_works_as_a_store() {
    let dir = tempfile::tempdir().unwrap();
    works_as_a_store(Arc::new(RealDisk::new(dir.path()))).await;
}

#[tokio::test]
async fn a_simulated_disk_works_as_a_store() {
    works_as_a_store(Arc::new(SimulatedDisk::new(1))).await;
}

#[tokio::test]
async fn nothing_outside_the_root_is_served() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let store = open(disk.clone()).await;
    disk.open("secret", storage::disk::OpenMode::CreateNew).await.unwrap();
    for name in ["../secret", "..", "a/../../secret", "/secret", ""] {
        let location = Path::from(name);
        assert!(store.get(&location).await.is_err(), "{name:?}");
        assert!(store.delete(&location).await.is_err(), "{name:?}");
    }
    assert!(store.put(&Path::default(), PutPayload::new()).await.is_err());
    assert_eq!(disk.list("").await.unwrap().iter().filter(|entry| entry.name == "secret").count(), 1);
}

/// For each sync: objects whose put had returned are whole after power loss, others whole or absent.
#[tokio::test]
async fn an_object_is_whole_or_absent_after_power_loss() {
    let body = |n: usize| Bytes::from(vec![n as u8; 3000]);
    for n in 1.. {
        let disk = Arc::new(SimulatedDisk::new(n));
        disk.freeze_at_sync(n, Frozen::Succeed);
        let mut put = 0;
        let mut survives = 0;
        if let Ok(store) = DiskObjectStore::open(disk.clone(), "segments", "tmp").await {
            for object in 0..4 {
                store.put(&path(&format!("{}/{object}", object / 2)), body(object).into()).await.unwrap();
                put = object + 1;
                survives = if disk.is_frozen() { survives } else { put };
            }
            let many = (4..8).map(|object| (path(&format!("{}/{object}", object / 2)), body(object).into()));
            store.put_many(many.collect()).await.unwrap();
            put = 8;
            survives = if disk.is_frozen() { survives } else { put };
        }
        let left = open(Arc::new(disk.crash(n * 7))).await;
        for object in 0..8 {
            let found = left.get(&path(&format!("{}/{object}", object / 2))).await;
            match found {
                Ok(found) => assert_eq!(found.bytes().await.unwrap(), body(object), "sync {n}, object {object}"),
                Err(Error::NotFound { .. }) => {
                    assert!(object >= survives, "sync {n}: object {object} of {put} is lost")
                }
                Err(error) => panic!("{error}"),
            }
        }
        if !disk.is_frozen() {
            return;
        }
    }
}

#[tokio::test]
async fn putting_many_syncs_each_directory_once() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let store = open(disk.clone()).await;
    store.put(&path("1/0"), PutPayload::from_static(b"x")).await.unwrap();
    let before = disk.syncs();
    let many = (1..=100).map(|object| (path(&format!("1/{object}")), PutPayload::from_static(b"x")));
    store.put_many(many.collect()).await.unwrap();
    assert_eq!(disk.syncs() - before, 101);
}

#[tokio::test]
async fn a_replaced_object_is_read_anew_and_few_stay_open() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let store = open(disk.clone()).await;
    let last = event::limits::OPEN_OBJECTS_MAX as u32 + 10;
    let name = |object: u32| path(&format!("1/{object}"));
    for object in 0..last {
        store.put(&name(object), Bytes::copy_from_slice(&object.to_le_bytes()).into()).await.unwrap();
        assert_eq!(store.get_range(&name(object), 0..4).await.unwrap(), object.to_le_bytes().as_slice());
    }
    assert_eq!(disk.open_files(), event::limits::OPEN_OBJECTS_MAX);
    for object in 0..last {
        store.put(&name(object), PutPayload::from_static(b"replaced")).await.unwrap();
        assert_eq!(store.get(&name(object)).await.unwrap().bytes().await.unwrap(), "replaced");
        store.delete(&name(object)).await.unwrap();
        assert!(store.head(&name(object)).await.is_err());
    }
    assert_eq!(disk.open_files(), 0, "a deleted object's space is free");
}

#[tokio::test]
async fn a_full_disk_is_told_as_such_and_leaves_nothing() {
    let disk = Arc::new(SimulatedDisk::new(1));
    let store = open(disk.clone()).await;
    disk.set_space(Some(10));
    let error = store.put(&path("1/a"), PutPayload::from_static(b"more than ten bytes")).await.unwrap_err();
    let Error::Generic { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.downcast_ref::<std::io::Error>().unwrap().kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(disk.list("tmp").await.unwrap(), []);
    assert!(names(&store, None).await.is_empty());
    disk.set_space(None);
    store.put(&path("1/a"), PutPayload::from_static(b"more than ten bytes")).await.unwrap();
}
