//! Where results go: standard output, or a file that has all of it or stays as it was.

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use tempfile::NamedTempFile;

/// Writes a result to a file, or to standard output.
pub(super) fn write(path: Option<&Path>, text: &[u8]) -> anyhow::Result<()> {
    let Some(path) = path else {
        let mut stdout = io::stdout();
        return match stdout.write_all(text).and_then(|()| stdout.flush()) {
            // A reader that has gone wants no more: `glance-rbd scan | head` is no error.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            result => result.context("cannot write to standard output"),
        };
    };
    let mut output = Output::create(path)?;
    output.file().write_all(text).with_context(|| format!("cannot write {}", path.display()))?;
    output.keep()
}

/// Writes a result to standard output.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    write(None, text.as_bytes())
}

/// A file on its way to its name. Dropped before it is kept, it leaves nothing.
pub(super) enum Output {
    /// A new file beside it, renamed when it is whole.
    Whole(NamedTempFile, PathBuf),
    /// What is there is no plain file (a device, a pipe), and is written to as it is.
    Device(File, PathBuf),
}

impl Output {
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let context = || format!("cannot write {}", path.display());
        // A link is followed: the file it names is replaced, not the link.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            let device = File::options().write(true).open(&path).with_context(context)?;
            return Ok(Self::Device(device, path));
        }
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // As readable as any new file: what the umask leaves of it.
        let permissions = std::fs::Permissions::from_mode(0o666);
        let file = tempfile::Builder::new().prefix(".glance-rbd-").permissions(permissions).tempfile_in(directory);
        Ok(Self::Whole(file.with_context(context)?, path.clone()))
    }

    pub(super) fn file(&mut self) -> &mut File {
        match self {
            Self::Whole(file, _) => file.as_file_mut(),
            Self::Device(file, _) => file,
        }
    }

    /// Makes what was written durable, under its name.
    pub(super) fn keep(mut self) -> anyhow::Result<()> {
        let synced = self.file().sync_all();
        let (result, path) = match self {
            Self::Whole(file, path) => {
                (synced.and_then(|()| file.persist(&path).map(drop).map_err(|error| error.error)), path)
            }
            // Pipes and many devices have nothing to sync.
            Self::Device(_, path) => (Ok(()), path),
        };
        result.with_context(|| format!("cannot write {}", path.display()))
    }
}
