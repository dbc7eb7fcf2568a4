//! What is in the trash, and whether it may go.

use std::time::Duration;

use rbd::TrashSource;

use super::{Judge, describe, found, is_glance_name};
use crate::{
    facts::{RbdImage, Trashed},
    finding::{Block, Finding, Kind},
};

/// As long as a removal may take between the move and the end.
const REMOVAL: Duration = Duration::from_secs(5 * 60);

impl Judge<'_> {
    /// What is to be said of an entry of the trash.
    pub(super) fn trashed(&self, entry: &Trashed, index: usize) -> Option<Finding> {
        let pool = &self.facts.pools[index];
        let name = entry.name.as_str();
        let owned = self.owners.is_owned(index, name);
        let latest = self.owners.trashed.get(&(index, name)).is_some_and(|latest| latest.id == entry.id);
        let in_place = self.owners.present.get(&(index, name));
        if owned && latest && in_place.is_none() {
            return None; // the location's finding says it all
        }
        let row = self.row(name);
        let naming = self.owners.naming(index, name);
        if !is_glance_name(name) && naming.is_empty() {
            let finding = found(Kind::ForeignImage, pool).with("trashed", entry.deleted);
            return Some(Finding { image: Some(entry.name.clone()), image_id: Some(entry.id.clone()), ..finding });
        }
        let unread = RbdImage { name: entry.name.clone(), id: entry.id.clone(), ..RbdImage::default() };
        let image = entry.image.as_deref().unwrap_or(&unread);
        let mut blocks = self.blocks(image, index);
        if entry.image.is_none()
            || naming.iter().any(|location| !location.deleted)
            || row.is_some_and(|row| !row.deleted)
        {
            blocks.push(Block::Unknown);
        }
        // A removal defers nothing, and may have begun after this scan.
        if self.now < entry.deferred_until && entry.deleted < entry.deferred_until {
            blocks.push(Block::Age);
        }
        match entry.source {
            TrashSource::Mirroring => blocks.push(Block::Mirror),
            TrashSource::Migration => blocks.push(Block::Migration),
            _ => {}
        }
        blocks.sort_unstable();
        blocks.dedup();

        // librbd moves an image here before it removes it, and so does a store; one that is being removed is not left over.
        let grace = match entry.source {
            TrashSource::Removing => self.policy.grace,
            _ => self.policy.grace.min(REMOVAL),
        };
        let stays = blocks.contains(&Block::Age) || blocks.contains(&Block::Children);
        let removing = !stays && !self.is_older(entry.deleted, grace);
        // A move here, or back, is several writes: for a while the image is in both places, and then one was cut off.
        let moving = !self.is_older(entry.deleted, self.policy.grace.min(REMOVAL)) || pool.going.contains(name);
        let kind = if in_place.is_some_and(|image| image.id == entry.id) {
            if moving { Kind::InFlight } else { Kind::BrokenImage }
        } else if removing || blocks.contains(&Block::Watchers) || pool.going.contains(name) {
            Kind::InFlight
        } else if blocks.iter().any(|block| [Block::Children, Block::Mirror, Block::Migration].contains(block)) {
            Kind::TrashBlocked
        } else if blocks.contains(&Block::Age) {
            Kind::TrashDeferred
        } else {
            Kind::TrashExpired
        };
        let finding = describe(kind, image, pool, row)
            .with("trashed", entry.deleted)
            .with("deferred_until", entry.deferred_until)
            .with("by", format!("{:?}", entry.source))
            .with(
                "missing",
                (kind == Kind::BrokenImage).then_some("one of its two places: it is in the pool and in its trash"),
            );
        let blocked_by = if matches!(kind, Kind::InFlight | Kind::BrokenImage) { Vec::new() } else { blocks };
        Some(Finding { blocked_by, ..finding })
    }
}
