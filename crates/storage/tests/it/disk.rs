//! Both disks keep the same promises; the simulated one loses what a real one may lose.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use storage::disk::{Frozen, OpenMode};
use storage::{Disk, RealDisk, SimulatedDisk};

async fn write(disk: &dyn Disk, path: &str, bytes: &'static [u8]) -> storage::disk::FileId {
    let file = disk.open(path, OpenMode::CreateNew).await.unwrap();
    disk.write_at(file, 0, vec![Bytes::from_static(bytes)]).await.unwrap();
    file
}

async fn read(disk: &dyn Disk, path: &str) -> io::Result<Bytes> {
    let file = disk.open(path, OpenMode::Read).await?;
    let len = disk.len(file).await? as usize;
    let bytes = disk.read_at(file, 0, len).await;
    disk.close(file).await?;
    bytes
}

async fn keeps_the_contract(disk: Arc<dyn Disk>) {
    disk.create_dir_all("a/b").await.unwrap();
    disk.create_dir_all("a/b").await.unwrap();
    let missing = disk.open("a/b/x", OpenMode::Read).await.unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);

    let file = disk.open("a/b/x", OpenMode::CreateNew).await.unwrap();
    let exists = disk.open("a/b/x", OpenMode::CreateNew).await.unwrap_err();
    assert_eq!(exists.kind(), io::ErrorKind::AlreadyExists);
    let many: Vec<Bytes> = (0..3000u32).map(|n| Bytes::copy_from_slice(&n.to_le_bytes())).collect();
    disk.write_at(file, 4096, many.clone()).await.unwrap();
    assert_eq!(disk.len(file).await.unwrap(), 4096 + 12_000);
    assert_eq!(disk.read_at(file, 0, 4096).await.unwrap(), vec![0; 4096]);
    assert_eq!(disk.read_at(file, 4096, 12_000).await.unwrap(), many.concat());
    let beyond = disk.read_at(file, 16_000, 97).await.unwrap_err();
    assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);

    disk.set_len(file, 5000).await.unwrap();
    disk.set_len(file, 9000).await.unwrap();
    assert_eq!(disk.read_at(file, 5000, 4000).await.unwrap(), vec![0; 4000]);
    disk.sync(file).await.unwrap();
    disk.write_and_sync(file, 100, vec![Bytes::from_static(b"he"), Bytes::from_static(b"re")]).await.unwrap();
    assert_eq!(disk.read_at(file, 98, 8).await.unwrap(), "\0\0here\0\0".as_bytes());

    let entries = disk.list("a/b").await.unwrap();
    assert_eq!(entries.iter().map(|e| (e.name.as_str(), e.len, e.is_dir)).collect::<Vec<_>>(), [("x", 9000, false)]);
    assert!(disk.list("a").await.unwrap()[0].is_dir);
    assert_eq!(disk.list("nowhere").await.unwrap(), []);

    let replaced = write(&*disk, "a/y", b"old").await;
    disk.rename("a/b/x", "a/y").await.unwrap();
    assert_eq!(disk.read_at(replaced, 0, 3).await.unwrap(), "old", "an open file outlives its name");
    disk.sync_dir("a").await.unwrap();
    assert_eq!(disk.list("a/b").await.unwrap(), []);
    disk.remove("a/y").await.unwrap();
    assert_eq!(disk.read_at(file, 4096, 4).await.unwrap(), vec![0; 4]);
    disk.close(file).await.unwrap();
    assert!(disk.read_at(file, 0, 1).await.is_err());
    assert!(disk.open("../x", OpenMode::CreateNew).await.is_err());
}

#[tokio::test]
async fn the_real_disk_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    keeps_the_contract(Arc::new(RealDisk::new(dir.path()))).await;
    let dir = tempfile::tempdir().unwrap();
    keeps_the_contract(Arc::new(RealDisk::new(dir.path()).syncing_in_place())).await;
}

#[tokio::test]
async fn the_simulated_disk_keeps_the_contract() {
    keeps_the_contract(Arc::new(SimulatedDisk::new(1))).await;
}

#[test]
fn a_data_directory_has_one_owner_and_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("data/of/annal");
    let lock = RealDisk::new(&root).lock().unwrap();
    let refused = RealDisk::new(&root).lock().unwrap_err().to_string();
    let holder = format!("it is in use by process {}", std::process::id());
    assert!(refused.contains("could not lock data directory") && refused.ends_with(&holder), "{refused}");
    drop(lock);
    RealDisk::new(&root).lock().unwrap();
}

#[tokio::test]
async fn a_crash_keeps_what_was_synced() {
    for seed in 0..50 {
        let disk = SimulatedDisk::new(seed);
        disk.create_dir_all("d").await.unwrap();
        let file = write(&disk, "d/f", b"synced").await;
        disk.sync(file).await.unwrap();
        disk.sync_dir("d").await.unwrap();
        disk.write_at(file, 0, vec![Bytes::from_static(b"others")]).await.unwrap();
        let left = read(&disk.crash(seed), "d/f").await.unwrap();
        assert!(left == "synced" || left == "others", "{left:?}");
    }
}

#[tokio::test]
async fn a_crash_tears_what_was_not_synced() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let disk = SimulatedDisk::new(seed);
        let file = write(&disk, "f", &[1; 2048]).await;
        disk.sync_dir("").await.unwrap();
        let left = disk.crash(seed);
        let bytes = read(&left, "f").await.unwrap();
        assert!(bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])), "a sector is one piece");
        seen.insert(bytes.iter().step_by(512).copied().collect::<Vec<u8>>());
        disk.close(file).await.unwrap();
    }
    assert!(seen.contains(&vec![]) && seen.contains(&vec![1, 1, 1, 1]), "{seen:?}");
    assert!(seen.iter().any(|sectors| sectors.windows(2).any(|pair| pair == [0, 1])), "out of order: {seen:?}");
}

#[tokio::test]
async fn names_that_were_not_synced_come_and_go() {
    let mut seen = BTreeSet::new();
    for seed in 0..50 {
        let disk = SimulatedDisk::new(seed);
        let file = write(&disk, "new", b"x").await;
        disk.sync(file).await.unwrap();
        disk.sync_dir("").await.unwrap();
        disk.rename("new", "final").await.unwrap();
        write(&disk, "other", b"y").await;
        let names = disk.crash(seed).list("").await.unwrap().into_iter().map(|entry| entry.name);
        seen.insert(names.collect::<Vec<_>>().join(" "));
    }
    let expected = ["final", "final other", "new", "new other"].map(str::to_owned);
    assert_eq!(seen, BTreeSet::from(expected), "a rename is whole or not at all");
}

#[tokio::test]
async fn nothing_is_durable_from_the_frozen_sync_on() {
    for then in [Frozen::Succeed, Frozen::Fail] {
        let disk = SimulatedDisk::new(3);
        let file = write(&disk, "f", b"one").await;
        disk.sync(file).await.unwrap();
        disk.freeze_at_sync(3, then);
        disk.sync_dir("").await.unwrap();
        assert!(!disk.is_frozen());
        disk.write_at(file, 3, vec![Bytes::from_static(b"two")]).await.unwrap();
        assert_eq!(disk.sync(file).await.is_ok(), then == Frozen::Succeed);
        assert!(disk.is_frozen());
        let later = disk.write_at(file, 0, vec![Bytes::from_static(b"XXX")]).await;
        assert_eq!(later.is_ok(), then == Frozen::Succeed);
        for seed in 0..20 {
            let left = read(&disk.crash(seed), "f").await.unwrap();
            assert!(left.starts_with(b"one"), "what came after the freeze was never written: {left:?}");
        }
    }
}

#[tokio::test]
async fn faults_come_when_asked_for() {
    let disk = SimulatedDisk::new(4);
    let file = write(&disk, "f", b"").await;
    disk.fail_next_sync();
    assert!(disk.sync(file).await.is_err());
    assert!(disk.sync(file).await.is_ok());

    disk.set_space(Some(3));
    let full = disk.write_at(file, 0, vec![Bytes::from_static(b"abcdef")]).await.unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.len(file).await.unwrap(), 3, "what found room was written");
    disk.set_space(None);
    disk.write_at(file, 0, vec![Bytes::from_static(b"abcdef")]).await.unwrap();

    disk.flip_bit("f", 1, 0).unwrap();
    assert_eq!(read(&disk, "f").await.unwrap(), "accdef");
    assert_eq!(disk.syncs(), 2);
}
