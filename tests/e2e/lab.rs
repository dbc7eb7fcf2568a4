//! What the tests need: the program, a pool of its own for each, a database, a Glance, data.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

pub(crate) const MIB: usize = 1 << 20;

/// A file of this repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A command that must succeed; its standard output.
pub(crate) fn sh(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> String {
    let output = Command::new(&program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.as_ref().display()));
    assert!(
        output.status.success(),
        "{} {arguments:?}: {}\n{}",
        program.as_ref().display(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
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

/// A stock Glance of its own, from PyPI, on a pool; taken down with the test.
pub(crate) struct Glance {
    directory: tempfile::TempDir,
    pub(crate) url: String,
    pub(crate) database: String,
}

impl Glance {
    pub(crate) fn up(pool: &TestPool) -> Self {
        let directory = tempfile::Builder::new().prefix("glance-").tempdir().unwrap();
        let mut glance = Self { directory, url: String::new(), database: String::new() };
        glance.start(&["--pool", &pool.0, "--set", "ceph.rbd_store_chunk_size=1"]);
        glance
    }

    fn lab(&self, command: &str, options: &[&str]) -> String {
        let directory = self.directory.path().join("lab").display().to_string();
        sh(repository("tests/glance-lab"), &[&[command, "--dir", &directory], options].concat())
    }

    fn start(&mut self, options: &[&str]) {
        let exports = self.lab("up", options);
        let value = |name: &str| {
            let line = exports.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
            line.unwrap_or_else(|| panic!("no {name} in {exports}")).trim_matches('\'').to_owned()
        };
        (self.url, self.database) = (value("GLANCE_URL"), value("GLANCE_DATABASE"));
    }

    /// Kills every process of it at once, and starts it again.
    pub(crate) fn crash(&mut self) {
        self.lab("kill", &[]);
        self.start(&[]);
    }

    /// Registers an image without data; its id.
    pub(crate) fn create(&self) -> String {
        let body = serde_json::json!({ "name": "test", "disk_format": "raw", "container_format": "bare" });
        let mut response = ureq::post(format!("{}/v2/images", self.url)).send_json(body).unwrap();
        response.body_mut().read_json::<Value>().unwrap()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn upload(&self, id: &str, data: impl std::io::Read) -> Result<(), ureq::Error> {
        let request = ureq::put(format!("{}/v2/images/{id}/file", self.url));
        let mut data = data;
        let body = ureq::SendBody::from_reader(&mut data);
        request.header("Content-Type", "application/octet-stream").send(body).map(drop)
    }

    pub(crate) fn show(&self, id: &str) -> Value {
        let mut response = ureq::get(format!("{}/v2/images/{id}", self.url)).call().unwrap();
        response.body_mut().read_json().unwrap()
    }

    pub(crate) fn delete(&self, id: &str) {
        ureq::delete(format!("{}/v2/images/{id}", self.url)).call().unwrap();
    }
}

impl Drop for Glance {
    fn drop(&mut self) {
        self.lab("down", &[]);
    }
}
