//! What sees every byte of an upload, in order: digests, and verifiers of the embedder's. Each has a thread of its own.

use std::{error, fmt, sync::mpsc, thread};

use bytes::Bytes;
use openssl::hash::{Hasher, MessageDigest};
use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// Something of the embedder's that sees every byte of an upload, in order, and may refuse it: Glance's signature verifier,
/// say. It runs on a thread of its own, beside the digests, and is given chunks of any length.
pub trait Verifier: Send {
    /// Takes the next bytes. An error fails the upload.
    ///
    /// # Errors
    /// Whatever is wrong with the data.
    fn update(&mut self, data: &[u8]) -> Result<(), Refusal>;

    /// Has seen all. An error fails the upload.
    ///
    /// # Errors
    /// Whatever is wrong with the data.
    fn finish(self: Box<Self>) -> Result<(), Refusal> {
        Ok(())
    }
}

/// Why a [`Verifier`] does not accept an image.
pub type Refusal = Box<dyn error::Error + Send + Sync>;

/// What a hole is hashed as.
static ZEROES: [u8; 1 << 20] = [0; 1 << 20];

/// What is fed to a thread.
#[derive(Clone)]
enum Part {
    Data(Bytes),
    Zeroes(u64),
}

/// All that see the bytes of one upload.
pub(crate) struct Hashers {
    /// Absent where no digests were asked for.
    md5: Option<Stage<String>>,
    /// Absent where it would be the md5 again.
    multihash: Option<Stage<String>>,
    verifiers: Vec<Stage<()>>,
}

/// A thread that is fed, and its result.
struct Stage<T> {
    // Dropped before the parts end, so that an abandoned upload is not taken for a whole one.
    result: oneshot::Receiver<Result<T>>,
    parts: mpsc::Sender<Part>,
}

/// The digest that Python's `hashlib` has by that name.
pub(crate) fn algorithm(name: &str) -> Result<MessageDigest> {
    let lower = name.to_ascii_lowercase();
    let known = match lower.as_str() {
        "blake2b" => "blake2b512".to_owned(),
        "blake2s" => "blake2s256".to_owned(),
        // `hashlib` writes underscores where OpenSSL writes hyphens.
        other => other.replace('_', "-"),
    };
    MessageDigest::from_name(&known)
        // A digest of no fixed length has no hexadecimal form without one.
        .filter(|_| !lower.starts_with("shake"))
        .ok_or_else(|| Error::BadConfiguration(format!("no hash algorithm {name:?} in this OpenSSL")))
}

impl Hashers {
    /// Starts the md5 and the multihash.
    pub(crate) fn digests(multihash: MessageDigest) -> Result<Self> {
        let md5 = MessageDigest::md5();
        let again = multihash.type_() == md5.type_();
        let multihash = if again { None } else { Some(Stage::start(Digest::new(multihash)?)?) };
        Ok(Self { md5: Some(Stage::start(Digest::new(md5)?)?), multihash, verifiers: Vec::new() })
    }

    /// Starts nothing.
    pub(crate) fn none() -> Self {
        Self { md5: None, multihash: None, verifiers: Vec::new() }
    }

    /// Starts a verifier; nothing has been fed yet.
    pub(crate) fn verify(&mut self, verifier: Box<dyn Verifier>) -> Result<()> {
        self.verifiers.push(Stage::start(Verifying(verifier))?);
        Ok(())
    }

    /// Feeds a chunk to all, which keep it until they are done with it.
    pub(crate) async fn data(&mut self, chunk: &Bytes) -> Result<()> {
        self.feed(&Part::Data(chunk.clone())).await
    }

    /// Feeds so many zeroes to all.
    pub(crate) async fn zeroes(&mut self, length: u64) -> Result<()> {
        self.feed(&Part::Zeroes(length)).await
    }

    async fn feed(&mut self, part: &Part) -> Result<()> {
        for digest in self.md5.iter_mut().chain(&mut self.multihash) {
            digest.feed(part).await?;
        }
        for verifier in &mut self.verifiers {
            verifier.feed(part).await?;
        }
        Ok(())
    }

    /// The md5 and the multihash of all that was fed, in hexadecimal; empty without digests.
    pub(crate) async fn finish(self) -> Result<(String, String)> {
        // All are told before any is waited for.
        let verifiers: Vec<_> = self.verifiers.into_iter().map(Stage::end).collect();
        let multihash = self.multihash.map(Stage::end);
        let md5 = match self.md5.map(Stage::end) {
            Some(md5) => result(md5).await?,
            None => String::new(),
        };
        let multihash = match multihash {
            Some(multihash) => result(multihash).await?,
            None => md5.clone(),
        };
        for verifier in verifiers {
            result(verifier).await?;
        }
        Ok((md5, multihash))
    }
}

/// What a thread does with what it is fed.
trait Sink: Send + 'static {
    type Output: Send;
    fn take(&mut self, data: &[u8]) -> Result<()>;
    fn end(self) -> Result<Self::Output>;
}

struct Digest(Hasher);

impl Digest {
    fn new(algorithm: MessageDigest) -> Result<Self> {
        Hasher::new(algorithm).map(Self).map_err(|error| failed(&error))
    }
}

impl Sink for Digest {
    type Output = String;

    fn take(&mut self, data: &[u8]) -> Result<()> {
        self.0.update(data).map_err(|error| failed(&error))
    }

    fn end(mut self) -> Result<String> {
        let digest = self.0.finish().map_err(|error| failed(&error))?;
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

fn failed(error: &dyn fmt::Display) -> Error {
    Error::Invalid(format!("a digest failed: {error}"))
}

struct Verifying(Box<dyn Verifier>);

impl Sink for Verifying {
    type Output = ();

    fn take(&mut self, data: &[u8]) -> Result<()> {
        self.0.update(data).map_err(|refusal| Error::Rejected(refusal.to_string()))
    }

    fn end(self) -> Result<()> {
        self.0.finish().map_err(|refusal| Error::Rejected(refusal.to_string()))
    }
}

impl<T: Send + 'static> Stage<T> {
    fn start(sink: impl Sink<Output = T>) -> Result<Self> {
        let (parts, fed) = mpsc::channel();
        let (done, result) = oneshot::channel();
        thread::Builder::new()
            .name("hash".into())
            .spawn(move || {
                // `None`: nobody wants the result any more.
                if let Some(result) = run(sink, &fed, &|| done.is_closed()) {
                    // First the result, then the end of the channel that makes `feed` look for it.
                    let _ = done.send(result);
                }
                drop(fed);
            })
            .map_err(|error| Error::Invalid(format!("no thread for a digest: {error}")))?;
        Ok(Self { result, parts })
    }

    async fn feed(&mut self, part: &Part) -> Result<()> {
        if self.parts.send(part.clone()).is_ok() {
            return Ok(());
        }
        // It has ended before its time.
        result(&mut self.result).await.and(Err(died()))
    }

    /// Tells it that this was all; what is returned waits for its result.
    fn end(self) -> oneshot::Receiver<Result<T>> {
        self.result
    }
}

async fn result<T>(result: impl Future<Output = Result<Result<T>, oneshot::error::RecvError>>) -> Result<T> {
    result.await.map_err(|_| died())?
}

fn died() -> Error {
    Error::Invalid("a digest's or a verifier's thread died".into())
}

/// Feeds a sink until the other end is dropped.
fn run<S: Sink>(mut sink: S, parts: &mpsc::Receiver<Part>, unwanted: &dyn Fn() -> bool) -> Option<Result<S::Output>> {
    for part in parts {
        if unwanted() {
            return None;
        }
        let taken = match part {
            Part::Data(data) => sink.take(&data),
            Part::Zeroes(mut length) => loop {
                let now = length.min(ZEROES.len() as u64);
                if unwanted() {
                    return None;
                }
                match sink.take(&ZEROES[..now as usize]) {
                    Ok(()) if now == length => break Ok(()),
                    Ok(()) => length -= now,
                    Err(error) => break Err(error),
                }
            },
        };
        if let Err(error) = taken {
            return Some(Err(error));
        }
    }
    (!unwanted()).then(|| sink.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn digests(name: &str) -> Result<(String, String)> {
        let mut hashers = Hashers::digests(algorithm(name)?)?;
        hashers.data(&Bytes::from_static(b"a")).await?;
        hashers.data(&Bytes::from_static(b"bc")).await?;
        hashers.finish().await
    }

    #[tokio::test]
    async fn digests_are_those_of_md5sum_and_sha512sum() {
        let (md5, sha512) = digests("sha512").await.unwrap();
        assert_eq!(md5, "900150983cd24fb0d6963f7d28e17f72");
        assert!(sha512.starts_with("ddaf35a193617abacc417349ae204131"), "{sha512}");
    }

    /// What `hashlib.new(name, b"abc").hexdigest()` begins with.
    #[tokio::test]
    async fn pythons_names_are_understood() {
        for (name, begins) in [
            ("md5", "90015098"),
            ("sha1", "a9993e36"),
            ("sha224", "23097d22"),
            ("sha256", "ba7816bf"),
            ("SHA256", "ba7816bf"),
            ("sha384", "cb00753f"),
            ("sha512_256", "53048e26"),
            ("sha3_224", "e642824c"),
            ("sha3_512", "b751850b"),
            ("blake2b", "ba80a53f"),
            ("blake2s", "508c5e8c"),
            ("sm3", "66c7f0f4"),
        ] {
            let (md5, multihash) = digests(name).await.unwrap();
            assert!(multihash.starts_with(begins), "{name}: {multihash}");
            assert!(md5.starts_with("90015098"), "{name}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for name in ["crc32", "", "shake_128", "sha512 "] {
            assert!(matches!(algorithm(name), Err(Error::BadConfiguration(_))), "{name}");
        }
    }

    #[tokio::test]
    async fn a_hole_is_hashed_as_zeroes() {
        let mut zeroes = Hashers::digests(MessageDigest::sha256()).unwrap();
        zeroes.zeroes((3 << 20) + 17).await.unwrap();
        let mut data = Hashers::digests(MessageDigest::sha256()).unwrap();
        data.data(&vec![0; (3 << 20) + 17].into()).await.unwrap();
        assert_eq!(zeroes.finish().await.unwrap(), data.finish().await.unwrap());
    }

    /// The sum of what it was fed, and what it must not be.
    struct Sum(u64, u64);

    impl Verifier for Sum {
        fn update(&mut self, data: &[u8]) -> Result<(), Refusal> {
            self.0 += data.iter().map(|&byte| u64::from(byte)).sum::<u64>();
            if self.0 > 100 { Err("too much".into()) } else { Ok(()) }
        }

        fn finish(self: Box<Self>) -> Result<(), Refusal> {
            if self.0 == self.1 { Err("unlucky".into()) } else { Ok(()) }
        }
    }

    #[tokio::test]
    async fn a_verifier_refuses_at_once_or_at_the_end() {
        for (data, refused) in [(6_u8, None), (7, Some("unlucky")), (60, Some("too much"))] {
            let mut hashers = Hashers::none();
            hashers.verify(Box::new(Sum(0, 14))).unwrap();
            let fed = async {
                hashers.data(&Bytes::from(vec![data])).await?;
                hashers.zeroes(10).await?;
                hashers.data(&Bytes::from(vec![data])).await?;
                hashers.finish().await.map(drop)
            };
            match (fed.await, refused) {
                (Ok(()), None) => {}
                (Err(Error::Rejected(why)), Some(refused)) => assert!(why.contains(refused), "{why}"),
                (other, _) => panic!("{data}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_verifier_that_panics_is_an_error() {
        struct Panics;
        impl Verifier for Panics {
            fn update(&mut self, _: &[u8]) -> Result<(), Refusal> {
                panic!("as a test");
            }
        }
        let mut hashers = Hashers::none();
        hashers.verify(Box::new(Panics)).unwrap();
        hashers.data(&Bytes::from_static(b"x")).await.unwrap();
        assert!(matches!(hashers.finish().await, Err(Error::Invalid(_))));
    }
}
