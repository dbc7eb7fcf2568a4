//! A stock Glance, from PyPI, and what its clients do.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::{MIB, Ran, TestPool, noise, repository, sh, until};

/// A stock Glance of its own, from PyPI, on a pool; taken down with the test.
pub(crate) struct Glance {
    directory: tempfile::TempDir,
    pub(crate) url: String,
    pub(crate) database: String,
    /// Its glance-api.conf.
    pub(crate) conf: String,
}

impl Glance {
    /// On SQLite, with objects of 1 MiB.
    pub(crate) fn up(pool: &TestPool) -> Self {
        Self::up_with(pool, None, &[])
    }

    /// On an empty database, with settings of its own: `SECTION.OPTION=VALUE`.
    pub(crate) fn up_with(pool: &TestPool, database: Option<&str>, settings: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("glance-").tempdir().unwrap();
        let mut glance = Self { directory, url: String::new(), database: String::new(), conf: String::new() };
        let mut options = vec!["--pool", &pool.0];
        options.extend(database.iter().flat_map(|url| ["--database", url]));
        options.extend(["--set", "ceph.rbd_store_chunk_size=1"]);
        options.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        glance.start(&options);
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
        self.conf = value("GLANCE_CONF");
    }

    /// Kills every process of it at once, and starts it again.
    pub(crate) fn crash(&self) {
        self.restart(&[]);
    }

    /// Kills every process of it at once.
    pub(crate) fn kill(&self) {
        self.lab("kill", &[]);
    }

    /// Starts it again with other settings, at the same port.
    pub(crate) fn restart(&self, settings: &[&str]) {
        self.kill();
        let options: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        self.lab("up", &options);
    }

    /// `glance-manage`, or another of its own tools.
    pub(crate) fn tool(&self, name: &str, arguments: &[&str]) -> Ran {
        let venv = std::env::var_os("GLANCE_LAB_VENV").map_or_else(|| repository("target/glance-venv"), Into::into);
        let mut tool = Command::new(venv.join("bin").join(name));
        tool.args(["--config-file", &self.conf]).args(arguments).output().unwrap().into()
    }

    /// Takes a delayed deletion back.
    pub(crate) fn restore(&self, id: &str) {
        // It refuses while another of its kind runs anywhere on the machine, as other tests' do.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        until("the scrubber to restore it", 300, || self.tool("glance-scrubber", &["--restore", id]).code == 0);
    }

    fn post(&self, path: &str, body: &Value) -> Result<(), ureq::Error> {
        ureq::post(format!("{}/v2/images/{path}", self.url)).send_json(body).map(drop)
    }

    /// Registers an image without data; its id.
    pub(crate) fn create(&self) -> String {
        self.try_create().unwrap()
    }

    /// As [`Self::create`], for when it may be down.
    pub(crate) fn try_create(&self) -> Result<String, ureq::Error> {
        let body = json!({ "name": "test", "disk_format": "raw", "container_format": "bare" });
        let mut response = ureq::post(format!("{}/v2/images", self.url)).send_json(body)?;
        Ok(response.body_mut().read_json::<Value>()?["id"].as_str().unwrap().to_owned())
    }

    pub(crate) fn upload(&self, id: &str, data: impl Read) -> Result<(), ureq::Error> {
        let request = ureq::put(format!("{}/v2/images/{id}/file", self.url));
        let mut data = data;
        let body = ureq::SendBody::from_reader(&mut data);
        request.header("Content-Type", "application/octet-stream").send(body).map(drop)
    }

    /// An image with data; its id.
    pub(crate) fn active(&self, data: &[u8]) -> String {
        let id = self.create();
        self.upload(&id, data).unwrap();
        assert_eq!(self.show(&id)["status"], "active");
        id
    }

    /// Puts data where an import finds it.
    pub(crate) fn stage(&self, id: &str, data: &[u8]) {
        let request = ureq::put(format!("{}/v2/images/{id}/stage", self.url));
        request.header("Content-Type", "application/octet-stream").send(data).unwrap();
    }

    /// Begins an import: `glance-direct`, `copy-image`.
    pub(crate) fn import(&self, id: &str, method: &str, stores: &[&str]) {
        let body = json!({ "method": { "name": method }, "stores": stores, "all_stores_must_succeed": false });
        self.post(&format!("{id}/import"), &body).unwrap();
    }

    pub(crate) fn deactivate(&self, id: &str) {
        ureq::post(format!("{}/v2/images/{id}/actions/deactivate", self.url)).send_empty().unwrap();
    }

    /// A client that promises more than it sends, and is gone.
    pub(crate) fn vanish(&self, id: &str) {
        let host = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).unwrap();
        write!(
            stream,
            "PUT /v2/images/{id}/file HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/octet-stream\r\n\
             Content-Length: {}\r\n\r\n",
            4 * MIB
        )
        .unwrap();
        stream.write_all(&noise(9, 2 * MIB)).unwrap();
    }

    pub(crate) fn show(&self, id: &str) -> Value {
        let mut response = ureq::get(format!("{}/v2/images/{id}", self.url)).call().unwrap();
        response.body_mut().read_json().unwrap()
    }

    pub(crate) fn delete(&self, id: &str) {
        self.try_delete(id).unwrap();
    }

    /// Deletes an image, or is refused.
    pub(crate) fn try_delete(&self, id: &str) -> Result<(), ureq::Error> {
        ureq::delete(format!("{}/v2/images/{id}", self.url)).call().map(drop)
    }
}

impl Drop for Glance {
    fn drop(&mut self) {
        self.lab("down", &[]);
    }
}

/// A source that gives a little every hundredth of a second until it is told to stop, or for two minutes.
pub(crate) struct Trickle {
    stop: Arc<AtomicBool>,
    data: Vec<u8>,
    left: u32,
}

impl Trickle {
    pub(crate) fn new(seed: u64) -> (Self, Arc<AtomicBool>) {
        let stop = Arc::new(AtomicBool::new(false));
        (Self { stop: stop.clone(), data: noise(seed, MIB / 64), left: 12_000 }, stop)
    }
}

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) || self.left == 0 {
            return Ok(0);
        }
        self.left -= 1;
        thread::sleep(Duration::from_millis(10));
        let length = buffer.len().min(self.data.len());
        buffer[..length].copy_from_slice(&self.data[..length]);
        Ok(length)
    }
}
