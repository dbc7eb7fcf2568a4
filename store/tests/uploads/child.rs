//! A process that uploads until it is killed: this very test program, run again.

use std::{
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use store::{AddOptions, Store};

use crate::lab::{MIB, config, id, noise, runtime};

/// What the child is to do; tells it that it is one.
const VARIABLE: &str = "GLANCE_RBD_TEST_CHILD";

/// What a child says of itself.
pub(crate) struct Uploader {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Uploader {
    /// Starts one that stores `pieces` of a mebibyte each, with a pause after each, under an id; then it ends the upload.
    pub(crate) fn start(pool: &str, id: &str, pieces: usize) -> Self {
        Self::run(&format!("upload {pool} {id} {pieces}"))
    }

    /// Starts one that stores so many images at once in so much memory.
    pub(crate) fn many(pool: &str, images: usize, mib: usize, memory: u64) -> Self {
        Self::run(&format!("many {pool} {images} {mib} {memory}"))
    }

    fn run(task: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::what_a_child_does", "--nocapture"])
            .env(VARIABLE, task)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Waits for it to say something; what follows the word. `None` if it ended without.
    pub(crate) fn wait_for(&mut self, word: &str) -> Option<String> {
        self.lines.by_ref().map(Result::unwrap).find_map(|line| Some(line.strip_prefix(word)?.trim().to_owned()))
    }

    /// Kills it as the kernel would; whether it had said that it was done.
    pub(crate) fn kill(mut self) -> bool {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.wait_for("done").is_some()
    }
}

#[test]
fn what_a_child_does() {
    let Ok(task) = std::env::var(VARIABLE) else { return };
    let words: Vec<&str> = task.split(' ').collect();
    runtime().block_on(async {
        match words[..] {
            ["upload", pool, id, pieces] => upload(pool, id, pieces.parse().unwrap()).await,
            ["many", pool, images, mib, memory] => {
                many(pool, images.parse().unwrap(), mib.parse().unwrap(), memory.parse().unwrap()).await;
            }
            _ => panic!("{task}"),
        }
    });
}

async fn upload(pool: &str, id: &str, pieces: usize) {
    let store = Store::open(config(pool)).await.unwrap();
    println!("\nconnected");
    let mut writer = store.add(id, AddOptions::default()).await.unwrap();
    for n in 0..pieces {
        writer.write(noise(n as u64, MIB)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    writer.finish().await.unwrap();
    println!("done");
}

async fn many(pool: &str, images: usize, mib: usize, memory: u64) {
    let config = store::Config { memory, ..config(pool) };
    let store = Store::open(config).await.unwrap();
    // What there is without any upload: the program, librados and its threads.
    store.add(&id(), AddOptions::default()).await.unwrap().finish().await.unwrap();
    let base = peak();
    let piece = noise(1, MIB);
    let uploads = (0..images).map(|n| {
        let (store, piece) = (store.clone(), piece.clone());
        tokio::spawn(async move {
            let mut writer = store.add(&format!("image-{n}"), AddOptions::default()).await.unwrap();
            for k in 0..mib {
                // Different everywhere, and all of it known to whoever checks.
                writer.write(vec![(n * 7 + k) as u8; 16].into()).await.unwrap();
                writer.write(piece.slice(16..)).await.unwrap();
            }
            writer.finish().await.unwrap()
        })
    });
    for upload in futures_util::future::join_all(uploads).await {
        let added = upload.unwrap();
        println!("image {} {} {}", added.location.image(), added.checksum, added.multihash);
    }
    println!("memory {} {}", base, peak());
}

/// The most memory this process ever had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
