//! Stores or reads one image and prints, as JSON, how long that took: what `bench/run` compares with the stock driver.
//!
//! ```text
//! usage: bench add FILE ID [thin] [no-digests]
//!        bench get LOCATION
//! ```
//!
//! On the cluster that `CEPH_CONF` names, as the user `glance`, in the pool `images`. `call` is what the caller waits for, the
//! file being read included; `data` the part of it from the first byte to the last one stored, without creating the image and
//! without its snapshot. Connecting is in neither, since a store connects once. `peak_kib` is the most memory that the process
//! ever had.

use std::{
    fs::File,
    sync::OnceLock,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use store::{AddOptions, Config, SparseFile, Store};
use tracing_subscriber::{Layer, layer::SubscriberExt, util::SubscriberInitExt};

type Failure = Box<dyn std::error::Error>;

/// When the store said that all data is stored.
static STORED: OnceLock<Instant> = OnceLock::new();

struct NotesWhenStored;

impl<S: tracing::Subscriber> Layer<S> for NotesWhenStored {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if event.metadata().target() == "store::stored" {
            let _ = STORED.set(Instant::now());
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    tracing_subscriber::registry().with(NotesWhenStored).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let store = Store::open(Config {
        user: Some("glance".into()),
        timeout: Some(Duration::from_secs(120)),
        thin: arguments.contains(&"thin"),
        ..Config::default()
    })
    .await?;
    match arguments[..] {
        ["add", file, id, ..] => add(&store, file, id, !arguments.contains(&"no-digests")).await?,
        ["get", location] => get(&store, location).await?,
        _ => return Err("usage: bench add FILE ID [thin] [no-digests] | bench get LOCATION".into()),
    }
    store.settled().await;
    drop(store);
    rbd::settled().await;
    Ok(())
}

async fn add(store: &Store, path: &str, id: &str, digests: bool) -> Result<(), Failure> {
    let file = File::open(path)?;
    let options = AddOptions { size: Some(file.metadata()?.len()), digests, ..AddOptions::default() };
    let mut file = SparseFile::new(file);
    let call = Instant::now();
    let mut writer = store.add(id, options).await?;
    let data = Instant::now();
    while writer.read_from(&mut file).await? > 0 {}
    let added = writer.finish().await?;
    let call = call.elapsed();
    let data = STORED.get().ok_or("the store does not say any more when all data is stored")?.duration_since(data);
    let (call, data) = (call.as_secs_f64(), data.as_secs_f64());
    let report = serde_json::json!({
        "location": added.location.to_string(), "checksum": added.checksum, "call": call, "data": data,
        "peak_kib": peak_kib()?,
    });
    println!("{report}");
    Ok(())
}

async fn get(store: &Store, location: &str) -> Result<(), Failure> {
    let location = location.parse()?;
    let call = Instant::now();
    let mut reader = store.get(&location, ..).await?;
    let mut bytes = 0;
    while let Some(piece) = reader.try_next().await? {
        bytes += piece.len();
    }
    let call = call.elapsed().as_secs_f64();
    reader.close().await?;
    println!("{}", serde_json::json!({ "bytes": bytes, "call": call, "peak_kib": peak_kib()? }));
    Ok(())
}

fn peak_kib() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(peak.and_then(|line| line.split_whitespace().next()).ok_or("no VmHWM")?.parse()?)
}
