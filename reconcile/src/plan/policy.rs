//! What the admin decided, and the safeguards that may be switched off.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::finding::Kind;

/// What the admin decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanPolicy {
    /// How old what is removed must be, and how long ago an earlier scan must have seen it the same.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub grace: Duration,
    /// The kinds to act on; empty for those that are safe to act on unasked.
    pub only: Vec<Kind>,
    /// How many images may be moved to the trash or purged, at most.
    pub max_images: u64,
    /// How many per cent of a pool's images, at most.
    pub max_percent: u64,
    /// How long what is moved to the trash is kept there.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub defer: Duration,
    /// The safeguards that were switched off by name.
    pub allow: Vec<Allow>,
}

impl Default for PlanPolicy {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        Self {
            grace: Duration::from_secs(DAY),
            only: Vec::new(),
            max_images: 25,
            max_percent: 10,
            defer: Duration::from_secs(7 * DAY),
            allow: Vec::new(),
        }
    }
}

/// A safeguard that may be switched off, each by its own name. Children, watchers, foreign locks, groups, mirroring,
/// migration, protected images, names that are not Glance's and what is unknown have no such name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Allow {
    /// Act on what no earlier scan has seen.
    Unseen,
    /// Believe a database that is older than the image.
    Stale,
    /// Act although OSDs are down or placement groups inactive.
    Unhealthy,
    /// Believe a database without any location in the pool.
    NoLocations,
    /// Believe a database whose locations all name another cluster.
    ForeignFsid,
    /// Plan although locations cannot be read. They may name any image, so that what is removed stays blocked.
    Undecryptable,
}

impl Allow {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Unseen, Self::Stale, Self::Unhealthy, Self::NoLocations, Self::ForeignFsid, Self::Undecryptable];

    /// The name that `--allow` takes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().0
    }

    /// What happens without the safeguard, as a warning.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        self.facts().1
    }

    const fn facts(self) -> (&'static str, &'static str) {
        match self {
            Self::Unseen => ("unseen", "images are removed that no earlier scan has seen"),
            Self::Stale => ("stale", "a database is believed that is older than what is in the pool"),
            Self::Unhealthy => ("unhealthy", "images are removed while the cluster may not show all there is"),
            Self::NoLocations => ("no-locations", "a database is believed that knows nothing of the pool"),
            Self::ForeignFsid => ("foreign-fsid", "a database is believed whose locations name another cluster"),
            Self::Undecryptable => ("undecryptable", "locations cannot be read; only what gives back is planned"),
        }
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Allow {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|allow| allow.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|allow| allow.name()).collect();
            format!("there is no safeguard {name:?} to switch off; there are {}", known.join(", "))
        })
    }
}

impl PlanPolicy {
    /// Whether a safeguard is switched off.
    #[must_use]
    pub fn allows(&self, what: Allow) -> bool {
        self.allow.contains(&what)
    }
}
