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
