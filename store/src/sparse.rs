//! Files with holes, which are found and not read.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use rustix::{fs::SeekFrom, io::Errno};

/// A file as a source of an image, read from its beginning. Holes that the file system knows of are not read.
///
/// ```no_run
/// # async fn example(writer: &mut store::Writer) -> store::Result<()> {
/// let mut file = store::SparseFile::new(std::fs::File::open("disk.raw").unwrap());
/// while writer.read_from(&mut file).await? > 0 {}
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct SparseFile {
    file: Arc<File>,
    position: u64,
    /// Where the data that `position` is in ends, as far as is known.
    data_end: u64,
}

/// The next piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// So many bytes were read.
    Data(usize),
    /// So many bytes are a hole.
    Hole(u64),
    /// There is no more.
    End,
}

impl SparseFile {
    /// Reads a file by position; where it stands does not matter, and is changed.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self { file: Arc::new(file), position: 0, data_end: 0 }
    }

    /// Reads into `room`, which has some, or finds a hole.
    pub(crate) fn next(&mut self, room: &mut [u8]) -> io::Result<Piece> {
        if self.position >= self.data_end
            && let Some(hole) = self.find_data()?
        {
            self.position += hole;
            return Ok(Piece::Hole(hole));
        }
        let room = match usize::try_from(self.data_end - self.position) {
            Ok(left) if left < room.len() => &mut room[..left],
            _ => room,
        };
        let mut read = 0;
        while read < room.len() {
            match self.file.read_at(&mut room[read..], self.position + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.position += read as u64;
        Ok(if read == 0 { Piece::End } else { Piece::Data(read) })
    }

    /// Finds the end of the data that begins here, or how long the hole is that does.
    fn find_data(&mut self) -> io::Result<Option<u64>> {
        let seek = |to| rustix::fs::seek(&*self.file, to);
        let begin = match seek(SeekFrom::Data(self.position)) {
            Ok(begin) => begin,
            // No more data: the rest is a hole, or there is no rest.
            Err(Errno::NXIO) => seek(SeekFrom::End(0))?.max(self.position),
            // This file system does not know.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                self.data_end = u64::MAX;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if begin > self.position {
            return Ok(Some(begin - self.position));
        }
        self.data_end = match seek(SeekFrom::Hole(begin)) {
            Ok(end) => end,
            Err(Errno::NXIO) => u64::MAX,
            Err(error) => return Err(error.into()),
        };
        Ok(None)
    }
}
