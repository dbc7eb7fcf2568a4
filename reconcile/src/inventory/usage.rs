//! What an image takes up, as `rbd du` counts it: from its object maps, two small reads an image.
//!
//! `rbd du` counts an object of a snapshot if it was written between the user's snapshot before and that one, and an object
//! of the head if it was written since the last. The maps know that: an object is *clean* where it was not written since the
//! map before. What has no map that may be believed is counted by librbd, object by object.

use rbd::{ErrorKind, Features, ObjectMap, OpenOptions, Pool, SnapshotNamespace};

use crate::facts::{RbdImage, SnapshotFacts, Usage};

/// The usage of an image, by id; nothing where the image went away meanwhile.
pub(super) async fn usage(pool: &Pool, image: &RbdImage) -> rbd::Result<Option<Usage>> {
    let read = match read_maps(pool, image).await {
        Ok(Some(maps)) => return Ok(Some(count(image, &maps))),
        Ok(None) => ask_librbd(pool, image).await.map(Some),
        Err(error) => Err(error),
    };
    match read {
        Err(error) if error.is_not_found() => Ok(None),
        read => read,
    }
}

/// The maps of all snapshots and of the head, oldest first; nothing where they are not to be believed.
async fn read_maps(pool: &Pool, image: &RbdImage) -> rbd::Result<Option<Vec<ObjectMap>>> {
    let mut wanted = Features::OBJECT_MAP;
    let mut flags = vec![image.flags];
    if !image.snapshots.is_empty() {
        wanted = wanted | Features::FAST_DIFF;
        flags.extend(image.snapshots.iter().map(|snapshot| snapshot.flags));
    }
    let invalid = |flags: &rbd::Flags| flags.object_map_invalid() || flags.fast_diff_invalid();
    if !image.features.contains(wanted)
        || image.features.contains(Features::STRIPING) // an object is then no piece of the image
        || image.unknown.contains(&"snapshot flags")
        || flags.iter().any(invalid)
    {
        return Ok(None);
    }
    let mut maps = Vec::with_capacity(image.snapshots.len() + 1);
    for snapshot in image.snapshots.iter().map(|snapshot| Some(snapshot.id)).chain([None]) {
        match pool.object_map(&image.id, snapshot).await {
            Ok(Some(map)) => maps.push(map),
            Ok(None) => return Ok(None),
            // Damaged, as this program or the OSD finds.
            Err(error) if [ErrorKind::Malformed, ErrorKind::InvalidArgument].contains(&error.kind) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(maps))
}

fn object_size(image: &RbdImage) -> u64 {
    1_u64.checked_shl(image.order.into()).unwrap_or(u64::MAX)
}

/// Walks the maps from the oldest snapshot to the head.
fn count(image: &RbdImage, maps: &[ObjectMap]) -> Usage {
    let mut usage = Usage::default();
    // Which objects were written since the user's last snapshot, and which were there when the last map was written.
    let (mut written, mut there): (Vec<bool>, Vec<bool>) = (Vec::new(), Vec::new());
    let snapshots = image.snapshots.iter().map(Some).chain([None]);
    for (snapshot, map) in snapshots.zip(maps) {
        let objects = usize::try_from(map.objects()).unwrap_or(usize::MAX);
        written.resize(objects, false);
        there.resize(objects, false);
        for (number, (written, there)) in (0..).zip(written.iter_mut().zip(&mut there)) {
            let exists = map.exists(number);
            *written |= exists && (!*there || !map.is_clean(number));
            *there = exists;
        }
        let size = snapshot.map_or(image.size, |snapshot| snapshot.size);
        let used = (0..).zip(written.iter().zip(&there)).filter(|(_, (written, there))| **written && **there);
        let bytes = |number: u64| {
            let start = number.saturating_mul(object_size(image));
            object_size(image).min(size.saturating_sub(start))
        };
        let used: u64 = used.map(|(number, _)| bytes(number)).sum();
        match snapshot {
            None => usage.head = used,
            // Others are not counted by themselves; what they hold shows in the next.
            Some(SnapshotFacts { namespace: SnapshotNamespace::User, .. }) => {
                usage.snapshots += used;
                written.fill(false);
            }
            Some(_) => {}
        }
    }
    usage
}

/// The same from librbd, which asks for every object.
async fn ask_librbd(pool: &Pool, image: &RbdImage) -> rbd::Result<Usage> {
    let mut usage = Usage { counted: true, ..Usage::default() };
    let mut since: Option<&str> = None;
    let of_user = image.snapshots.iter().filter(|snapshot| snapshot.namespace == SnapshotNamespace::User);
    for snapshot in of_user.map(Some).chain([None]) {
        let options = match snapshot {
            Some(snapshot) => OpenOptions::at_snapshot(&snapshot.name),
            None => OpenOptions::read_only(),
        };
        let opened = pool.open_image_by_id(&image.id, options).await?;
        let size = match snapshot {
            Some(snapshot) => snapshot.size,
            None => image.size,
        };
        let extents = opened.extents(since, 0, size).await;
        opened.close().await?;
        let used: u64 = extents?.iter().filter(|extent| extent.exists).map(|extent| extent.length).sum();
        match snapshot {
            Some(snapshot) => {
                usage.snapshots += used;
                since = Some(&snapshot.name);
            }
            None => usage.head = used,
        }
    }
    Ok(usage)
}
