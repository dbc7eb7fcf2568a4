//! The example server, driven by python-glanceclient and curl as a Glance would be.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

const MIB: usize = 1 << 20;

/// The server, in an RBD namespace of its own; stopped and emptied with the test.
struct Server {
    process: Child,
    url: String,
    directory: PathBuf,
    pool: String,
}

/// A command that must succeed; its standard output.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

impl Server {
    fn start() -> Self {
        let ceph = std::env::var("CEPH_CONF").expect("no CEPH_CONF: run `make test`, or `docker/ceph-demo up` first");
        let namespace = format!("server-{}", uuid::Uuid::new_v4());
        let pool = format!("images/{namespace}");
        run("rbd", &["namespace", "create", &pool]);
        let directory = std::env::temp_dir().join(&namespace);
        std::fs::create_dir(&directory).unwrap();
        let conf = format!(
            "[DEFAULT]\nenabled_backends = fast:rbd\n[glance_store]\ndefault_backend = fast\n[fast]\n\
             rbd_store_pool = {pool}\nrbd_store_user = glance\nrbd_store_ceph_conf = {ceph}\nrbd_store_chunk_size = 1\n"
        );
        std::fs::write(directory.join("glance-api.conf"), conf).unwrap();
        // Beside the tests: `cargo test` builds examples too, unless it was told which test to build.
        let tests = std::env::current_exe().unwrap();
        let program = tests.parent().unwrap().with_file_name("examples").join("server");
        assert!(program.exists(), "no {}: cargo build -p glance-rbd-store --example server", program.display());
        let mut process = Command::new(program)
            .args([directory.join("glance-api.conf"), directory.join("glance.sqlite")])
            .arg("127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim_end().strip_prefix("listening on ").expect("where it listens").to_owned();
        Self { process, url, directory, pool }
    }

    /// `curl`, on a path of the server; what it printed.
    fn curl(&self, path: &str, arguments: &[&str]) -> String {
        run("curl", &[&["-sS", &format!("{}/v2/images{path}", self.url)], arguments].concat())
    }

    fn status(&self, path: &str, arguments: &[&str]) -> String {
        self.curl(path, &[&["-o", "/dev/null", "-w", "%{http_code}"], arguments].concat())
    }

    fn create(&self) -> String {
        let created = self.curl("", &["-d", r#"{"name": "a", "disk_format": "raw", "container_format": "bare"}"#]);
        let created: Value = serde_json::from_str(&created).unwrap();
        assert_eq!((&created["status"], &created["size"]), (&json!("queued"), &json!(null)));
        created["id"].as_str().unwrap().to_owned()
    }

    fn show(&self, id: &str) -> Value {
        serde_json::from_str(&self.curl(&format!("/{id}"), &[])).unwrap()
    }

    fn file(&self, name: &str, data: &[u8]) -> String {
        let path = self.directory.join(name);
        std::fs::write(&path, data).unwrap();
        path.display().to_string()
    }

    fn upload(&self, id: &str, file: &str, arguments: &[&str]) -> String {
        let upload = ["-T", file, "-H", "Content-Type: application/octet-stream"];
        self.status(&format!("/{id}/file"), &[&upload, arguments].concat())
    }

    fn stored(&self) -> String {
        run("rbd", &["ls", &self.pool]) + &run("rbd", &["trash", "ls", &self.pool])
    }

    /// Waits until an image is in some state, and whatever an upload left has been removed.
    fn settles(&self, id: &str, status: &str) {
        let began = Instant::now();
        while self.show(id)["status"] != status || !self.stored().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(120), "{} {}", self.show(id), self.stored());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        run("kill", &[&self.process.id().to_string()]);
        let ended = self.process.wait();
        if std::thread::panicking() {
            return;
        }
        assert!(ended.unwrap().success(), "it ends when told to");
        std::fs::remove_dir_all(&self.directory).unwrap();
        run("rbd", &["namespace", "rm", &self.pool]);
    }
}

#[test]
fn an_image_lives_and_dies_as_in_glance() {
    let server = Server::start();
    let id = server.create();
    assert_eq!(server.status(&format!("/{id}/file"), &[]), "204", "no data yet");
    let data = noise(3 * MIB + 77);
    let file = server.file("data", &data);
    assert_eq!(server.status(&format!("/{id}/file"), &["-T", &file]), "415");
    assert_eq!(server.upload(&id, &file, &[]), "204");
    let image = server.show(&id);
    let md5 = run("md5sum", &[&file])[..32].to_owned();
    assert_eq!(
        (&image["status"], &image["size"], &image["checksum"]),
        (&json!("active"), &json!(data.len()), &json!(md5))
    );
    assert_eq!(image["os_hash_value"], run("sha512sum", &[&file])[..128]);
    assert_eq!(server.upload(&id, &file, &[]), "409", "it has data");

    let got = server.directory.join("got").display().to_string();
    let headers = server.curl(&format!("/{id}/file"), &["-o", &got, "-D", "-"]).to_lowercase();
    assert!(std::fs::read(&got).unwrap() == data);
    assert!(
        headers.contains(&format!("content-md5: {md5}")) && headers.contains("content-length: 3145805"),
        "{headers}"
    );

    assert_eq!(server.status(&format!("/{id}"), &["-X", "DELETE"]), "204");
    assert_eq!(server.status(&format!("/{id}"), &[]), "404");
    assert_eq!(server.stored(), "");
}

#[test]
fn ranges_are_served() {
    let server = Server::start();
    let (id, data) = (server.create(), noise(2 * MIB));
    let size = data.len();
    // Of unknown length: chunked.
    let upload = format!(
        "cat {} | curl -sS -T - -H 'Content-Type: application/octet-stream' {}/v2/images/{id}/file",
        server.file("data", &data),
        server.url
    );
    run("sh", &["-c", &upload]);
    let got = server.directory.join("got").display().to_string();
    let all = [
        ("0-0", 0..1),
        ("1048570-1048580", 1_048_570..1_048_581),
        ("2097000-", 2_097_000..size),
        ("-100", size - 100..size),
        ("5-99999999", 5..size),
    ];
    for (range, expected) in all {
        let headers = server.curl(&format!("/{id}/file"), &["-o", &got, "-D", "-", "-r", range]).to_lowercase();
        assert!(std::fs::read(&got).unwrap() == data[expected.clone()], "{range}");
        let content_range = format!("content-range: bytes {}-{}/{size}", expected.start, expected.end - 1);
        assert!(headers.starts_with("http/1.1 206") && headers.contains(&content_range), "{headers}");
        assert!(!headers.contains("content-md5"), "of the whole image, which this is not");
    }
    let headers = server.curl(&format!("/{id}/file"), &["-D", "-", "-r", "2097152-"]).to_lowercase();
    assert!(headers.starts_with("http/1.1 416") && headers.contains("content-range: bytes */2097152"), "{headers}");
    assert_eq!(server.status(&format!("/{id}/file"), &["-H", "Range: lines=1-2"]), "200");
    assert_eq!(server.status(&format!("/{id}"), &["-X", "DELETE"]), "204");
}

/// A Glance that loses its client may leave a partial image; one whose data was short must refuse it.
#[test]
fn a_client_that_vanishes_leaves_nothing() {
    let server = Server::start();
    let id = server.create();
    let address = server.url.strip_prefix("http://").unwrap();
    for sent in [0, 100, 5 * MIB] {
        let mut client = TcpStream::connect(address).unwrap();
        write!(client, "PUT /v2/images/{id}/file HTTP/1.1\r\nHost: {address}\r\nContent-Length: 99999999\r\n").unwrap();
        write!(client, "Content-Type: application/octet-stream\r\n\r\n").unwrap();
        client.write_all(&noise(sent)).unwrap();
        let began = Instant::now();
        while server.show(&id)["status"] != "saving" {
            assert!(began.elapsed() < Duration::from_secs(60));
        }
        drop(client);
        server.settles(&id, "queued");
    }
    let file = server.file("data", &noise(MIB));
    assert_eq!(server.upload(&id, &file, &["-H", "x-openstack-image-size: 1048577"]), "400", "a byte is missing");
    server.settles(&id, "queued");
    assert_eq!(server.upload(&id, &file, &[]), "204", "and the same id can be tried again");

    // And one that vanishes in a download leaves an image that can be deleted.
    let mut client = TcpStream::connect(address).unwrap();
    write!(client, "GET /v2/images/{id}/file HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    client.read_exact(&mut [0; 1000]).unwrap();
    drop(client);
    assert_eq!(server.status(&format!("/{id}"), &["-X", "DELETE"]), "204");
    assert_eq!(server.stored(), "");
}

/// An image deleted in mid-upload: Glance may leave its data in the pool for ever.
#[test]
fn an_upload_whose_image_is_deleted_leaves_nothing() {
    let server = Server::start();
    let id = server.create();
    let address = server.url.strip_prefix("http://").unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    write!(client, "PUT /v2/images/{id}/file HTTP/1.1\r\nHost: {address}\r\nContent-Length: {MIB}\r\n").unwrap();
    write!(client, "Content-Type: application/octet-stream\r\n\r\n").unwrap();
    let began = Instant::now();
    while server.show(&id)["status"] != "saving" {
        assert!(began.elapsed() < Duration::from_secs(60));
    }
    assert_eq!(server.status(&format!("/{id}"), &["-X", "DELETE"]), "204");
    client.write_all(&noise(MIB)).unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 410");
    assert_eq!(server.stored(), "");
}

/// OpenStack's own client, which checks what it downloads against the multihash.
#[test]
fn python_glanceclient_finds_a_glance() {
    let server = Server::start();
    let venv = std::env::var("GLANCE_LAB_VENV")
        .map_or_else(|_| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/glance-venv")), PathBuf::from);
    let python = venv.join("bin/python");
    assert!(python.exists(), "no {}: run `tests/glance-lab venv`", python.display());
    let script = "
import io, os, sys
import glanceclient
glance = glanceclient.Client('2', sys.argv[1], token='none')
data = os.urandom(3 << 20)
image = glance.images.create(name='by the client', disk_format='raw', container_format='bare')
assert image.status == 'queued'
glance.images.upload(image.id, io.BytesIO(data), image_size=len(data))
image = glance.images.get(image.id)
assert (image.status, image.size, image.name) == ('active', len(data), 'by the client'), image
assert b''.join(glance.images.data(image.id)) == data
glance.images.delete(image.id)
try:
    glance.images.get(image.id)
except glanceclient.exc.HTTPNotFound:
    print('all well')
";
    let output = run(&python.display().to_string(), &["-W", "ignore", "-c", script, &server.url]);
    assert_eq!(output, "all well\n");
    assert_eq!(server.stored(), "");
}
