//! A small image server: Glance's calls for creating, uploading, reading and deleting images, over this store and an SQLite
//! database of Glance's schema. What an embedder needs to know is in `files.rs`.
//!
//! ```text
//! usage: server GLANCE-API.CONF DATABASE [ADDRESS:PORT]
//! ```
//!
//! The store is configured as Glance's is (`[glance_store]`, or a backend of `enabled_backends`). A database that is not there
//! is made. It speaks plain HTTP to whoever can reach it, and asks nobody who they are: put something in front of it.
//!
//! ```text
//! id=$(curl -sS -H 'Content-Type: application/json' localhost:9292/v2/images \
//!        -d '{"name": "demo", "disk_format": "raw", "container_format": "bare"}' | jq -r .id)
//! curl -sS -T disk.raw -H 'Content-Type: application/octet-stream' localhost:9292/v2/images/$id/file
//! curl -sS -r 1000-1999 localhost:9292/v2/images/$id/file
//! ```

mod catalog;
mod failure;
mod files;
mod images;
mod range;

use std::error::Error;

use axum::{
    Router,
    routing::{get, post, put},
};
use store::{Config, OsloConf, Store};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use self::catalog::Catalog;

/// What every request is served from.
#[derive(Clone)]
struct Server {
    store: Store,
    catalog: Catalog,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(conf), Some(database)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: server GLANCE-API.CONF DATABASE [ADDRESS:PORT]");
        std::process::exit(2);
    };
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:9292".into());
    let store = Store::open(Config::from_glance_conf(&OsloConf::read(conf)?, None)?).await?;
    let catalog = Catalog::open(&database).await?;
    catalog.end_uploads().await?;
    let server = Server { store: store.clone(), catalog };
    let routes = Router::new()
        .route("/v2/schemas/image", get(images::schema))
        .route("/v2/images", post(images::create))
        .route("/v2/images/{id}", get(images::show).delete(images::delete))
        .route("/v2/images/{id}/file", put(files::upload).get(files::download))
        .with_state(server);
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let mut terminated = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    axum::serve(listener, routes).with_graceful_shutdown(stop).await?;
    // What clients gave up is being cleaned up; a process that ends before leaves it in the pool. Then the connection: under
    // threads of librados that still run, a process does not end cleanly.
    store.settled().await;
    drop(store);
    rbd::settled().await;
    Ok(())
}
