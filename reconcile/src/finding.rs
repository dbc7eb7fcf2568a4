//! What a scan reports.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

/// The kind of a finding. Its names are stable: scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// An active location, but no such image.
    MissingImage,
    /// An active location, but the image has no such snapshot.
    MissingSnapshot,
    /// An active location, but the image is in the trash.
    TrashedImage,
    /// Glance and the snapshot disagree on the size.
    SizeMismatch,
    /// A location of another cluster.
    ForeignCluster,
    /// A location that cannot be read.
    UndecryptableLocation,
    /// One RBD image that several Glance images claim.
    SharedLocation,
    /// An active location whose snapshot anybody may remove.
    UnprotectedSnapshot,
    /// No location and no row.
    Orphan,
    /// No location, and the row is deleted.
    OrphanDeleted,
    /// An upload that died.
    PartialUpload,
    /// Whole, but Glance does not know.
    Unregistered,
    /// A server-side snapshot that died.
    LeakedClone,
    /// A directory entry without an image, or an image without a directory entry.
    BrokenImage,
    /// Deleted in Glance, and the scrubber does not come.
    PendingDelete,
    /// A location of a store that is not configured.
    UnknownStore,
    /// Active, but every server that boots from it takes a full copy.
    NotCloneable,
    /// In the trash, and no longer to be kept.
    TrashExpired,
    /// In the trash, for a while yet.
    TrashDeferred,
    /// In the trash, because its clones need it.
    TrashBlocked,
    /// Being uploaded, imported or copied.
    InFlight,
    /// Several images of the same data.
    Duplicate,
    /// Snapshots that Glance did not make.
    ExtraSnapshot,
    /// A location in one part.
    LegacyLocation,
    /// Not Glance's.
    ForeignImage,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Data that Glance promises is not there, or may not be.
    Critical,
    /// Space is lost, or will be missing.
    Warning,
    /// Worth knowing.
    Info,
}

impl Kind {
    /// All kinds, worst first.
    pub const ALL: [Self; 25] = [
        Self::MissingImage,
        Self::MissingSnapshot,
        Self::TrashedImage,
        Self::SizeMismatch,
        Self::ForeignCluster,
        Self::UndecryptableLocation,
        Self::SharedLocation,
        Self::UnprotectedSnapshot,
        Self::Orphan,
        Self::OrphanDeleted,
        Self::PartialUpload,
        Self::Unregistered,
        Self::LeakedClone,
        Self::BrokenImage,
        Self::PendingDelete,
        Self::UnknownStore,
        Self::NotCloneable,
        Self::TrashExpired,
        Self::TrashDeferred,
        Self::TrashBlocked,
        Self::InFlight,
        Self::Duplicate,
        Self::ExtraSnapshot,
        Self::LegacyLocation,
        Self::ForeignImage,
    ];

    /// Its name, severity, and what to do about it.
    const fn facts(self) -> (&'static str, Severity, &'static str) {
        use Severity::{Critical, Info, Warning};
        match self {
            Self::MissingImage => ("missing-image", Critical, "restore it from a backup, or retire the location"),
            Self::MissingSnapshot => ("missing-snapshot", Critical, "recreate the snapshot and protect it"),
            Self::TrashedImage => ("trashed-image", Critical, "restore it from the trash"),
            Self::SizeMismatch => ("size-mismatch", Critical, "compare the data with its checksum by hand"),
            Self::ForeignCluster => ("foreign-cluster", Critical, "rewrite the location, if the pool has moved"),
            Self::UndecryptableLocation => {
                ("undecryptable-location", Critical, "give the metadata_encryption_key, or repair the location")
            }
            Self::SharedLocation => ("shared-location", Critical, "delete neither in Glance; give one a copy"),
            Self::UnprotectedSnapshot => ("unprotected-snapshot", Warning, "protect"),
            Self::Orphan => ("orphan", Warning, "trash"),
            Self::OrphanDeleted => ("orphan-deleted", Warning, "trash"),
            Self::PartialUpload => ("partial-upload", Warning, "trash"),
            Self::Unregistered => ("unregistered", Warning, "adopt, or trash"),
            Self::LeakedClone => ("leaked-clone", Warning, "trash"),
            Self::BrokenImage => ("broken-image", Warning, "look at it by hand"),
            Self::PendingDelete => ("pending-delete", Warning, "run glance-scrubber"),
            Self::UnknownStore => ("unknown-store", Warning, "configure the store, or repair the location's metadata"),
            Self::NotCloneable => ("not-cloneable", Warning, "none; each server takes a full copy"),
            Self::TrashExpired => ("trash-expired", Warning, "purge"),
            Self::TrashDeferred => ("trash-deferred", Info, "none"),
            Self::TrashBlocked => ("trash-blocked", Info, "none; it goes with the last of its clones"),
            Self::InFlight => ("in-flight", Info, "none"),
            Self::Duplicate => ("duplicate", Info, "none; one copy would do"),
            Self::ExtraSnapshot => ("extra-snapshot", Info, "none; it keeps old data"),
            Self::LegacyLocation => ("legacy-location", Info, "none; it means whatever pool is configured"),
            Self::ForeignImage => ("foreign-image", Info, "none; never touched"),
        }
    }

    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().0
    }

    /// How bad it is.
    #[must_use]
    pub const fn severity(self) -> Severity {
        self.facts().1
    }

    /// What to do about it.
    #[must_use]
    pub const fn action(self) -> &'static str {
        self.facts().2
    }

    /// Whether the image's space is to be won by putting it into the trash.
    #[must_use]
    pub const fn is_reclaimable(self) -> bool {
        matches!(
            self,
            Self::Orphan | Self::OrphanDeleted | Self::PartialUpload | Self::Unregistered | Self::LeakedClone
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| format!("no kind {name:?}"))
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What keeps an image from being reclaimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Block {
    /// Clones need it.
    Children,
    /// Somebody has it open for writing.
    Watchers,
    /// Somebody holds a lock on it.
    Lock,
    /// Its deferment has not ended.
    Age,
    /// Something that decides could not be found out.
    Unknown,
    /// It belongs to a group.
    Group,
    /// It is mirrored.
    Mirror,
    /// It is being migrated.
    Migration,
    /// Others than Glance took snapshots of it.
    Snapshots,
    /// Glance protects it from deletion.
    Protected,
    /// No database is recent enough to say that it is nobody's.
    Stale,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Children => "children",
            Self::Watchers => "watchers",
            Self::Lock => "lock",
            Self::Age => "age",
            Self::Unknown => "unknown",
            Self::Group => "group",
            Self::Mirror => "mirror",
            Self::Migration => "migration",
            Self::Snapshots => "snapshots",
            Self::Protected => "protected",
            Self::Stale => "stale",
        })
    }
}

/// One finding, with what it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// The pool.
    pub pool: String,
    /// The namespace; left out for the default one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The RBD image's name.
    pub image: Option<String>,
    /// Its id.
    pub image_id: Option<String>,
    /// The Glance image's id.
    pub glance_id: Option<String>,
    /// The location.
    pub location: Option<String>,
    /// Bytes in the pool, where they are at stake.
    pub used_bytes: Option<u64>,
    /// What keeps the image from being reclaimed; sorted.
    pub blocked_by: Vec<Block>,
    /// What to do about it.
    pub action: Cow<'static, str>,
    /// The facts it rests on.
    pub evidence: Map<String, Value>,
}

impl Finding {
    pub(crate) fn new(kind: Kind, pool: &str) -> Self {
        Self {
            kind,
            severity: kind.severity(),
            pool: pool.to_owned(),
            namespace: String::new(),
            image: None,
            image_id: None,
            glance_id: None,
            location: None,
            used_bytes: None,
            blocked_by: Vec::new(),
            action: kind.action().into(),
            evidence: Map::new(),
        }
    }

    /// Adds a fact, unless there is none.
    pub(crate) fn with(mut self, fact: &str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).expect("facts are plain data");
        if !value.is_null() {
            self.evidence.insert(fact.to_owned(), value);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_listed_worst_first_and_once() {
        assert!(Kind::ALL.windows(2).all(|pair| pair[0].severity() <= pair[1].severity() && pair[0] < pair[1]));
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
    }

    #[test]
    fn a_finding_survives_json() {
        let mut finding = Finding::new(Kind::TrashBlocked, "images").with("size", 7).with("nothing", None::<u8>);
        finding.blocked_by = vec![Block::Children, Block::Unknown];
        let json = serde_json::to_value(&finding).unwrap();
        assert_eq!(json["blocked_by"], serde_json::json!(["children", "unknown"]));
        assert!(json.get("namespace").is_none());
        for block in &finding.blocked_by {
            assert_eq!(serde_json::to_value(block).unwrap(), block.to_string());
        }
        assert_eq!(serde_json::from_value::<Finding>(json).unwrap(), finding);
    }
}
