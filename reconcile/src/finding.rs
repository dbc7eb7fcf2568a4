//! What a scan reports.

use std::{fmt, str::FromStr};

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
    /// A location that cannot be read.
    UndecryptableLocation,
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
    /// A directory entry without an image.
    BrokenImage,
    /// Being uploaded, imported or copied.
    InFlight,
    /// Several images of the same data.
    Duplicate,
    /// Not Glance's.
    ForeignImage,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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
    pub const ALL: [Self; 13] = [
        Self::MissingImage,
        Self::MissingSnapshot,
        Self::TrashedImage,
        Self::UndecryptableLocation,
        Self::Orphan,
        Self::OrphanDeleted,
        Self::PartialUpload,
        Self::Unregistered,
        Self::LeakedClone,
        Self::BrokenImage,
        Self::InFlight,
        Self::Duplicate,
        Self::ForeignImage,
    ];

    /// Its name, severity, and what to do about it.
    const fn facts(self) -> (&'static str, Severity, &'static str) {
        use Severity::{Critical, Info, Warning};
        match self {
            Self::MissingImage => ("missing-image", Critical, "restore it from a backup, or retire the location"),
            Self::MissingSnapshot => ("missing-snapshot", Critical, "recreate the snapshot and protect it"),
            Self::TrashedImage => ("trashed-image", Critical, "restore it from the trash"),
            Self::UndecryptableLocation => {
                ("undecryptable-location", Critical, "give the metadata_encryption_key, or repair the location")
            }
            Self::Orphan => ("orphan", Warning, "trash"),
            Self::OrphanDeleted => ("orphan-deleted", Warning, "trash"),
            Self::PartialUpload => ("partial-upload", Warning, "trash"),
            Self::Unregistered => ("unregistered", Warning, "adopt, or trash"),
            Self::LeakedClone => ("leaked-clone", Warning, "trash"),
            Self::BrokenImage => ("broken-image", Warning, "look at it by hand"),
            Self::InFlight => ("in-flight", Info, "none"),
            Self::Duplicate => ("duplicate", Info, "none; one copy would do"),
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

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| UnknownKind(name.to_owned()))
    }
}

/// There is no kind of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no kind {0:?}")]
pub struct UnknownKind(pub String);

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// One finding, with what it rests on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// The pool.
    pub pool: String,
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
    /// What keeps the image from being reclaimed: `children`, `unknown`.
    pub blocked_by: Vec<&'static str>,
    /// What to do about it.
    pub action: &'static str,
    /// The facts it rests on.
    pub evidence: Map<String, Value>,
}

impl Finding {
    pub(crate) fn new(kind: Kind, pool: &str) -> Self {
        Self {
            kind,
            severity: kind.severity(),
            pool: pool.to_owned(),
            image: None,
            image_id: None,
            glance_id: None,
            location: None,
            used_bytes: None,
            blocked_by: Vec::new(),
            action: kind.action(),
            evidence: Map::new(),
        }
    }

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
    }
}
