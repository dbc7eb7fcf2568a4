//! An image's facts from the key-value pairs of its header object, as `cls_rbd` keeps them.
//!
//! What is not understood is an error here, and makes the caller ask librbd; it is never guessed.

use rbd::{Features, Flags, OmapEntry, SnapshotNamespace};
use store::{UPLOAD_MARK, UploadMark};

use super::encoding::{Decoder, Malformed, Result, u64_value};
use crate::facts::{Child, ParentFacts, RbdImage, SnapshotFacts};

/// Clones that are kept by name; the others are only counted.
pub(super) const CLONES_KEPT: usize = 16;

/// Reads the pairs of `rbd_header.<id>`. The clones are those of version 2; version 1 is written elsewhere.
pub(crate) fn decode(name: &str, id: &str, omap: &[OmapEntry]) -> Result<RbdImage> {
    let mut size = None;
    let mut image = RbdImage { name: name.to_owned(), id: id.to_owned(), ..RbdImage::default() };
    for (key, value) in omap {
        match key.as_slice() {
            b"size" => size = Some(u64_value(value)?),
            b"order" => image.order = Decoder(value).u8()?,
            b"features" => image.features = Features(u64_value(value)?),
            b"flags" => image.flags = Flags(u64_value(value)?),
            b"op_features" => image.op_features = u64_value(value)?,
            b"data_pool_id" => image.data_pool = Some(Decoder(value).i64()?).filter(|&pool| pool >= 0),
            b"create_timestamp" => image.created = Some(Decoder(value).time()?),
            b"modify_timestamp" => image.modified = Some(Decoder(value).time()?),
            b"parent" => image.parent = parent(value)?.map(Box::new),
            b"migration" => image.migrating = true,
            b"rbd_group_ref" => image.group = Some(group(value)?),
            key if key.starts_with(b"snapshot_") => image.snapshots.push(snapshot(value)?),
            key if key.starts_with(b"snap_children_") => children(value, &mut image)?,
            key if key.strip_prefix(b"metadata_") == Some(UPLOAD_MARK.as_bytes()) => {
                image.mark = Some(Box::new(mark(value)));
            }
            _ => {}
        }
    }
    image.size = size.ok_or(Malformed)?;
    image.migrating |= image.features.contains(Features::MIGRATING);
    // Its keys are in the order of snapshots, which is that of time; a map of thousands may have come in rounds.
    image.snapshots.sort_by_key(|snapshot| snapshot.id);
    image.snapshots.shrink_to_fit();
    Ok(image)
}

/// A mark of another form is still a mark.
pub(super) fn mark(value: &[u8]) -> UploadMark {
    let unreadable = UploadMark { client: String::new(), started: 0, size: None };
    serde_json::from_slice(value).unwrap_or(unreadable)
}

/// `cls_rbd_parent`, versions 1 and 2.
fn parent(value: &[u8]) -> Result<Option<ParentFacts>> {
    let (version, compat, mut body) = Decoder(value).versioned()?;
    if compat > 2 {
        return Err(Malformed);
    }
    let pool = body.i64()?;
    let namespace = if version >= 2 { body.string()? } else { String::new() };
    let id = body.string()?;
    let snapshot = body.u64()?;
    // Since version 2 it is there only behind a flag.
    let overlap = if version == 1 || body.u8()? != 0 { body.u64()? } else { 0 };
    const NO_SNAPSHOT: u64 = u64::MAX - 1;
    let is_clone = pool >= 0 && !id.is_empty() && snapshot != NO_SNAPSHOT && overlap > 0;
    Ok(is_clone.then_some(ParentFacts { pool, namespace, id, snapshot, overlap }))
}

/// `cls_rbd_snap`, up to version 8.
fn snapshot(value: &[u8]) -> Result<SnapshotFacts> {
    let (version, compat, mut body) = Decoder(value).versioned()?;
    if compat > 8 {
        return Err(Malformed);
    }
    let id = body.u64()?;
    let name = body.string()?;
    let size = body.u64()?;
    if compat < 8 {
        body.u64()?; // features, which snapshots no longer have of their own
        if version >= 2 {
            body.versioned()?; // parent
        }
    }
    let protected = match if version >= 3 { body.u8()? } else { 0 } {
        0 => false,
        // 1 is "being unprotected": clones may still be there.
        1 | 2 => true,
        _ => return Err(Malformed),
    };
    let flags = Flags(if version >= 4 { body.u64()? } else { 0 });
    let namespace = if version >= 5 { body.versioned()?.2.u32()?.into() } else { SnapshotNamespace::User };
    let taken = if version >= 6 { Some(body.time()?) } else { None };
    Ok(SnapshotFacts { id, name, size, protected, namespace, flags, taken })
}

/// A set of `cls::rbd::ChildImageSpec`.
fn children(value: &[u8], image: &mut RbdImage) -> Result<()> {
    let mut set = Decoder(value);
    let count = set.u32()?;
    for _ in 0..count {
        let (version, compat, mut body) = set.versioned()?;
        if compat > 2 {
            return Err(Malformed);
        }
        let pool = body.i64()?;
        let id = body.string()?;
        let namespace = if version >= 2 { body.string()? } else { String::new() };
        image.children.count += 1;
        if image.children.some.len() < CLONES_KEPT {
            image.children.some.push(Child { pool, namespace, id, path: None });
        }
    }
    Ok(())
}

/// `cls::rbd::GroupSpec`.
fn group(value: &[u8]) -> Result<String> {
    let (_, compat, mut body) = Decoder(value).versioned()?;
    if compat > 1 {
        return Err(Malformed);
    }
    body.i64()?; // pool
    body.string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A struct of a version, an oldest reader, and a body.
    fn versioned(version: u8, compat: u8, body: &[&[u8]]) -> Vec<u8> {
        let body = body.concat();
        [&[version, compat][..], &(body.len() as u32).to_le_bytes(), &body].concat()
    }

    fn string(text: &str) -> Vec<u8> {
        [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
    }

    fn number(number: u64) -> Vec<u8> {
        number.to_le_bytes().to_vec()
    }

    fn entry(key: &str, value: Vec<u8>) -> OmapEntry {
        (key.into(), value)
    }

    fn parent(version: u8, overlap: u64) -> Vec<u8> {
        let namespace = if version >= 2 { string("") } else { vec![] };
        let flag: &[u8] = if version >= 2 { &[1] } else { &[] };
        versioned(version, version, &[&number(3), &namespace, &string("abc"), &number(9), flag, &number(overlap)])
    }

    /// As Ceph 14 and later write it: version 8, not readable by older ones.
    fn snapshot_8(protection: u8, namespace: u32) -> Vec<u8> {
        let namespace = versioned(1, 1, &[&namespace.to_le_bytes()]);
        let rest = [0; 8 + 4 + 1];
        versioned(8, 8, &[&number(4), &string("snap"), &number(100), &[protection], &number(0), &namespace, &rest])
    }

    /// As before: version 6, with features and a parent of its own.
    fn snapshot_6(protection: u8) -> Vec<u8> {
        let namespace = versioned(1, 1, &[&0_u32.to_le_bytes()]);
        let head = [number(4), string("snap"), number(100), number(61), parent(1, 0)].concat();
        versioned(6, 1, &[&head, &[protection], &number(0), &namespace, &[0; 8]])
    }

    #[test]
    fn both_generations_of_headers_are_understood() {
        for snapshot in [snapshot_8(2, 0), snapshot_6(2)] {
            let image = decode("a", "1", &[entry("size", number(100)), entry("snapshot_0000000000000004", snapshot)]);
            let image = image.unwrap();
            assert_eq!(image.size, 100);
            let snapshot = &image.snapshots[0];
            assert_eq!(
                (snapshot.id, snapshot.name.as_str(), snapshot.size, snapshot.protected),
                (4, "snap", 100, true)
            );
            assert_eq!(snapshot.namespace, SnapshotNamespace::User);
        }
        for (value, is_clone) in
            [(parent(1, 100), true), (parent(2, 100), true), (parent(1, 0), false), (parent(2, 0), false)]
        {
            let image = decode("a", "1", &[entry("size", number(100)), entry("parent", value)]).unwrap();
            assert_eq!(image.has_parent(), is_clone, "flattened is no clone");
        }
    }

    #[test]
    fn what_is_not_understood_is_not_guessed() {
        let with = |key: &str, value| decode("a", "1", &[entry("size", number(1)), entry(key, value)]);
        assert_eq!(decode("a", "1", &[]), Err(Malformed), "no size, no image");
        assert_eq!(decode("a", "1", &[entry("size", vec![1])]), Err(Malformed));
        let newer = versioned(9, 9, &[&number(4), &string("snap"), &number(100)]);
        assert_eq!(with("snapshot_1", newer), Err(Malformed));
        assert_eq!(with("snapshot_1", snapshot_8(3, 0)), Err(Malformed), "an unknown protection");
        assert_eq!(with("parent", versioned(3, 3, &[&number(1)])), Err(Malformed));
        assert_eq!(with("parent", vec![]), Err(Malformed));
        let unprotecting = with("snapshot_1", snapshot_8(1, 0)).unwrap();
        assert!(unprotecting.snapshots[0].protected, "clones may still be there");
        let odd = with("snapshot_1", snapshot_8(0, 77)).unwrap();
        assert_eq!(odd.snapshots[0].namespace, SnapshotNamespace::Unknown(77));
        assert!(with(&format!("metadata_{UPLOAD_MARK}"), b"not json".to_vec()).unwrap().mark.is_some());
        assert!(with("metadata_glance-rbd.upload.old", b"{}".to_vec()).unwrap().mark.is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(value in prop::collection::vec(any::<u8>(), 0..80), key in "size|parent|snapshot_1|create_timestamp") {
            let _ = decode("a", "1", &[entry("size", number(1)), entry(&key, value)]);
        }
    }
}
