//! Where Glance says an image is: `rbd://fsid/pool/image/snapshot`.

use std::{fmt, str::FromStr};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, percent_decode_str, utf8_percent_encode};

/// All but what RFC 3986 leaves unreserved, as Python's `quote(part, safe='')` does.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The snapshot that holds an image's data.
pub const SNAPSHOT: &str = "snap";

/// The location of an image.
///
/// ```
/// let location: store::Location = "rbd://fsid/images/a%2Fb/snap".parse().unwrap();
/// assert_eq!(location.image(), "a/b");
/// assert_eq!(location.to_string(), "rbd://fsid/images/a%2Fb/snap");
/// let location: store::Location = "rbd://fsid/images%2Fnamespace/a/snap".parse().unwrap();
/// assert_eq!(location.pool(), Some("images/namespace"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// What every Glance since 2013 writes.
    Full {
        /// The cluster.
        fsid: String,
        /// The pool, or `POOL/NAMESPACE` for an RBD namespace of it.
        pool: String,
        /// The image's name, which is the Glance image id.
        image: String,
        /// The snapshot that holds the data.
        snapshot: String,
    },
    /// `rbd://image`: in the configured pool of whatever cluster is configured, at the head.
    Legacy {
        /// The image's name.
        image: String,
    },
}

/// Not a location of an RBD image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not rbd://FSID/POOL/IMAGE/SNAPSHOT (each part percent-encoded), nor rbd://IMAGE")]
pub struct BadLocation(pub String);

impl Location {
    /// The location of an image that this store made: its data is in the snapshot `snap`.
    #[must_use]
    pub fn of(pool: &rbd::Pool, image: impl Into<String>) -> Self {
        Self::Full {
            fsid: pool.cluster().fsid().to_owned(),
            pool: pool.to_string(),
            image: image.into(),
            snapshot: SNAPSHOT.to_owned(),
        }
    }

    /// What the locations of all images in a pool begin with: `rbd://FSID/POOL/`.
    pub(crate) fn prefix(pool: &rbd::Pool) -> String {
        format!("rbd://{}/{}/", quote(pool.cluster().fsid()), quote(&pool.to_string()))
    }

    /// The image's name.
    #[must_use]
    pub fn image(&self) -> &str {
        match self {
            Self::Full { image, .. } | Self::Legacy { image } => image,
        }
    }

    /// The pool, or `POOL/NAMESPACE`, unless it is left to the configuration.
    #[must_use]
    pub fn pool(&self) -> Option<&str> {
        match self {
            Self::Full { pool, .. } => Some(pool),
            Self::Legacy { .. } => None,
        }
    }

    /// The cluster, unless it is left to the configuration.
    #[must_use]
    pub fn fsid(&self) -> Option<&str> {
        match self {
            Self::Full { fsid, .. } => Some(fsid),
            Self::Legacy { .. } => None,
        }
    }

    /// The snapshot, unless it is the head.
    #[must_use]
    pub fn snapshot(&self) -> Option<&str> {
        match self {
            Self::Full { snapshot, .. } => Some(snapshot),
            Self::Legacy { .. } => None,
        }
    }
}

fn quote(part: &str) -> PercentEncode<'_> {
    utf8_percent_encode(part, PART)
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { fsid, pool, image, snapshot } => {
                write!(f, "rbd://{}/{}/{}/{}", quote(fsid), quote(pool), quote(image), quote(snapshot))
            }
            Self::Legacy { image } => write!(f, "rbd://{}", quote(image)),
        }
    }
}

impl FromStr for Location {
    type Err = BadLocation;

    fn from_str(text: &str) -> Result<Self, BadLocation> {
        let bad = || BadLocation(text.to_owned());
        let path = text.strip_prefix("rbd://").ok_or_else(bad)?;
        let parts: Vec<String> = path
            .split('/')
            .map(|part| percent_decode_str(part).decode_utf8().map(String::from).map_err(|_| bad()))
            .collect::<Result<_, _>>()?;
        if parts.iter().any(|part| part.is_empty() || part.contains('\0')) {
            return Err(bad());
        }
        if let [image] = parts.as_slice() {
            return Ok(Self::Legacy { image: image.clone() });
        }
        let [fsid, pool, image, snapshot]: [String; 4] = parts.try_into().map_err(|_| bad())?;
        Ok(Self::Full { fsid, pool, image, snapshot })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_or_four_parts_and_nothing_else() {
        for good in ["rbd://a", "rbd://f/p/i/s", "rbd://f/p%20q/i/s"] {
            assert!(good.parse::<Location>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "rbd://",
            "rbd:/a",
            "RBD://a",
            "file:///a",
            "rbd://a/b",
            "rbd://a/b/c",
            "rbd://a/b/c/d/e",
            "rbd://a//c/d",
            "rbd://f/p/i/",
            "rbd:///p/i/s",
            "rbd://%FF",
            "rbd://%00",
            "swift://x/y/z/w",
        ] {
            assert_eq!(bad.parse::<Location>(), Err(BadLocation(bad.to_owned())));
        }
    }

    #[test]
    fn quoting_is_pythons() {
        // python3 -c 'from urllib.parse import quote; print(quote("a b/ü%~-_.+&", ""))'
        let location = Location::Legacy { image: "a b/ü%~-_.+&".into() };
        assert_eq!(location.to_string(), "rbd://a%20b%2F%C3%BC%25~-_.%2B%26");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(parts in prop::collection::vec("[^\0]{1,12}", 4)) {
            let [fsid, pool, image, snapshot]: [String; 4] = parts.try_into().unwrap();
            let legacy = Location::Legacy { image: image.clone() };
            prop_assert_eq!(legacy.to_string().parse(), Ok(legacy));
            let full = Location::Full { fsid, pool, image, snapshot };
            prop_assert_eq!(full.to_string().parse(), Ok(full));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(rbd://)?[ -~]{0,40}") {
            let _ = text.parse::<Location>();
        }
    }
}
