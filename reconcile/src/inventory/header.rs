//! An image's facts from the key-value pairs of its header object, as `cls_rbd` keeps them.
//!
//! What is not understood is an error here, and makes the caller ask librbd; it is never guessed.

use rbd::{OmapEntry, SnapshotNamespace};
use store::{UPLOAD_MARK, UploadMark};

use super::encoding::{Decoder, Malformed, Result, u64_value};
use crate::facts::{RbdImage, SnapshotFacts};

/// Reads the pairs of `rbd_header.<id>`.
pub(crate) fn decode(name: &str, id: &str, omap: &[OmapEntry]) -> Result<RbdImage> {
    let mut size = None;
    let mut image = RbdImage {
        name: name.to_owned(),
        id: id.to_owned(),
        size: 0,
        created: None,
        modified: None,
        snapshots: Vec::new(),
        has_parent: false,
        mark: None,
        closer: None,
    };
    for (key, value) in omap {
        match key.as_slice() {
            b"size" => size = Some(u64_value(value)?),
            b"create_timestamp" => image.created = Some(Decoder(value).time()?),
            b"modify_timestamp" => image.modified = Some(Decoder(value).time()?),
            b"parent" => image.has_parent = has_parent(value)?,
            key if key.starts_with(b"snapshot_") => image.snapshots.push(snapshot(value)?),
            key if key.strip_prefix(b"metadata_") == Some(UPLOAD_MARK.as_bytes()) => image.mark = mark(value),
            _ => {}
        }
    }
    image.size = size.ok_or(Malformed)?;
    Ok(image)
}

/// A mark of another form is still a mark.
fn mark(value: &[u8]) -> Option<UploadMark> {
    let unreadable = UploadMark { client: String::new(), started: 0, size: None };
    Some(serde_json::from_slice(value).unwrap_or(unreadable))
}

/// `cls_rbd_parent`, versions 1 and 2.
fn has_parent(value: &[u8]) -> Result<bool> {
    let (version, compat, mut body) = Decoder(value).versioned()?;
    if compat > 2 {
        return Err(Malformed);
    }
    let pool = body.i64()?;
    if version >= 2 {
        body.string()?; // namespace
    }
    let id = body.string()?;
    let snapshot = body.u64()?;
    // Since version 2 it is there only behind a flag.
    let overlap = if version == 1 || body.u8()? != 0 { body.u64()? } else { 0 };
    const NO_SNAPSHOT: u64 = u64::MAX - 1;
    Ok(pool >= 0 && !id.is_empty() && snapshot != NO_SNAPSHOT && overlap > 0)
}

/// `cls_rbd_snap`, up to version 8.
fn snapshot(value: &[u8]) -> Result<SnapshotFacts> {
    let (version, compat, mut body) = Decoder(value).versioned()?;
    if compat > 8 {
        return Err(Malformed);
    }
    body.u64()?; // id
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
    if version >= 4 {
        body.u64()?; // flags
    }
    let namespace = if version >= 5 { body.versioned()?.2.u32()?.into() } else { SnapshotNamespace::User };
    Ok(SnapshotFacts { name, size, protected, namespace })
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
            let namespace = SnapshotNamespace::User;
            assert_eq!(image.snapshots, [SnapshotFacts { name: "snap".into(), size: 100, protected: true, namespace }]);
        }
        for (value, is_clone) in
            [(parent(1, 100), true), (parent(2, 100), true), (parent(1, 0), false), (parent(2, 0), false)]
        {
            let image = decode("a", "1", &[entry("size", number(100)), entry("parent", value)]).unwrap();
            assert_eq!(image.has_parent, is_clone, "flattened is no clone");
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
