//! How far a move to the trash, or out of it, has come.
//!
//! Each is several writes: the entry in the trash, the name's object, the directory, and the entry's state. A program that is
//! killed between them leaves an entry that librbd then refuses to remove, and an image that cannot be opened by name.

use crate::{
    class::{encoded, exec, take_string},
    errno::{Error, Result},
    pool::Pool,
};

const TRASH: &str = "rbd_trash";

/// The state of an entry in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TrashState {
    /// It is in the trash.
    Normal,
    /// It is being moved there, or was when the program that did it ended.
    Moving,
    /// It is being removed for good, or was.
    Removing,
    /// It is being taken out again, or was.
    Restoring,
    /// A state this program does not know, by its number.
    Unknown(u8),
}

impl From<u8> for TrashState {
    fn from(state: u8) -> Self {
        match state {
            0 => Self::Normal,
            1 => Self::Moving,
            2 => Self::Removing,
            3 => Self::Restoring,
            other => Self::Unknown(other),
        }
    }
}

impl Pool {
    /// The state of an image's entry in the trash, if it has one.
    ///
    /// # Errors
    /// `PermissionDenied`, `TimedOut`, `Malformed`.
    pub async fn trash_state(&self, id: &str) -> Result<Option<TrashState>> {
        let Some(value) = self.omap_value(TRASH, &format!("id_{id}")).await? else { return Ok(None) };
        let malformed = || Error::malformed("read the trash of", self.to_string());
        state(&value).map(Some).ok_or_else(malformed)
    }

    /// Ends a move to the trash that was cut off after the image had lost its name: from then on it can be removed, or
    /// restored.
    ///
    /// Implements: `rados_exec`.
    ///
    /// # Errors
    /// `NotFound` without the entry; another where its state is not [`TrashState::Moving`] any more.
    pub async fn finish_trash_move(&self, id: &str) -> Result<()> {
        let input = [encoded(id), vec![0, 1]].concat();
        let pool = self.clone();
        let work = move || exec(pool.io(), TRASH, c"trash_state_set", &input).map(drop);
        self.cluster().blocking("finish the move to the trash of", self.path(id), work).await
    }
}

/// The last field of a `TrashImageSpec`, of its second version.
fn state(value: &[u8]) -> Option<TrashState> {
    let (&[version, _compatible, ..], mut rest) = value.split_first_chunk::<6>()?;
    if version < 2 {
        return Some(TrashState::Normal);
    }
    let (_source, after) = rest.split_first()?;
    rest = after;
    take_string(&mut rest)?;
    // Two times of eight bytes each.
    rest.get(16).map(|&state| state.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_behind_source_name_and_times() {
        let fields = [vec![0], encoded("image"), vec![9; 16], vec![1]].concat();
        let header = [2, 1, fields.len() as u8, 0, 0, 0];
        assert_eq!(state(&[&header, fields.as_slice()].concat()), Some(TrashState::Moving));
        assert_eq!(state(&[&header, &fields[..fields.len() - 1]].concat()), None);
        assert_eq!(state(&[1, 1, 0, 0, 0, 0]), Some(TrashState::Normal));
        assert_eq!(state(b""), None);
    }
}
