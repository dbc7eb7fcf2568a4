//! What a location's value says, decrypted where Glance encrypts them.

use base64::{Engine, engine::general_purpose::URL_SAFE};
use openssl::symm::{Cipher, Crypter, Mode};

use crate::facts::Place;

/// Glance's `metadata_encryption_key`: an AES key of 16, 24 or 32 bytes.
#[derive(Clone)]
pub(super) struct Key {
    cipher: Cipher,
    bytes: Vec<u8>,
}

/// Bytes of an AES block.
const BLOCK: usize = 16;

impl Key {
    /// The key that `metadata_encryption_key` gives; nothing where Glance could not use it either.
    pub(super) fn new(text: &str) -> Option<Self> {
        let cipher = match text.len() {
            16 => Cipher::aes_128_cbc(),
            24 => Cipher::aes_192_cbc(),
            32 => Cipher::aes_256_cbc(),
            _ => return None,
        };
        Some(Self { cipher, bytes: text.as_bytes().to_owned() })
    }

    /// Decrypts URL-safe base64 of an IV and AES-CBC of (text ‖ NUL ‖ bytes other than NUL).
    fn decrypt(&self, value: &str) -> Option<String> {
        let bytes = URL_SAFE.decode(value).ok()?;
        if bytes.len() < 2 * BLOCK || bytes.len() % BLOCK != 0 {
            return None;
        }
        let (iv, encrypted) = bytes.split_at(BLOCK);
        let mut crypter = Crypter::new(self.cipher, Mode::Decrypt, &self.bytes, Some(iv)).ok()?;
        crypter.pad(false);
        let mut plain = vec![0; encrypted.len() + BLOCK];
        let mut length = crypter.update(encrypted, &mut plain).ok()?;
        length += crypter.finalize(&mut plain[length..]).ok()?;
        plain.truncate(length);
        plain.truncate(plain.iter().rposition(|byte| *byte == 0)?);
        String::from_utf8(plain).ok()
    }
}

/// The place that a value names. A key does not make plain values unreadable: rows from before it was set are plain.
pub(super) fn place(value: &str, key: Option<&Key>) -> Place {
    match plain(value) {
        Place::Unreadable if !value.contains("://") => {
            key.and_then(|key| key.decrypt(value)).map_or(Place::Unreadable, |value| plain(&value))
        }
        place => place,
    }
}

fn plain(value: &str) -> Place {
    match value.parse() {
        Ok(location) => Place::Rbd(location),
        Err(_) if value.starts_with("rbd://") => Place::Unreadable,
        Err(_) if has_scheme(value) => Place::Elsewhere,
        Err(_) => Place::Unreadable,
    }
}

/// Whether it is a URL of some kind, as RFC 3986 begins one.
fn has_scheme(value: &str) -> bool {
    value.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";
    const LOCATION: &str = "rbd://f/p/i/s";

    fn encrypted(key: &Key, text: &[u8]) -> String {
        let iv = [7; BLOCK];
        let mut padded = [text, &[0]].concat();
        padded.resize(padded.len().next_multiple_of(BLOCK), 9);
        let mut crypter = Crypter::new(key.cipher, Mode::Encrypt, &key.bytes, Some(&iv)).unwrap();
        crypter.pad(false);
        let mut out = vec![0; padded.len() + BLOCK];
        let length = crypter.update(&padded, &mut out).unwrap();
        out.truncate(length);
        URL_SAFE.encode([iv.as_slice(), &out].concat())
    }

    #[test]
    fn what_cannot_be_read_is_not_elsewhere() {
        let plain = |value| place(value, None);
        assert!(matches!(plain("rbd://f/p/i/s"), Place::Rbd(_)));
        for elsewhere in ["file:///var/lib/glance/x", "swift+https://a/b", "cinder://x", "pending://x"] {
            assert_eq!(plain(elsewhere), Place::Elsewhere, "{elsewhere}");
        }
        for unreadable in ["", "rbd://a/b", "gAAAAABk3kLw5oV_x1==", "://x", "a b://c"] {
            assert_eq!(plain(unreadable), Place::Unreadable, "{unreadable}");
        }
    }

    #[test]
    fn encrypted_locations_take_the_right_key() {
        for length in [16, 24, 32] {
            let key = Key::new(&KEY[..length]).unwrap();
            let value = encrypted(&key, LOCATION.as_bytes());
            assert_eq!(place(&value, Some(&key)), Place::Rbd(LOCATION.parse().unwrap()));
            assert_eq!(place(&value, None), Place::Unreadable);
            assert_eq!(place(&value, Key::new(&"x".repeat(length)).as_ref()), Place::Unreadable);
            assert_eq!(place(LOCATION, Some(&key)), Place::Rbd(LOCATION.parse().unwrap()), "rows from before the key");
            assert_eq!(place(&encrypted(&key, b"pending://x"), Some(&key)), Place::Elsewhere);
            assert_eq!(place(&encrypted(&key, b"\xFFrbd"), Some(&key)), Place::Unreadable);
        }
        for length in [0, 15, 17, 31, 33] {
            assert!(Key::new(&"x".repeat(length)).is_none(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_location_comes_back(name in "[^\0]{1,40}") {
            let key = Key::new(KEY).unwrap();
            let location = store::Location::Legacy { image: name };
            let value = encrypted(&key, location.to_string().as_bytes());
            prop_assert_eq!(place(&value, Some(&key)), Place::Rbd(location));
        }

        #[test]
        fn no_value_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), text in "\\PC{0,40}") {
            let key = Key::new(KEY).unwrap();
            place(&URL_SAFE.encode(bytes), Some(&key));
            place(&text, Some(&key));
        }
    }
}
