//! An image's features and flags, by the names `rbd info` prints.

use std::fmt;

/// A set of image features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Features(pub u64);

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $bit:literal $text:literal;)*) => {
        impl Features {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
        }
        const NAMES: &[(Features, &str)] = &[$((Features::$name, $text)),*];
    };
}

features! {
    /// Copy-on-write clones.
    LAYERING = 0 "layering";
    /// A stripe unit other than the object size.
    STRIPING = 1 "striping";
    /// One writer at a time.
    EXCLUSIVE_LOCK = 2 "exclusive-lock";
    /// A bitmap of the objects that exist.
    OBJECT_MAP = 3 "object-map";
    /// Differences between snapshots from object maps alone.
    FAST_DIFF = 4 "fast-diff";
    /// Snapshots can be flattened too.
    DEEP_FLATTEN = 5 "deep-flatten";
    /// A journal of writes.
    JOURNALING = 6 "journaling";
    /// Data objects in another pool.
    DATA_POOL = 7 "data-pool";
    /// A maintenance operation is going on or left marks (`clone-parent`, `clone-child`, …).
    OPERATIONS = 8 "operations";
    /// Being migrated.
    MIGRATING = 9 "migrating";
    /// The mirrored copy, not the primary.
    NON_PRIMARY = 10 "non-primary";
}

impl Features {
    /// Whether all of `other` are in this set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for Features {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = NAMES.iter().filter(|(feature, _)| self.contains(*feature));
        let rest = self.0 & !NAMES.iter().fold(0, |all, (feature, _)| all | feature.0);
        let mut names: Vec<String> = known.map(|(_, name)| (*name).to_owned()).collect();
        if rest != 0 {
            names.push(format!("{rest:#x}"));
        }
        f.write_str(&names.join(","))
    }
}

/// What librbd says of an image's object map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u64);

impl Flags {
    /// The object map does not describe the image; it must be rebuilt before it is believed.
    #[must_use]
    pub fn object_map_invalid(self) -> bool {
        self.0 & u64::from(rbd_sys::RBD_FLAG_OBJECT_MAP_INVALID) != 0
    }

    /// Fast differences are not to be believed.
    #[must_use]
    pub fn fast_diff_invalid(self) -> bool {
        self.0 & u64::from(rbd_sys::RBD_FLAG_FAST_DIFF_INVALID) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_rbd_info() {
        let features = Features::LAYERING | Features::EXCLUSIVE_LOCK | Features(1 << 40);
        assert_eq!(features.to_string(), "layering,exclusive-lock,0x10000000000");
        assert!(!features.contains(Features::LAYERING | Features::OBJECT_MAP));
    }

    #[test]
    fn bits_are_those_of_the_header() {
        assert_eq!(Features::NON_PRIMARY.0, 1024);
        assert!(Flags(1).object_map_invalid() && !Flags(1).fast_diff_invalid());
    }
}
