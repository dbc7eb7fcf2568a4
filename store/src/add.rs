//! Storing an image: what is known before, what is known after, and how it begins.

use std::collections::BTreeMap;

use rbd::CreateOptions;
use tracing::Instrument;

use crate::{
    Operation, Store, connection,
    counters::Measured,
    error::{Error, Result},
    hash::{self, Hashers},
    leftover,
    location::Location,
    upload::Created,
    writer::{InFlight, Writer},
};

/// The most that one upload holds in memory, unless a single chunk is more.
pub(crate) const LARGEST_WINDOW: u64 = 64 << 20;

/// How often an id that was found taken, and freed, is tried again: others may be at it too.
const ATTEMPTS: usize = 3;

/// What is known of an image before its data.
#[derive(Debug, Clone)]
pub struct AddOptions {
    /// Bytes; `None` where the source does not say.
    pub size: Option<u64>,
    /// The multihash, by its name in Python's `hashlib`: any digest of a fixed length that OpenSSL has.
    pub hash_algorithm: String,
    /// Whether to compute digests at all. They take most of the time of an upload.
    pub digests: bool,
}

impl Default for AddOptions {
    fn default() -> Self {
        Self { size: None, hash_algorithm: "sha512".into(), digests: true }
    }
}

/// An image that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// Where it is.
    pub location: Location,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// The md5 of its data (Glance's `checksum`); empty without [`AddOptions::digests`].
    pub checksum: String,
    /// The digest of its data in the algorithm asked for (Glance's `os_hash_value`); empty without [`AddOptions::digests`].
    pub multihash: String,
    /// What Glance keeps with the location: the backend's name as `store`, where there are several.
    pub metadata: BTreeMap<String, String>,
}

impl Store {
    /// Begins to store an image under a Glance image id.
    ///
    /// What an earlier upload of this id left whose process was killed is removed first. That takes until Ceph knows the client
    /// to be dead, half a minute at most; and one that this process gave up is waited for.
    ///
    /// ```no_run
    /// # async fn example(store: store::Store) -> store::Result<()> {
    /// let mut writer = store.add("6a3a…", store::AddOptions { size: Some(5), ..Default::default() }).await?;
    /// writer.write("hello".into()).await?;
    /// let added = writer.finish().await?;
    /// println!("{} has md5 {}", added.location, added.checksum);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `AlreadyExists`, also while somebody else is storing it; `BadConfiguration` for an unknown digest; `StorageFull`,
    /// `PermissionDenied`, `Timeout`.
    pub async fn add(&self, id: &str, options: AddOptions) -> Result<Writer> {
        let measured = self.meters().begin(Operation::Add, id);
        let begun = self.begin_add(id, options, &measured).instrument(measured.span().clone()).await;
        if begun.is_err() {
            measured.end(&begun);
        }
        begun
    }

    async fn begin_add(&self, id: &str, options: AddOptions, measured: &Measured) -> Result<Writer> {
        let digest = hash::algorithm(&options.hash_algorithm)?;
        let config = self.config();
        let pool = self.ready().await?;
        let create = CreateOptions {
            order: Some(config.order()?),
            features: connection::features(pool.cluster())?,
            data_pool: config.data_pool.clone(),
            ..CreateOptions::default()
        };
        let mut taken = rbd::Error {
            kind: rbd::ErrorKind::AlreadyExists,
            operation: "store image",
            object: pool.path(id),
            errno: 0,
        };
        let Some((mut claim, interest)) = self.claims().claim(id).await else {
            return Err(Error::AlreadyExists(taken));
        };
        self.prepare_trash().await;
        for _ in 0..ATTEMPTS {
            let create = Created::create(self.clone(), pool.clone(), claim, options.size, create.clone());
            match self.background().finish(create, Created::discard).await? {
                Created::Upload(upload) => {
                    let hashers = if options.digests { Hashers::digests(digest)? } else { Hashers::none() };
                    let window = (config.window.max(1) * config.chunk_bytes()) as u64;
                    return Ok(Writer {
                        upload,
                        interest: Some(interest),
                        store: self.clone(),
                        measured: measured.clone(),
                        hashers,
                        share: self.budget().share(window.min(LARGEST_WINDOW).max(config.chunk_bytes() as u64)),
                        chunk: None,
                        in_flight: InFlight::new(),
                        chunk_bytes: config.chunk_bytes(),
                        thin: config.thin,
                        submitted: 0,
                        image_size: options.size.unwrap_or(0),
                        announced: options.size,
                        broken: false,
                    });
                }
                Created::Taken(back, error) => (claim, taken) = (back, error),
            }
            if !leftover::clear(self, &pool, id).await? {
                break;
            }
        }
        Err(Error::AlreadyExists(taken))
    }
}
