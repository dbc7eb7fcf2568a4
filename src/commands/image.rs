//! `glance-rbd image`: the store, by hand.

use std::{
    io::{ErrorKind, IsTerminal},
    ops::ControlFlow,
    path::Path,
};

use anyhow::{Context, bail};
use bytes::BytesMut;
use futures_util::TryStreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use store::{AddOptions, CloneOptions, Config, Location, Removed, SparseFile, Store, Writer};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
};

use super::{
    interruptible,
    output::{self, Output},
};
use crate::{
    cli::{
        Format,
        image::{ImageArgs, ImageCommand, Target},
    },
    exit, report,
};

/// How much is read from a file at once.
const READ: usize = 4 << 20;

/// The multihash that Glance uses unless told otherwise.
const HASH: &str = "sha512";

pub(super) async fn run(command: ImageCommand) -> anyhow::Result<u8> {
    match command {
        ImageCommand::Put { file, id, size, args } => {
            with_store(&args, async |store| put(store, &file, &id.to_string(), size, args.format).await).await
        }
        ImageCommand::Get { what, output, offset, length, args } => {
            if output == Path::new("-") && std::io::stdout().is_terminal() {
                bail!("will not write an image to the terminal; name a file with -o, or redirect");
            }
            with_store(&args, async |store| get(store, &what, &output, offset, length).await).await
        }
        ImageCommand::Stat { what, args } => {
            with_store(&args, async |store| stat(store, &what, args.format).await).await
        }
        ImageCommand::List { args } => with_store(&args, async |store| list(store, args.format).await).await,
        ImageCommand::Rm { what, args } => with_store(&args, async |store| rm(store, &what, args.format).await).await,
        ImageCommand::Clone { what, target, size, args } => {
            with_store(&args, async |store| clone(store, &what, &target, size, args.format).await).await
        }
        ImageCommand::Flatten { target, args } => with_store(&args, async |store| flatten(store, &target).await).await,
        ImageCommand::Children { what, args } => {
            with_store(&args, async |store| children(store, &what, args.format).await).await
        }
    }
}

/// Opens the store, runs a command, and waits until nothing of it is left behind, also when it was interrupted.
async fn with_store(args: &ImageArgs, command: impl AsyncFnOnce(&Store) -> anyhow::Result<()>) -> anyhow::Result<u8> {
    let config = Config {
        pool: args.cluster.pool.to_string(),
        user: args.cluster.connect.user.clone(),
        ceph_conf: args.cluster.connect.ceph_conf.clone(),
        timeout: Some(args.cluster.connect.timeout),
        ..Config::default()
    };
    let store = interruptible(async { Ok(Store::open(config).await?) }).await?;
    let result = interruptible(command(&store)).await;
    // Bounded, for a cluster that has stopped to answer would never be done.
    let _ = tokio::time::timeout(2 * args.cluster.connect.timeout, store.settled()).await;
    result.map(|()| exit::DONE)
}

/// A location as it is, or that of an image id in the pool.
fn location(store: &Store, what: &str) -> anyhow::Result<Location> {
    if what.contains("://") { Ok(what.parse().map_err(store::Error::from)?) } else { Ok(store.location_of(what)) }
}

/// Where an image comes from.
enum Source {
    /// Read as far as it goes; its holes are not.
    File(SparseFile),
    Stream(Box<dyn AsyncRead + Unpin>),
}

impl Source {
    /// Opens a file, or standard input for `-`, and says how long it is, if that can be known.
    async fn open(file: &Path) -> anyhow::Result<(Self, Option<u64>)> {
        if file == Path::new("-") {
            return Ok((Self::Stream(Box::new(tokio::io::stdin())), None));
        }
        let context = || format!("cannot read {}", file.display());
        let mut open = File::open(file).await.with_context(context)?;
        let metadata = open.metadata().await.with_context(context)?;
        if metadata.is_dir() {
            bail!("{} is a directory", file.display());
        }
        if metadata.is_file() {
            return Ok((Self::File(SparseFile::new(open.into_std().await)), Some(metadata.len())));
        }
        // Devices and pipes have no length that could be trusted.
        open.set_max_buf_size(READ);
        Ok((Self::Stream(Box::new(open)), None))
    }

    /// Gives the next piece to the writer; how long it was, 0 at the end.
    async fn next(&mut self, writer: &mut Writer) -> store::Result<u64> {
        let source = match self {
            Self::File(file) => return writer.read_from(file).await,
            Self::Stream(source) => source,
        };
        let mut buffer = BytesMut::with_capacity(READ);
        let read = source.read_buf(&mut buffer).await.map_err(store::Error::Source)?;
        writer.write(buffer.freeze()).await?;
        Ok(read as u64)
    }
}

async fn put(store: &Store, file: &Path, id: &str, size: Option<u64>, format: Format) -> anyhow::Result<()> {
    let (mut source, known) = Source::open(file).await?;
    let size = size.or(known);
    let options = AddOptions { size, hash_algorithm: HASH.into(), ..AddOptions::default() };
    let mut writer = store.add(id, options).await?;
    let bar = bytes_bar(size);
    loop {
        match source.next(&mut writer).await {
            Ok(0) => break,
            Ok(read) => bar.inc(read),
            Err(error) => {
                bar.finish_and_clear();
                writer.abort().await;
                return Err(match error {
                    store::Error::Source(error) => {
                        anyhow::Error::new(error).context(format!("cannot read {}", file.display()))
                    }
                    error => error.into(),
                });
            }
        }
    }
    bar.set_message("taking the snapshot");
    let added = writer.finish().await;
    bar.finish_and_clear();
    let added = added?;
    match format {
        Format::Json => output::print(&report::json(&json!({
            "location": added.location.to_string(),
            "bytes": added.bytes,
            "checksum": added.checksum,
            "os_hash_algo": HASH,
            "os_hash_value": added.multihash,
        }))?)?,
        Format::Table => output::print(&report::table::fields(&[
            ("location", added.location.to_string()),
            ("bytes", added.bytes.to_string()),
            ("checksum", added.checksum),
            ("os_hash_algo", HASH.into()),
            ("os_hash_value", added.multihash),
        ]))?,
    }
    Ok(())
}

async fn get(store: &Store, what: &str, output: &Path, offset: u64, length: Option<u64>) -> anyhow::Result<()> {
    let location = location(store, what)?;
    let end = length.map_or(u64::MAX, |length| offset.saturating_add(length));
    let mut reader = store.get(&location, offset..end).await?;
    let bar = bytes_bar(Some(reader.remaining()));
    let context = || format!("cannot write {}", output.display());
    let mut target = if output == Path::new("-") { None } else { Some(Output::create(output)?) };
    let mut sink: Box<dyn AsyncWrite + Unpin> = match &mut target {
        None => Box::new(tokio::io::stdout()),
        Some(target) => {
            let mut file = File::from_std(target.file().try_clone().with_context(context)?);
            file.set_max_buf_size(READ);
            Box::new(file)
        }
    };
    while let Some(chunk) = reader.try_next().await? {
        match sink.write_all(&chunk).await {
            // A reader that has gone wants no more.
            Err(error) if target.is_none() && error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written.with_context(context)?,
        }
        bar.inc(chunk.len() as u64);
    }
    sink.flush().await.with_context(context)?;
    drop(sink);
    bar.finish_and_clear();
    if let Some(target) = target {
        target.keep()?;
    }
    reader.close().await?;
    Ok(())
}

async fn stat(store: &Store, what: &str, format: Format) -> anyhow::Result<()> {
    let location = location(store, what)?;
    let stat = store.stat(&location).await?;
    match format {
        Format::Json => output::print(&report::json(&json!({
            "location": location.to_string(),
            "image_id": stat.image_id,
            "bytes": stat.bytes,
            "used_bytes": stat.used,
            "object_size": stat.object_size,
            "features": stat.features.to_string(),
            "snapshots": stat.snapshots.iter().map(|snapshot| json!({
                "name": snapshot.name, "protected": snapshot.protected, "bytes": snapshot.size,
            })).collect::<Vec<_>>(),
        }))?)?,
        Format::Table => {
            let snapshots = stat
                .snapshots
                .iter()
                .map(|snapshot| format!("{}{}", snapshot.name, if snapshot.protected { " (protected)" } else { "" }));
            output::print(&report::table::fields(&[
                ("location", location.to_string()),
                ("image id", stat.image_id),
                ("size", report::table::size(stat.bytes)),
                ("used", report::table::size(stat.used)),
                ("object size", report::table::size(stat.object_size)),
                ("features", stat.features.to_string()),
                ("snapshots", snapshots.collect::<Vec<_>>().join(", ")),
            ]))?;
        }
    }
    Ok(())
}

async fn list(store: &Store, format: Format) -> anyhow::Result<()> {
    let (images, problems) = reconcile::images(&store.pool(), &|_, _, _| {}).await?;
    match format {
        Format::Json => {
            let images: Vec<_> = images
                .iter()
                .map(|image| {
                    json!({
                        "name": image.name,
                        "image_id": image.id,
                        "bytes": image.size,
                        "created": image.created,
                        "snapshots": image.snapshots.iter().map(|snapshot| &snapshot.name).collect::<Vec<_>>(),
                    })
                })
                .collect();
            output::print(&report::json(&images)?)?;
        }
        Format::Table => output::print(&report::table::images(&images))?,
    }
    if problems.is_empty() {
        return Ok(());
    }
    for problem in &problems {
        eprintln!("incomplete: {}: {}", problem.what, problem.why);
    }
    bail!("{} images could not be read; the list is incomplete", problems.len());
}

async fn rm(store: &Store, what: &str, format: Format) -> anyhow::Result<()> {
    let location = location(store, what)?;
    let removed = store.delete(&location).await?;
    let in_trash = removed == Removed::InTrash;
    match format {
        Format::Json => {
            output::print(&report::json(&json!({ "location": location.to_string(), "in_trash": in_trash }))?)?;
        }
        Format::Table if in_trash => {
            eprintln!("{location} has clones: it is in the trash, to be purged when they are gone");
        }
        Format::Table => {}
    }
    Ok(())
}

async fn clone(store: &Store, what: &str, target: &Target, size: Option<u64>, format: Format) -> anyhow::Result<()> {
    let location = location(store, what)?;
    store.clone_image(&location, &target.pool, &target.name, CloneOptions { size, ..CloneOptions::default() }).await?;
    if format == Format::Json {
        output::print(&report::json(
            &json!({ "parent": location.to_string(), "clone": format!("{}/{}", target.pool, target.name) }),
        )?)?;
    }
    Ok(())
}

async fn flatten(store: &Store, target: &Target) -> anyhow::Result<()> {
    let bar = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("flatten [{bar:40}] {human_pos}/{human_len} objects {eta}")
            .expect("a valid template")
            .progress_chars("=> "),
    );
    let shown = bar.clone();
    let progress = move |done, total| {
        shown.set_length(total);
        shown.set_position(done);
        ControlFlow::Continue(())
    };
    let flattened = store.flatten(&target.pool, &target.name, Box::new(progress)).await;
    bar.finish_and_clear();
    Ok(flattened?)
}

async fn children(store: &Store, what: &str, format: Format) -> anyhow::Result<()> {
    let location = location(store, what)?;
    let children = store.children(&location).await?;
    match format {
        Format::Json => {
            let children: Vec<_> = children
                .iter()
                .map(|child| {
                    json!({
                        "pool": child.pool,
                        "namespace": child.namespace,
                        "image": child.name,
                        "image_id": child.id,
                        "in_trash": child.in_trash,
                    })
                })
                .collect();
            output::print(&report::json(&children)?)?;
        }
        Format::Table => output::print(&report::table::children(&children))?,
    }
    Ok(())
}

/// A bar of bytes; a spinner where there is no telling how many there will be.
fn bytes_bar(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (
            ProgressBar::new(size),
            "[{bar:40}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} {msg}",
        ),
        None => (ProgressBar::no_length(), "{spinner} {binary_bytes} {binary_bytes_per_sec} {msg}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("a valid template").progress_chars("=> "))
}
