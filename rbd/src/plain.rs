//! Snapshots of plain images, read straight from their objects.
//!
//! Opening an image takes librbd about twelve round trips, one after the other. What it takes to read a snapshot that has
//! nothing special (no parent, no stripes, not being migrated) is in two objects: the image's id, and its header.

use std::{future::Future, sync::Arc};

use crate::{
    class::take_string,
    cluster::Cluster,
    completion::{RADOS, submit},
    errno::{Error, ErrorKind, Result, check},
    features::{Features, Flags},
    object_map::ObjectMap,
    pool::{Pool, RawIoctx},
    read_op::{OmapEntry, ReadOp},
    strings::c_string,
};

/// What does not change where a byte of a snapshot is found.
const HARMLESS: Features = Features(
    Features::LAYERING.0
        | Features::EXCLUSIVE_LOCK.0
        | Features::OBJECT_MAP.0
        | Features::FAST_DIFF.0
        | Features::DEEP_FLATTEN.0
        | Features::JOURNALING.0
        | Features::DATA_POOL.0
        | Features::OPERATIONS.0,
);

/// A snapshot of an image, of which every byte is in an object known by its number.
///
/// Nothing is open, and nobody is told of it: the snapshot may go at any moment, and its objects with it.
pub struct PlainSnapshot {
    pool: Pool,
    at: Arc<AtSnapshot>,
    header: Header,
    image_id: String,
    path: String,
}

/// The pool of the data, looked at as it was at the snapshot.
struct AtSnapshot {
    // Dropped before the cluster it belongs to.
    io: RawIoctx,
    cluster: Cluster,
}

/// What a header says of one snapshot.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    prefix: String,
    order: u8,
    snapshot: u64,
    size: u64,
    data_pool: Option<i64>,
    /// There is an object map that describes it.
    has_map: bool,
}

impl Pool {
    /// Finds a snapshot of an image. `None` where there is no such image or snapshot, or where it takes librbd to read it.
    ///
    /// Implements: `rados_ioctx_snap_set_read`.
    ///
    /// # Errors
    /// `PermissionDenied`, `TimedOut`.
    pub async fn plain_snapshot(&self, image: &str, snapshot: &str) -> Result<Option<PlainSnapshot>> {
        const KEYS: u64 = 512;
        let or_none = |read: Result<crate::ObjectRead>| match read {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        };
        let id = self.read_object(&format!("rbd_id.{image}"), &ReadOp::new().data(0, 4096)).await;
        let Some(id) = or_none(id)?.and_then(|read| take_string(&mut read.data.as_slice())) else { return Ok(None) };
        let header = self.read_object(&format!("rbd_header.{id}"), &ReadOp::new().omap("", "", KEYS)).await;
        let header = or_none(header)?.filter(|read| !read.more).and_then(|read| Header::decode(&read.omap, snapshot));
        let Some(header) = header else { return Ok(None) };

        let path = format!("{}@{snapshot}", self.path(image));
        let (cluster, namespace, object) = (self.cluster().clone(), self.namespace().to_owned(), path.clone());
        let (data_pool, snapshot) = (header.data_pool.unwrap_or(self.id()), header.snapshot);
        let at = self.cluster().blocking("read", object, move || {
            let io = RawIoctx::open(&cluster, data_pool, &namespace)?;
            // SAFETY: a new handle that nobody else has yet.
            unsafe { rbd_sys::rados_ioctx_snap_set_read(io.raw(), snapshot) };
            Ok(Arc::new(AtSnapshot { io, cluster }))
        });
        Ok(Some(PlainSnapshot { pool: self.clone(), at: at.await?, header, image_id: id, path }))
    }
}

impl PlainSnapshot {
    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.header.size
    }

    /// Bytes of a full object.
    #[must_use]
    pub fn object_size(&self) -> u64 {
        1 << self.header.order
    }

    /// The image's id.
    #[must_use]
    pub fn image_id(&self) -> &str {
        &self.image_id
    }

    /// The snapshot's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.header.snapshot
    }

    /// `pool/image@snapshot`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The snapshot's object map; `None` where it has none, or one that is not to be believed.
    ///
    /// # Errors
    /// As [`Pool::object_map`].
    pub async fn object_map(&self) -> Result<Option<ObjectMap>> {
        if !self.header.has_map {
            return Ok(None);
        }
        let map = self.pool.object_map(&self.image_id, Some(self.header.snapshot)).await?;
        Ok(map.filter(|map| map.objects() == self.header.size.div_ceil(self.object_size())))
    }

    /// Reads the bytes at `offset`, all of them in one object, into a buffer of the caller's. Submitted now; the future
    /// waits, and returns the buffer with how much of it was filled: what is behind that, zeroes, was never written.
    ///
    /// The buffer stays with the operation, also when the future is dropped.
    ///
    /// Implements: `rados_aio_read`.
    ///
    /// # Errors
    /// `NotFound` where the object does not exist, which then is zeroes, or was removed; the buffer is dropped. `TimedOut`,
    /// `Blocklisted`.
    pub fn read_into<B: AsMut<[u8]> + Send + 'static>(
        &self,
        offset: u64,
        buffer: B,
    ) -> impl Future<Output = Result<(B, usize)>> + Send + use<B> {
        const WHAT: &str = "read from";
        let (number, within) = (offset >> self.header.order, offset & (self.object_size() - 1));
        let object = format!("{}.{number:016x}", self.header.prefix);
        let submitted = c_string(WHAT, &object).map(|object| {
            let io = self.at.io.raw();
            // SAFETY: the payload owns the buffer, which is asked for its memory where it stays, and not touched until the
            // callback; the handle is kept; the completion is passed once.
            unsafe {
                submit(&RADOS, self.at.clone(), buffer, move |buffer: *mut B, completion| {
                    let memory = (*buffer).as_mut();
                    let (pointer, length) = (memory.as_mut_ptr(), memory.len());
                    rbd_sys::rados_aio_read(io, object.as_ptr(), completion, pointer.cast(), length, within)
                })
            }
        });
        let (timeout, alarm) = (self.at.cluster.timeout(), self.at.cluster.alarm().clone());
        let path = self.path.clone();
        async move {
            let Some((value, buffer)) = submitted?.done(timeout).await else {
                return Err(Error::of_kind(ErrorKind::TimedOut, WHAT, path));
            };
            let filled = alarm.noted(check(WHAT, path, value))?;
            Ok((buffer, usize::try_from(filled).unwrap_or(0)))
        }
    }
}

impl Header {
    /// `None` for anything that is not plain, and for whatever is not understood.
    fn decode(omap: &[OmapEntry], name: &str) -> Option<Self> {
        let value =
            |wanted: &str| omap.iter().find(|(key, _)| key == wanted.as_bytes()).map(|(_, value)| value.as_slice());
        let features = Features(u64::from_le_bytes(value("features")?.try_into().ok()?));
        if !HARMLESS.contains(features) || value("parent").is_some() {
            return None;
        }
        let data_pool = match value("data_pool_id") {
            Some(id) => Some(i64::from_le_bytes(id.try_into().ok()?)),
            None => None,
        };
        if features.contains(Features::DATA_POOL) != data_pool.is_some() {
            return None;
        }
        let [order @ 12..=25] = *value("order")? else { return None };
        let snapshots = omap.iter().filter(|(key, _)| key.starts_with(b"snapshot_"));
        let snapshots: Vec<_> = snapshots.map(|(_, value)| SnapshotEntry::decode(value)).collect::<Option<_>>()?;
        let found = snapshots.into_iter().find(|snapshot| snapshot.by_user && snapshot.name == name)?;
        Some(Self {
            prefix: take_string(&mut value("object_prefix")?)?,
            order,
            snapshot: found.id,
            size: found.size,
            data_pool,
            has_map: features.contains(Features::OBJECT_MAP) && !found.flags.object_map_invalid(),
        })
    }
}

/// `cls_rbd_snap` of Ceph 14 and later: version 8, in which a snapshot has no features and no parent of its own.
struct SnapshotEntry {
    id: u64,
    name: String,
    size: u64,
    flags: Flags,
    by_user: bool,
}

impl SnapshotEntry {
    fn decode(value: &[u8]) -> Option<Self> {
        let [version, 8, rest @ ..] = value else { return None };
        if *version < 8 {
            return None;
        }
        let (_length, mut rest) = rest.split_first_chunk::<4>()?;
        let number = |rest: &mut &[u8]| {
            let (number, behind) = rest.split_first_chunk::<8>()?;
            *rest = behind;
            Some(u64::from_le_bytes(*number))
        };
        let id = number(&mut rest)?;
        let name = take_string(&mut rest)?;
        let size = number(&mut rest)?;
        let (_protection, mut rest) = rest.split_first()?;
        let flags = Flags(number(&mut rest)?);
        // A struct of its own: version, oldest reader, length, and the kind.
        let [_, 1, _, _, _, _, kind @ ..] = rest else { return None };
        let by_user = *kind.first_chunk::<4>()? == [0; 4];
        Some(Self { id, name, size, flags, by_user })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &[u8]) -> OmapEntry {
        (key.into(), value.into())
    }

    fn text(text: &str) -> Vec<u8> {
        crate::class::encoded(text)
    }

    /// Read with `rados listomapvals` from Ceph 16.2.15: 1 GiB of 8 MiB objects, snapshot 4, protected.
    fn real() -> Vec<OmapEntry> {
        let mut snapshot = vec![8, 8, 0x38, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0];
        snapshot.extend(b"snap");
        snapshot.extend([0, 0, 0, 0x40, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 4, 0, 0, 0, 0, 0, 0, 0]);
        snapshot.extend([0xad, 0xb5, 1, 0x6b, 0x70, 0xd5, 0x8b, 0x38, 0, 0, 0, 0, 0]);
        vec![
            entry("features", &[0x3d, 0, 0, 0, 0, 0, 0, 0]),
            entry("object_prefix", &text("rbd_data.10235a096235")),
            entry("order", &[23]),
            entry("size", &[0, 0, 0, 0x40, 0, 0, 0, 0]),
            entry("snapshot_0000000000000004", &snapshot),
        ]
    }

    #[test]
    fn a_real_header_is_understood() {
        let header = Header::decode(&real(), "snap").unwrap();
        let prefix = "rbd_data.10235a096235".to_owned();
        assert_eq!(header, Header { prefix, order: 23, snapshot: 4, size: 1 << 30, data_pool: None, has_map: true });
        assert_eq!(Header::decode(&real(), "snapshot"), None);
    }

    /// librbd reads what is special: stripes, parents, migrations, features unknown here, older encodings.
    #[test]
    fn what_is_not_plain_is_left_to_librbd() {
        let changed = |change: &dyn Fn(&mut Vec<OmapEntry>)| {
            let mut header = real();
            change(&mut header);
            Header::decode(&header, "snap")
        };
        for bit in [1_u8, 7, 9, 10, 40] {
            assert_eq!(changed(&|header| header[0].1[usize::from(bit / 8)] |= 1 << (bit % 8)), None, "feature {bit}");
        }
        assert_eq!(changed(&|header| header.push(entry("parent", &[]))), None);
        assert_eq!(changed(&|header| header[2].1[0] = 64), None);
        assert_eq!(changed(&|header| header[4].1[1] = 9), None, "a newer snapshot");
        assert_eq!(changed(&|header| header[4].1[0] = 6), None, "an older one");
        assert_eq!(changed(&|header| header[4].1[45] = 3), None, "one in the trash");
        assert!(!changed(&|header| header[4].1[31] = 1).unwrap().has_map, "flagged invalid");
        let in_pool = changed(&|header| {
            header[0].1[0] |= 1 << 7;
            header.push(entry("data_pool_id", &[9, 0, 0, 0, 0, 0, 0, 0]));
        });
        assert_eq!(in_pool.unwrap().data_pool, Some(9));
        for length in 0..49 {
            assert_eq!(changed(&|header| header[4].1.truncate(length)), None, "cut at {length}");
        }
    }
}
