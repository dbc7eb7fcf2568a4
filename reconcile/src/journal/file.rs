//! The journal as a file: made whole or not at all, locked by who writes it, on the disk before anything goes on.

use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{Entry, Event, Header, Record};
use crate::plan::Plan;

/// The version of the format.
const VERSION: u32 = 1;

/// Why a journal cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file cannot be read or written.
    #[error("cannot {operation} the journal {}: {source}", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another program has it open: the same plan is being applied, or undone.
    #[error("the journal {} is in use by another apply or undo", .0.display())]
    InUse(PathBuf),
    /// The file is no journal.
    #[error("{} is no journal of this program", .0.display())]
    NotAJournal(PathBuf),
    /// It is a journal of another plan.
    #[error("{} is the journal of another plan (its digest is {digest})", .path.display())]
    OtherPlan {
        /// The file.
        path: PathBuf,
        /// The digest of that plan.
        digest: String,
    },
    /// A line before the last cannot be read.
    #[error("line {line} of the journal {} is damaged: {why}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// An open journal, which nobody else can open to write while it is.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    header: Header,
    records: BTreeMap<u64, Record>,
    faults: Faults,
}

/// What tests do to a program that writes a journal.
#[derive(Debug, Default)]
pub struct Faults {
    /// The process ends after so many more lines, as a power cut would end it.
    pub abort_after: Option<u64>,
    /// While this file is there, nothing goes on after a line that says what is about to be done.
    pub hold: Option<PathBuf>,
}

impl Journal {
    /// Makes the journal of a plan, or opens the one it has.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`JournalError::OtherPlan`].
    pub fn of(plan: &Plan, path: &Path, now: Timestamp) -> Result<Self, JournalError> {
        match Self::open(path) {
            Err(JournalError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                create(path, &Header::of(plan, now)).map_err(|source| failed("create", path, source))?;
                Self::open(path)
            }
            Ok(journal) if journal.header.plan != plan.digest => {
                Err(JournalError::OtherPlan { path: path.to_owned(), digest: journal.header.plan })
            }
            opened => opened,
        }
    }

    /// Opens a journal. A last line without an end was cut off while it was written, and is as if it had never been.
    ///
    /// # Errors
    /// [`JournalError::Io`], [`JournalError::InUse`], [`JournalError::NotAJournal`], [`JournalError::Damaged`]. The file is
    /// not changed then.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let open = File::options().read(true).append(true).open(path);
        let mut file = open.map_err(|source| failed("open", path, source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed("lock", path, source)),
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(|source| failed("read", path, source))?;
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let (header, records) = read(path, &text[..whole])?;
        if whole < text.len() {
            let cut = file.set_len(whole as u64).and_then(|()| file.sync_all());
            cut.and_then(|()| file.seek(SeekFrom::End(0))).map_err(|source| failed("mend", path, source))?;
        }
        Ok(Self { path: path.to_owned(), file, header, records, faults: Faults::default() })
    }

    /// For tests alone.
    pub fn inject(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// What it belongs to.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What it says of each step.
    #[must_use]
    pub fn records(&self) -> &BTreeMap<u64, Record> {
        &self.records
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What only whoever has this journal open can name: this very file, on this machine, since it was started. Without
    /// that, nothing that anybody else could name.
    #[must_use]
    pub fn token(&self) -> String {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        match (boot, self.file.metadata()) {
            (Ok(boot), Ok(file)) => format!("{}:{}:{}", boot.trim(), file.dev(), file.ino()),
            _ => uuid::Uuid::new_v4().to_string(),
        }
    }

    /// Writes a line. When this returns, it is on the disk.
    ///
    /// # Errors
    /// [`JournalError::Io`]: nothing more may be done, for nobody would know of it.
    pub fn write(&mut self, at: Timestamp, n: u64, event: Event) -> Result<(), JournalError> {
        let entry = Entry { at, n, event };
        let line = serde_json::to_string(&entry).expect("an entry is plain data") + "\n";
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|source| failed("write", &self.path, source))?;
        let intent = matches!(entry.event, Event::Intent(_));
        apply(&mut self.records, entry);
        if let Some(left) = &mut self.faults.abort_after {
            *left = left.saturating_sub(1);
            if *left == 0 {
                std::process::abort();
            }
        }
        while intent && self.faults.hold.as_ref().is_some_and(|file| file.exists()) {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(())
    }
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Io { operation, path: path.to_owned(), source }
}

/// Under its name with its first line, or not at all.
fn create(path: &Path, header: &Header) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".glance-rbd-").tempfile_in(directory)?;
    let line = serde_json::to_string(header).expect("a header is plain data") + "\n";
    file.write_all(line.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

fn read(path: &Path, text: &[u8]) -> Result<(Header, BTreeMap<u64, Record>), JournalError> {
    let mut lines = text.split_inclusive(|&byte| byte == b'\n').enumerate();
    let header = lines.next().and_then(|(_, line)| serde_json::from_slice(line).ok());
    let header: Header = header.ok_or_else(|| JournalError::NotAJournal(path.to_owned()))?;
    let damaged = |line: usize, why: String| JournalError::Damaged { path: path.to_owned(), line: line + 1, why };
    if header.journal != VERSION {
        return Err(damaged(0, format!("its version is {}; this program knows {VERSION}", header.journal)));
    }
    let mut records = BTreeMap::new();
    for (number, line) in lines {
        let entry: Entry = serde_json::from_slice(line).map_err(|error| damaged(number, error.to_string()))?;
        let n = entry.n;
        if !apply(&mut records, entry) {
            return Err(damaged(number, format!("step {n} ends without having begun")));
        }
    }
    Ok((header, records))
}

/// Whether the entry could follow on what was there.
fn apply(records: &mut BTreeMap<u64, Record>, entry: Entry) -> bool {
    match (entry.event, records.get_mut(&entry.n)) {
        (Event::Intent(target), None) => {
            let record =
                Record { target: target.clone(), begun: entry.at, last: Event::Intent(target), trashed_at: None };
            records.insert(entry.n, record);
            true
        }
        (Event::Intent(target), Some(record)) if target != record.target => false,
        // A step that was left alone before anything was done to it has no intent.
        (Event::Skipped { .. }, None) => true,
        (_, None) => false,
        (event, Some(record)) => {
            if let Event::Done { trashed_at, .. } = &event {
                record.trashed_at = *trashed_at;
            }
            record.last = event;
            true
        }
    }
}
