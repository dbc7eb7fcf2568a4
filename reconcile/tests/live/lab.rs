//! A namespace of its own for each test, in the pools `images` and `vms`, with a database; all of it removed at the end.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use jiff::Timestamp;
use rbd::{Cluster, ConnectOptions};
use reconcile::{Finding, Kind, Policy, Scan, ScanOptions, Sources};

/// A command that must succeed; its standard output.
pub(crate) fn sh(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{error}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

pub(crate) struct Lab {
    pub(crate) namespace: String,
    directory: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        assert!(
            std::env::var_os("CEPH_CONF").is_some(),
            "no CEPH_CONF: run `make test`, or `docker/ceph-demo up` first"
        );
        let namespace = format!("scan-{}", &uuid()[..8]);
        for pool in ["images", "vms"] {
            sh("rbd", &["namespace", "create", &format!("{pool}/{namespace}")]);
        }
        let lab = Self { namespace, directory: tempfile::tempdir().unwrap() };
        let schema = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docker/glance-schema.sql");
        lab.sql(&std::fs::read_to_string(schema).unwrap());
        lab
    }

    /// `images/NAMESPACE/name`.
    pub(crate) fn at(&self, name: &str) -> String {
        format!("images/{}/{name}", self.namespace)
    }

    /// `vms/NAMESPACE/name`.
    pub(crate) fn vm(&self, name: &str) -> String {
        format!("vms/{}/{name}", self.namespace)
    }

    /// `rados`, in the namespace of `images`.
    pub(crate) fn rados(&self, arguments: &[&str]) -> String {
        sh("rados", &[&["-p", "images", "-N", &self.namespace], arguments].concat())
    }

    /// Creates an image of 16 MiB in objects of 1 MiB.
    pub(crate) fn create(&self, name: &str, options: &[&str]) {
        sh("rbd", &[&["create", &self.at(name), "--size", "16M", "--object-size", "1M"], options].concat());
    }

    /// Writes `length` bytes at `offset`, both in MiB.
    pub(crate) fn write(&self, image: &str, offset: u32, length: u32) {
        let image = self.at(image);
        let mut diff = b"rbd diff v1\n".to_vec();
        let (start, length) = (u64::from(offset) << 20, u64::from(length) << 20);
        diff.push(b'w');
        diff.extend(start.to_le_bytes());
        diff.extend(length.to_le_bytes());
        diff.resize(diff.len() + usize::try_from(length).unwrap(), 0xa5);
        diff.push(b'e');
        let file = self.directory.path().join("diff");
        std::fs::write(&file, diff).unwrap();
        sh("rbd", &["import-diff", "--no-progress", file.to_str().unwrap(), &image]);
    }

    pub(crate) fn snapshot(&self, image: &str, name: &str) {
        let snapshot = format!("{}@{name}", self.at(image));
        sh("rbd", &["snap", "create", "--no-progress", &snapshot]);
        sh("rbd", &["snap", "protect", &snapshot]);
    }

    pub(crate) fn id_of(&self, name: &str) -> String {
        let info: serde_json::Value =
            serde_json::from_str(&sh("rbd", &["info", "--format", "json", &self.at(name)])).unwrap();
        info["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn sql(&self, sql: &str) {
        let path = self.directory.path().join("glance.sqlite").display().to_string();
        sh("sqlite3", &["-cmd", ".timeout 5000", &path, &format!("\n{sql}")]);
    }

    /// A row of `images`.
    pub(crate) fn row(&self, id: &str, status: &str) {
        let deleted = u8::from(status == "deleted");
        self.sql(&format!(
            "INSERT INTO images (id, status, created_at, updated_at, deleted, min_disk, min_ram)
             VALUES ('{id}', '{status}', datetime(), datetime(), {deleted}, 0, 0)"
        ));
    }

    /// A row and its location.
    pub(crate) fn active(&self, fsid: &str, id: &str) {
        self.row(id, "active");
        self.sql(&format!(
            "INSERT INTO image_locations (image_id, value, created_at, deleted, meta_data, status)
             VALUES ('{id}', 'rbd://{fsid}/images%2F{}/{id}/snap', datetime(), 0, '{{}}', 'active')",
            self.namespace
        ));
    }

    /// The namespace of `images` and the database, as a user, or as the administrator.
    pub(crate) async fn sources(&self, user: Option<&str>) -> Sources {
        let keyring = self.directory.path().join("keyring").display().to_string();
        let settings =
            user.map(|_| ("keyring".to_owned(), keyring)).filter(|(_, path)| std::path::Path::new(path).exists());
        let cluster = Cluster::connect(ConnectOptions {
            user: user.map(str::to_owned),
            timeout: Some(Duration::from_secs(60)),
            settings: settings.into_iter().collect(),
            ..ConnectOptions::default()
        });
        let pool = cluster.await.unwrap().pool("images").await.unwrap();
        let url = format!("sqlite:///{}", self.directory.path().join("glance.sqlite").display());
        Sources {
            pools: vec![pool.in_namespace(&self.namespace).await.unwrap()],
            databases: vec![url.parse().unwrap()],
        }
    }

    /// Scans without a grace, with usage, and compares every image with librbd.
    pub(crate) async fn scan(&self, user: Option<&str>) -> Scan {
        let policy = Policy { grace: Duration::ZERO, allow_stale: true, ..Policy::default() };
        let options = ScanOptions { policy, usage: true, verify_sample: 100 };
        reconcile::scan(&self.sources(user).await, &options, Timestamp::now(), &|_, _, _| {}).await.unwrap()
    }

    /// A user of this test's own; its name.
    pub(crate) fn user(&self, osd_caps: &str) -> String {
        let user = self.namespace.clone();
        let name = format!("client.{user}");
        let keyring = sh("ceph", &["auth", "get-or-create", &name, "mon", "profile rbd-read-only", "osd", osd_caps]);
        std::fs::write(self.directory.path().join("keyring"), keyring).unwrap();
        user
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // What is left in the namespaces goes with the cluster.
        let user = format!("client.{}", self.namespace);
        let _ = Command::new("ceph").args(["auth", "del", &user]).output();
    }
}

/// Runs a test that waits for things.
pub(crate) fn wait<F: Future<Output = ()>>(test: F) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(async {
        test.await;
        rbd::settled().await;
    });
}

/// The only finding of a kind about an image.
pub(crate) fn the<'a>(scan: &'a Scan, kind: Kind, image: &str) -> &'a Finding {
    let mut all =
        scan.findings.iter().filter(|finding| finding.kind == kind && finding.image.as_deref() == Some(image));
    let found = all.next().unwrap_or_else(|| panic!("no {kind} about {image} in {scan:#?}"));
    assert!(all.next().is_none(), "more than one {kind} about {image} in {scan:#?}");
    found
}
