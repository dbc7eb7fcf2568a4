//! What the tests need: the program, a pool of its own for each, a database, a Glance, data.

mod database;
mod glance;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

pub(crate) use self::{
    database::GlanceDatabase,
    glance::{Glance, Trickle},
};

pub(crate) const MIB: usize = 1 << 20;

/// A file of this repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A command that must succeed; its standard output. One that a signal has ended is run once more: Ceph's own tools crash now
/// and then, as where the monitors' configuration comes while they open an image (16.2.15).
pub(crate) fn sh(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> String {
    let run = || {
        let output = Command::new(&program).args(arguments).stdin(Stdio::null()).output();
        output.unwrap_or_else(|error| panic!("{}: {error}", program.as_ref().display()))
    };
    let first = run();
    let output = if first.status.code().is_some() { first } else { run() };
    assert!(
        output.status.success(),
        "{} {arguments:?}: {}\n{}",
        program.as_ref().display(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Whether somebody has an image open for writing; `None` while it cannot be told, as of one that is being created.
pub(crate) fn is_open(image: &str) -> Option<bool> {
    let output = Command::new("rbd").args(["--id", "glance", "status", image]).stdin(Stdio::null()).output().unwrap();
    let status = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| status.contains("watcher="))
}

/// `rbd`, as Glance's user.
pub(crate) fn rbd(arguments: &[&str]) -> String {
    sh("rbd", &[&["--id", "glance"], arguments].concat())
}

/// Runs SQL on an SQLite database; what it prints.
pub(crate) fn sqlite(path: &str, sql: &str) -> String {
    // Not an option, though it begin with a comment.
    sh("sqlite3", &["-cmd", ".timeout 5000", path, &format!("\n{sql}")])
}

/// What the program printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless it ended well.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", String::from_utf8_lossy(&self.stdout), self.stderr);
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The program, not yet run.
pub(crate) fn program() -> Command {
    assert!(std::env::var_os("CEPH_CONF").is_some(), "no CEPH_CONF: run `make test`, or `docker/ceph-demo up` first");
    let mut command = Command::new(env!("CARGO_BIN_EXE_glance-rbd"));
    command.stdin(Stdio::null());
    command
}

pub(crate) fn run(arguments: &[&str]) -> Ran {
    program().args(arguments).output().unwrap().into()
}

/// Runs it with bytes on standard input.
pub(crate) fn run_with_input(arguments: &[&str], input: &[u8]) -> Ran {
    let mut child =
        program().args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // It may stop reading early, and rightly.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap().into()
    })
}

/// A pool for one test, removed with all that is in it.
pub(crate) struct TestPool(pub(crate) String);

impl TestPool {
    pub(crate) fn new() -> Self {
        let name = format!("test-{}", &uuid()[..8]);
        sh("ceph", &["osd", "pool", "create", &name, "8"]);
        sh("rbd", &["pool", "init", &name]);
        Self(name)
    }

    /// Stores data under an id; the location.
    pub(crate) fn put(&self, id: &str, data: &[u8]) -> Value {
        let arguments = ["image", "put", "-", "--id", id, "--pool", &self.0, "--user", "glance", "--format", "json"];
        run_with_input(&arguments, data).ok().json()
    }

    /// Begins an upload from a pipe.
    pub(crate) fn begin_put(&self, id: &str) -> Child {
        let mut put = program();
        put.args(["image", "put", "-", "--id", id, "--pool", &self.0, "--user", "glance"]);
        put.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Scans without a grace, as the read-only user.
    pub(crate) fn scan(&self, database: &str) -> Ran {
        let arguments = ["--pool", &self.0, "--user", "scan", "--grace", "0", "--format", "json"];
        run(&[&["scan", "--database", database], arguments.as_slice()].concat())
    }

    /// Overwrites a field of an image's header.
    pub(crate) fn set_header(&self, name: &str, key: &str, value: &str) {
        let info: Value =
            serde_json::from_str(&rbd(&["info", "--format", "json", &format!("{}/{name}", self.0)])).unwrap();
        let header = format!("rbd_header.{}", info["id"].as_str().unwrap());
        sh("rados", &["-p", &self.0, "setomapval", &header, key, value]);
    }

    /// The names of its images.
    pub(crate) fn images(&self) -> Vec<String> {
        rbd(&["ls", &self.0]).lines().map(str::to_owned).collect()
    }
}

impl Drop for TestPool {
    fn drop(&mut self) {
        sh("ceph", &["osd", "pool", "rm", &self.0, &self.0, "--yes-i-really-really-mean-it"]);
    }
}

/// An SQLite database of Glance's schema.
pub(crate) struct TestDatabase {
    directory: tempfile::TempDir,
}

impl TestDatabase {
    pub(crate) fn new() -> Self {
        let database = Self { directory: tempfile::tempdir().unwrap() };
        database.sql(&std::fs::read_to_string(repository("docker/glance-schema.sql")).unwrap());
        database
    }

    fn path(&self) -> String {
        self.directory.path().join("glance.sqlite").display().to_string()
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite:///{}", self.path())
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        sqlite(&self.path(), sql)
    }

    /// A row of `images`, as it is before there is data.
    pub(crate) fn row(&self, id: &str, status: &str) {
        self.sql(&format!(
            "INSERT INTO images (id, status, created_at, updated_at, deleted, min_disk, min_ram)
             VALUES ('{id}', '{status}', datetime(), datetime(), {}, 0, 0)",
            u8::from(status == "deleted")
        ));
    }

    /// A row and the location of what `put` stored.
    pub(crate) fn active(&self, id: &str, put: &Value) {
        self.row(id, "active");
        let text = |field: &str| put[field].as_str().unwrap();
        self.sql(&format!(
            "UPDATE images SET size = {}, checksum = '{}', os_hash_algo = 'sha512', os_hash_value = '{}' WHERE id = '{id}'",
            put["bytes"],
            text("checksum"),
            text("os_hash_value")
        ));
        self.location(id, text("location"));
    }

    pub(crate) fn location(&self, id: &str, location: &str) {
        self.sql(&format!(
            "INSERT INTO image_locations (image_id, value, created_at, deleted, meta_data, status)
             VALUES ('{id}', '{location}', datetime(), 0, '{{}}', 'active')"
        ));
    }
}

pub(crate) fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Bytes without pattern, the same for the same seed (xorshift).
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = vec![0; length.next_multiple_of(8)];
    for word in bytes.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The kinds of a scan's findings with how many there are, worst first.
pub(crate) fn kinds(scan: &Value) -> Vec<(String, u64)> {
    let mut kinds: Vec<(String, u64)> = Vec::new();
    for finding in scan["findings"].as_array().unwrap() {
        let kind = finding["kind"].as_str().unwrap();
        match kinds.last_mut() {
            Some((last, count)) if last == kind => *count += 1,
            _ => kinds.push((kind.to_owned(), 1)),
        }
    }
    kinds
}

/// Waits patiently for what must come.
pub(crate) fn until(what: &str, seconds: u64, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(seconds), "still not: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
