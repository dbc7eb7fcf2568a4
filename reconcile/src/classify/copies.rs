//! Images that share one RBD image, and images of the same data.

use std::collections::BTreeSet;

use super::{Judge, found};
use crate::{
    facts::{GlanceImage, RbdImage},
    finding::{Finding, Kind},
};

/// Algorithm, digest and size of an image's data.
type Data<'a> = (&'a str, &'a str, u64);

impl Judge<'_> {
    /// RBD images that are named by locations of more than one Glance image: the first to be deleted takes the others' data.
    pub(super) fn shared(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for ((index, name), locations) in self.owners.owned() {
            let ids: BTreeSet<&str> = locations.iter().map(|location| location.image_id.as_str()).collect();
            if ids.len() < 2 {
                continue;
            }
            // A one-part location may mean another pool.
            let Some(image) = self.owners.present.get(&(index, name)) else { continue };
            findings.push(Finding {
                image: Some(name.to_owned()),
                image_id: Some(image.id.clone()),
                ..found(Kind::SharedLocation, &self.facts.pools[index]).with("glance_ids", ids)
            });
        }
        findings
    }

    /// Groups of active images of the same data: one finding a group.
    pub(super) fn duplicates(&self) -> Vec<Finding> {
        let mut all: Vec<(Data<'_>, &GlanceImage, &RbdImage, usize)> = Vec::with_capacity(self.owners.present.len());
        for ((index, name), locations) in self.owners.owned() {
            let Some(image) = self.owners.present.get(&(index, name)) else { continue };
            // Two rows of one RBD image share it; there is nothing to win.
            let rows = locations.iter().filter_map(|location| self.row(&location.image_id));
            let row = rows.filter(|row| data_of(row).is_some()).min_by_key(|row| (row.created, &row.id));
            if let Some(row) = row
                && let Some(data) = data_of(row)
            {
                all.push((data, row, image, index));
            }
        }
        // Of each group the oldest comes first.
        all.sort_by_key(|(data, row, _, index)| (*data, row.created, &row.id, *index));
        // One image in several stores was meant to be.
        all.dedup_by_key(|(data, row, ..)| (*data, &row.id));
        let groups = all.chunk_by(|(a, ..), (b, ..)| a == b).filter(|copies| copies.len() > 1);
        groups
            .map(|copies| {
                let ((algorithm, value, size), first, image, index) = copies[0];
                let ids: Vec<&str> = copies.iter().map(|(_, row, ..)| row.id.as_str()).collect();
                Finding {
                    image: Some(image.name.clone()),
                    image_id: Some(image.id.clone()),
                    glance_id: Some(first.id.clone()),
                    used_bytes: Some(size.saturating_mul(copies.len() as u64 - 1)),
                    ..found(Kind::Duplicate, &self.facts.pools[index])
                        .with("copies", ids)
                        .with("algorithm", algorithm)
                        .with("hash", value)
                        .with("size", size)
                }
            })
            .collect()
    }
}

/// The data of an active image.
fn data_of(row: &GlanceImage) -> Option<Data<'_>> {
    if !row.is(&["active"]) {
        return None;
    }
    let (algorithm, value) = match (&row.multihash, &row.checksum) {
        (Some((algorithm, value)), _) => (algorithm.as_str(), value.as_str()),
        (None, Some(checksum)) => ("md5", checksum.as_str()),
        (None, None) => return None,
    };
    Some((algorithm, value, row.size?))
}
