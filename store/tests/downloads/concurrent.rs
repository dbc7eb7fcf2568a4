//! Many downloads at once, in little memory.

use std::process::Command;

use futures_util::{TryStreamExt, future::join_all};
use openssl::hash::{Hasher, MessageDigest};
use store::{Config, Store};

use crate::scratch::{MIB, config, in_scratch, noise};

/// What the child is to read; tells it that it is one.
const VARIABLE: &str = "GLANCE_RBD_TEST_DOWNLOADS";

const IMAGES: usize = 32;
const LENGTH: usize = 16;
const MEMORY: u64 = 64 << 20;

/// 32 at once, of 512 MiB together, in a budget of 64 MiB: each gets its turn, and none another's bytes.
#[test]
fn thirty_two_downloads_at_once_are_right_and_within_their_memory() {
    in_scratch(Config { chunk_size: 8, ..config() }, |scratch| async move {
        let images = join_all((0..IMAGES).map(|n| {
            let scratch = scratch.clone();
            tokio::spawn(async move { scratch.put(&noise(n as u64, LENGTH * MIB)).await })
        }));
        let images: Vec<_> = images.await.into_iter().map(Result::unwrap).collect();
        let locations: Vec<String> = images.iter().map(|added| added.location.to_string()).collect();
        // This very test program, run again, so that nobody else's memory is in its own.
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "concurrent::what_the_child_does", "--nocapture"])
            .env(VARIABLE, locations.join(" "))
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{output}{}", String::from_utf8_lossy(&child.stderr));
        let said =
            |word: &str| output.lines().filter_map(|line| line.strip_prefix(word)).map(str::trim).collect::<Vec<_>>();
        let expected: Vec<&str> = images.iter().map(|added| added.checksum.as_str()).collect();
        assert_eq!(said("md5"), expected);
        let mib = |line: &str| line.parse::<u64>().unwrap() >> 20;
        let (base, peak) = (mib(said("base")[0]), mib(said("peak")[0]));
        println!("{IMAGES} downloads: {} MiB over a base of {base} MiB", peak - base);
        // Beside the budget: what came from the network stays in librados' own buffers until it is copied, for as many
        // pieces as arrive at the same time. And on a machine that is busy, one piece for each that has waited for long.
        let (arriving, patient) = (MEMORY >> 20, IMAGES as u64 * 4);
        assert!(peak - base <= (MEMORY >> 20) + arriving + patient, "{peak} MiB, {base} of them without any download");
    });
}

#[test]
fn what_the_child_does() {
    let Ok(locations) = std::env::var(VARIABLE) else { return };
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(async {
        let store = Store::open(Config { memory: MEMORY, chunk_size: 8, ..config() }).await.unwrap();
        let locations: Vec<store::Location> = locations.split(' ').map(|location| location.parse().unwrap()).collect();
        store.size(&locations[0]).await.unwrap();
        println!("\nbase {}", peak());
        let md5s = join_all(locations.into_iter().map(|location| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut md5 = Hasher::new(MessageDigest::md5()).unwrap();
                let mut reader = store.get(&location, ..).await.unwrap();
                while let Some(piece) = reader.try_next().await.unwrap() {
                    md5.update(&piece).unwrap();
                }
                md5.finish().unwrap().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
            })
        }));
        for md5 in md5s.await {
            println!("md5 {}", md5.unwrap());
        }
        println!("peak {}", peak());
        // Under threads of librados that still run, a process does not end cleanly.
        store.settled().await;
        drop(store);
        rbd::settled().await;
    });
}

/// The most memory this process ever had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
