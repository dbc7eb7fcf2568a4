//! Digests of a stream, each on a thread of its own.

use std::{sync::mpsc, thread};

use bytes::Bytes;
use openssl::hash::{Hasher, MessageDigest};
use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// Digests under way: md5, and the one that Glance calls the multihash.
pub(crate) struct Hashers {
    md5: Digest,
    multihash: Digest,
}

struct Digest {
    chunks: mpsc::Sender<Bytes>,
    result: oneshot::Receiver<Result<String, openssl::error::ErrorStack>>,
}

impl Hashers {
    /// Starts both. `algorithm` is named as in Python's `hashlib`: `sha512`, `sha256`, `sha3_512`, ….
    pub(crate) fn start(algorithm: &str) -> Result<Self> {
        let digest = MessageDigest::from_name(&algorithm.replace("sha3_", "sha3-"))
            .ok_or_else(|| Error::BadConfiguration(format!("no hash algorithm {algorithm:?} in this OpenSSL")))?;
        Ok(Self { md5: Digest::start(MessageDigest::md5())?, multihash: Digest::start(digest)? })
    }

    /// Feeds a chunk to both, which keep it until they are done with it.
    pub(crate) fn update(&self, chunk: &Bytes) {
        for digest in [&self.md5, &self.multihash] {
            // A digest that failed has gone; `finish` says why.
            let _ = digest.chunks.send(chunk.clone());
        }
    }

    /// The md5 and the multihash of all that was fed, in hexadecimal.
    pub(crate) async fn finish(self) -> Result<(String, String)> {
        Ok((self.md5.finish().await?, self.multihash.finish().await?))
    }
}

impl Digest {
    fn start(algorithm: MessageDigest) -> Result<Self> {
        let (chunks, receive) = mpsc::channel::<Bytes>();
        let (done, result) = oneshot::channel();
        thread::Builder::new()
            .name("hash".into())
            .spawn(move || {
                // Receives until the sender is dropped. The other side may have given up: nobody then wants the result.
                let _ = done.send(digest(algorithm, &receive));
            })
            .map_err(|error| Error::Invalid(format!("no thread for a digest: {error}")))?;
        Ok(Self { chunks, result })
    }

    async fn finish(self) -> Result<String> {
        drop(self.chunks);
        let digest = self.result.await.map_err(|_| Error::Invalid("a digest's thread died".into()))?;
        digest.map_err(|error| Error::Invalid(format!("a digest failed: {error}")))
    }
}

fn digest(algorithm: MessageDigest, chunks: &mpsc::Receiver<Bytes>) -> Result<String, openssl::error::ErrorStack> {
    let mut hasher = Hasher::new(algorithm)?;
    for chunk in chunks {
        hasher.update(&chunk)?;
    }
    Ok(hasher.finish()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn digests_are_those_of_md5sum_and_sha512sum() {
        let hashers = Hashers::start("sha512").unwrap();
        hashers.update(&Bytes::from_static(b"a"));
        hashers.update(&Bytes::from_static(b"bc"));
        let (md5, sha512) = hashers.finish().await.unwrap();
        assert_eq!(md5, "900150983cd24fb0d6963f7d28e17f72");
        assert!(sha512.starts_with("ddaf35a193617abacc417349ae204131"), "{sha512}");
    }

    #[test]
    fn pythons_names_are_understood_and_others_refused() {
        for name in ["sha1", "sha256", "sha512", "sha3_512", "md5"] {
            assert!(Hashers::start(name).is_ok(), "{name}");
        }
        assert!(matches!(Hashers::start("crc32"), Err(Error::BadConfiguration(_))));
    }
}
