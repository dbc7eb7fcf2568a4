//! An image's object map, read from its RADOS object: which of the image's objects exist, two bits each.
//!
//! librbd's own way to it (`rbd_diff_iterate2` with fast-diff) ends the process with a failed assertion when the image is
//! resized or removed meanwhile (seen with 16.2.15), and has to open the image first.

use crate::{
    errno::{Error, Result},
    pool::Pool,
    read_op::ReadOp,
};

/// Which of an image's objects exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMap {
    states: Vec<u8>,
    objects: u64,
}

impl ObjectMap {
    /// How many objects the image has room for.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.objects
    }

    /// Whether an object may hold data.
    #[must_use]
    pub fn exists(&self, object: u64) -> bool {
        self.state(object) != 0
    }

    /// Whether an object exists, and was not written since the snapshot before. Known only with the `fast-diff` feature.
    #[must_use]
    pub fn is_clean(&self, object: u64) -> bool {
        self.state(object) == 3
    }

    /// 0: does not exist; 1: exists; 2: is being removed; 3: exists, and is clean.
    fn state(&self, object: u64) -> u8 {
        let byte = usize::try_from(object / 4).ok().and_then(|byte| self.states.get(byte));
        let shift = (3 - object % 4) * 2;
        byte.filter(|_| object < self.objects).map_or(0, |byte| byte >> shift & 3)
    }

    /// Bytes of the objects that exist, of an image of `size` bytes in objects of `object_size`.
    #[must_use]
    pub fn used(&self, size: u64, object_size: u64) -> u64 {
        let existing = (0..self.objects).filter(|&object| self.exists(object));
        existing.map(|object| object_size.min(size.saturating_sub(object.saturating_mul(object_size)))).sum()
    }

    /// As `cls_rbd` writes it: a length-prefixed header (version, version, length, number of objects), then the states.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
        let header = word(0)?;
        let compat = *bytes.get(5)?;
        if compat != 1 || header < 14 {
            return None;
        }
        let objects = u64::from_le_bytes(bytes.get(10..18)?.try_into().ok()?);
        let length = usize::try_from(objects.div_ceil(4)).ok()?;
        let states = bytes.get(4 + header..)?.get(..length)?.to_vec();
        Some(Self { states, objects })
    }
}

/// Of objects that exist, or do not.
impl FromIterator<bool> for ObjectMap {
    fn from_iter<I: IntoIterator<Item = bool>>(exist: I) -> Self {
        let (mut states, mut objects) = (Vec::new(), 0);
        for exists in exist {
            if objects % 4 == 0 {
                states.push(0);
            }
            if let Some(byte) = states.last_mut() {
                *byte |= u8::from(exists) << ((3 - objects % 4) * 2);
            }
            objects += 1;
        }
        Self { states, objects }
    }
}

impl Pool {
    /// The object map of an image's head, or of one of its snapshots; `None` where it has none.
    ///
    /// The image's flags tell whether it is to be believed ([`Flags::object_map_invalid`](crate::Flags)).
    ///
    /// # Errors
    /// `Malformed`, or `InvalidArgument` as the OSD calls it, for a damaged map; `PermissionDenied`, `TimedOut`.
    pub async fn object_map(&self, image_id: &str, snapshot: Option<u64>) -> Result<Option<ObjectMap>> {
        let object = match snapshot {
            None => format!("rbd_object_map.{image_id}"),
            Some(snapshot) => format!("rbd_object_map.{image_id}.{snapshot:016x}"),
        };
        // The class method, not the bytes: it verifies their checksums.
        match self.read_object(&object, &ReadOp::new().exec("rbd", "object_map_load", Vec::new())).await {
            Ok(read) => match read.execs.first().and_then(|map| ObjectMap::decode(map)) {
                Some(map) => Ok(Some(map)),
                None => Err(Error::malformed("read object map", self.path(&object))),
            },
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a 60 MiB image of 4 MiB objects, the first of which exists; read with `rados get` from Ceph 16.2.15.
    const REAL: [u8; 38] = [
        0x0e, 0, 0, 0, 1, 1, 8, 0, 0, 0, 0x0f, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0x0c, 0, 0, 0, 0x8c, 0xbb, 0xd5,
        0x52, 1, 0, 0, 0, 0xe7, 0x5f, 0xa6, 0xab,
    ];

    #[test]
    fn a_real_map_is_understood() {
        let map = ObjectMap::decode(&REAL).unwrap();
        assert_eq!((map.objects(), map.exists(0), map.exists(1), map.exists(15)), (15, true, false, false));
        assert_eq!(map.used(60 << 20, 4 << 20), 4 << 20);
        assert_eq!(map.used(1 << 20, 4 << 20), 1 << 20, "no more than the image has");
    }

    #[test]
    fn a_map_is_made_of_what_exists() {
        let exist = [true, false, false, true, true, false];
        let map: ObjectMap = exist.into_iter().collect();
        assert_eq!(map.objects(), 6);
        assert_eq!((0..7).map(|object| map.exists(object)).collect::<Vec<_>>()[..6], exist);
        assert!(!map.exists(6));
    }

    #[test]
    fn a_damaged_map_is_none() {
        for length in 0..22 {
            assert_eq!(ObjectMap::decode(&REAL[..length]), None, "cut at {length}");
        }
        let mut newer = REAL;
        newer[5] = 2;
        assert_eq!(ObjectMap::decode(&newer), None);
        let mut huge = REAL;
        huge[10..18].fill(0xff);
        assert_eq!(ObjectMap::decode(&huge), None);
    }
}
