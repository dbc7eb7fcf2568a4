//! A step in words: why, how to undo it, and what to type where the database would have to be written.

use super::{Action, Step};
use crate::finding::Kind;

/// Fills in what people read.
pub(super) fn describe(step: &mut Step) {
    step.why = why(step.kind).into();
    step.undo = undo(step);
    if step.action == Action::Adopt {
        step.commands = register(step);
    }
}

const fn why(kind: Kind) -> &'static str {
    match kind {
        Kind::Orphan => "no location in any state names it, and no row has its name as id",
        Kind::OrphanDeleted => "no location names it, and its row is deleted",
        Kind::PartialUpload => "its upload has stopped: it has no snapshot, and nobody has it open",
        Kind::LeakedClone => "a server's snapshot that was not finished: it has no snapshot, and no location names it",
        Kind::TrashExpired => "it is in the trash, its deferment is over, and nothing needs it",
        Kind::TrashedImage => "an active location names it, and it is in the trash",
        Kind::MissingSnapshot => "an active location names a snapshot that is not there, and all its data is",
        Kind::UnprotectedSnapshot => "an active location names a snapshot that anybody may remove",
        Kind::Unregistered => "it is whole, and its row waits for it",
        _ => "",
    }
}

fn undo(step: &Step) -> String {
    let pool = match step.namespace.as_str() {
        "" => step.pool.clone(),
        namespace => format!("{}/{namespace}", step.pool),
    };
    let (image, id) = (format!("{pool}/{}", step.image), &step.image_id);
    let snapshot = step.location.as_deref().and_then(|location| location.parse::<store::Location>().ok());
    let snapshot = snapshot.as_ref().and_then(store::Location::snapshot).unwrap_or(store::SNAPSHOT);
    match step.action {
        Action::Trash => format!("glance-rbd undo JOURNAL, or: rbd trash restore {pool}/{id}"),
        Action::Purge => "cannot be undone".into(),
        Action::Restore => format!("rbd trash mv {image}"),
        Action::Snapshot => format!("rbd snap unprotect {image}@{snapshot} && rbd snap rm {image}@{snapshot}"),
        Action::Protect => format!("rbd snap unprotect {image}@{snapshot}"),
        Action::Adopt => "nothing is done".into(),
    }
}

/// What registers an image whose row waits for its data. Glance takes a location for a queued image only: one that is
/// being saved for ever is replaced by a new one, and deleted last, which leaves the data to the other.
fn register(step: &Step) -> Vec<String> {
    let location = step.location.as_deref().unwrap_or_default();
    let id = step.glance_id.as_deref().unwrap_or(&step.image);
    let setting = "# needs show_multiple_locations = True in glance-api.conf".to_owned();
    if step.evidence.get("row_status").and_then(|status| status.as_str()) == Some("queued") {
        return vec![setting, format!("glance location-add --url {location} {id}")];
    }
    vec![
        setting,
        "glance image-create --name NAME --disk-format FORMAT --container-format bare # prints NEW-ID".into(),
        format!("glance location-add --url {location} NEW-ID"),
        format!("glance image-delete {id}"),
    ]
}
