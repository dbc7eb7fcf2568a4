//! What librbd is doing with an image in the trash. A move and a restore are several writes each; one that was cut off leaves
//! the image in the trash *and* in its place, or half of it, and only this state tells.

use std::ptr;

use crate::{
    errno::{Error, Result},
    pool::Pool,
    strings::c_string,
};

/// The state of an entry of the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TrashState {
    /// It is there, whole.
    Normal,
    /// On its way into the trash: its name may still be taken by it.
    Moving,
    /// Being removed: data may be gone.
    Removing,
    /// On its way out of the trash: it may have its name already.
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

impl TrashState {
    fn number(self) -> u8 {
        match self {
            Self::Normal => 0,
            Self::Moving => 1,
            Self::Removing => 2,
            Self::Restoring => 3,
            Self::Unknown(other) => other,
        }
    }
}

impl Pool {
    /// The state of an image in the trash; `None` where it is not there.
    ///
    /// Reads `cls_rbd`'s own entry, for librbd does not tell.
    ///
    /// # Errors
    /// `PermissionDenied`, `TimedOut`; `Malformed` for an entry of another form.
    pub async fn trash_state(&self, id: &str) -> Result<Option<TrashState>> {
        let Some(entry) = self.omap_value("rbd_trash", &format!("id_{id}")).await? else { return Ok(None) };
        let malformed = || Error::malformed("read the trash entry of", self.path(&format!("(id {id})")));
        state(&entry).map(Some).ok_or_else(malformed)
    }

    /// The name under which the pool's directory has an image now; `None` where it has not. An image that is in the trash as
    /// well is half moved.
    ///
    /// # Errors
    /// `PermissionDenied`, `TimedOut`; `Malformed` for an entry of another form.
    pub async fn name_of(&self, id: &str) -> Result<Option<String>> {
        let Some(entry) = self.omap_value("rbd_directory", &format!("id_{id}")).await? else { return Ok(None) };
        let name = entry.split_first_chunk::<4>().map(|(_, name)| String::from_utf8(name.to_vec()));
        match name {
            Some(Ok(name)) => Ok(Some(name)),
            _ => Err(Error::malformed("read the name of", self.path(&format!("(id {id})")))),
        }
    }

    /// Says that an image is in another state, if it is in the one expected (or already there).
    ///
    /// Only to end what an interrupted move has begun; librbd neither restores nor removes such an entry.
    ///
    /// Implements: `rados_exec` (`rbd.trash_state_set`).
    ///
    /// # Errors
    /// `NotFound`; `Other` (`ESTALE`) where it is in neither state.
    pub async fn trash_set_state(&self, id: &str, expected: TrashState, state: TrashState) -> Result<()> {
        let c_id = c_string("mark in the trash", id)?;
        let length = u32::try_from(id.len()).unwrap_or(u32::MAX).to_le_bytes();
        let input = [&length[..], c_id.as_bytes(), &[state.number(), expected.number()]].concat();
        self.call("mark in the trash", &format!("(id {id})"), move |io| {
            // SAFETY: a live handle, C strings, an input of the length given, and no room for an output, of which there is none.
            unsafe {
                rbd_sys::rados_exec(
                    io,
                    c"rbd_trash".as_ptr(),
                    c"rbd".as_ptr(),
                    c"trash_state_set".as_ptr(),
                    input.as_ptr().cast(),
                    input.len(),
                    ptr::null_mut(),
                    0,
                )
            }
        })
        .await
    }
}

/// The state in an entry: version, oldest reader and length, then source, name, two times, and since version 2 the state.
fn state(entry: &[u8]) -> Option<TrashState> {
    let (&[version, compat], rest) = entry.split_first_chunk::<2>()?;
    let (length, body) = rest.split_first_chunk::<4>()?;
    let body = body.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    let name = u32::from_le_bytes(*body.get(1..)?.first_chunk::<4>()?);
    let behind = body.get(1 + 4 + usize::try_from(name).ok()? + 8 + 8..)?;
    match (version, compat) {
        (1, 1) => Some(TrashState::Normal),
        (2.., 1..=2) => behind.first().map(|&state| state.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(version: u8, compat: u8, state: &[u8]) -> Vec<u8> {
        let body = [&[0][..], &4_u32.to_le_bytes(), b"name", &[0; 16], state].concat();
        [&[version, compat][..], &(body.len() as u32).to_le_bytes(), &body].concat()
    }

    #[test]
    fn an_entry_that_is_not_understood_has_no_state() {
        assert_eq!(state(&entry(1, 1, &[])), Some(TrashState::Normal), "before Ceph 15 there was none");
        assert_eq!(state(&entry(2, 1, &[1])), Some(TrashState::Moving));
        assert_eq!(state(&entry(3, 1, &[3, 9, 9])), Some(TrashState::Restoring), "a newer one, still readable");
        assert_eq!(state(&entry(2, 1, &[7])), Some(TrashState::Unknown(7)));
        assert_eq!(state(&entry(2, 1, &[])), None);
        assert_eq!(state(&entry(9, 9, &[0])), None);
        let whole = entry(2, 1, &[1]);
        for cut in 0..whole.len() {
            assert_eq!(state(&whole[..cut]), None, "cut at {cut}");
        }
    }
}
