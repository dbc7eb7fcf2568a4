//! A pool, a database that knows what is in it, and plans for both.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::lab::{Ran, TestDatabase, TestPool, noise, program, rbd, run, sh, uuid};

pub(crate) struct Cloud {
    pub(crate) pool: TestPool,
    pub(crate) database: TestDatabase,
    directory: tempfile::TempDir,
}

impl Cloud {
    /// With one image that all is well with.
    pub(crate) fn new() -> Self {
        let cloud =
            Self { pool: TestPool::new(), database: TestDatabase::new(), directory: tempfile::tempdir().unwrap() };
        cloud.healthy(0);
        cloud
    }

    /// An image that Glance knows.
    pub(crate) fn healthy(&self, seed: u64) -> String {
        let id = uuid();
        self.database.active(&id, &self.pool.put(&id, &noise(seed, 50_000)));
        id
    }

    /// An image whose row is deleted, and that no location names.
    pub(crate) fn garbage(&self, seed: u64) -> String {
        let id = uuid();
        self.pool.put(&id, &noise(seed, 50_000));
        self.database.row(&id, "deleted");
        id
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `rbd POOL/IMAGE`.
    pub(crate) fn path(&self, image: &str) -> String {
        format!("{}/{image}", self.pool.0)
    }

    /// Options that name the pool and the database.
    fn sources(&self) -> Vec<String> {
        ["--database", &self.database.url(), "--pool", &self.pool.0].map(str::to_owned).to_vec()
    }

    /// Plans for all there is, without a grace; the file.
    pub(crate) fn plan(&self, options: &[&str]) -> PathBuf {
        let file = self.file(&format!("plan-{}.json", &uuid()[..8]));
        let name = file.display().to_string();
        let base = ["--user", "scan", "--grace", "0", "--allow", "unseen", "--max-images", "1000"];
        let limits = ["--max-percent", "100", "-o", &name];
        let sources = self.sources();
        let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
        run(&[["plan"].as_slice(), &sources, &base, &limits, options].concat()).ok();
        file
    }

    /// `apply`, not yet run.
    pub(crate) fn applying(&self, plan: &Path, options: &[&str]) -> Command {
        let mut command = program();
        command.arg("apply").arg(plan).args(self.sources()).args(["--user", "glance", "--format", "json"]);
        command.args(options).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Applies a plan, and really.
    pub(crate) fn apply(&self, plan: &Path) -> Ran {
        self.applying(plan, &["--yes"]).output().unwrap().into()
    }

    /// Undoes what a plan did.
    pub(crate) fn undo(&self, plan: &Path) -> Ran {
        run(&["undo", &journal_of(plan), "--user", "glance", "--yes", "--format", "json"])
    }

    /// `trash purge`, as JSON.
    pub(crate) fn purge(&self, options: &[&str]) -> Ran {
        let sources = self.sources();
        let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
        run(&[["trash", "purge", "--user", "glance", "--format", "json"].as_slice(), &sources, options].concat())
    }

    /// The id of an image in its place.
    pub(crate) fn id(&self, image: &str) -> String {
        let info: Value = serde_json::from_str(&rbd(&["info", "--format", "json", &self.path(image)])).unwrap();
        info["id"].as_str().unwrap().to_owned()
    }

    /// Ids and names of what is in the trash, by name.
    pub(crate) fn trash(&self) -> Vec<(String, String)> {
        let list: Value = serde_json::from_str(&rbd(&["trash", "ls", "-a", "--format", "json", &self.pool.0])).unwrap();
        let text = |entry: &Value, field: &str| entry[field].as_str().unwrap().to_owned();
        let entries = list.as_array().unwrap().iter();
        let mut all: Vec<_> = entries.map(|entry| (text(entry, "name"), text(entry, "id"))).collect();
        all.sort();
        all
    }

    /// All images in their place: name, id, snapshots with their protection, and a digest of the data, by name.
    pub(crate) fn images(&self) -> Vec<(String, String, String, String)> {
        let mut all: Vec<_> = self
            .pool
            .images()
            .into_iter()
            .map(|name| {
                let path = self.path(&name);
                let snapshots = rbd(&["snap", "ls", "--format", "json", &path]);
                let snapshots: Value = serde_json::from_str(&snapshots).unwrap();
                let snapshots = snapshots.as_array().unwrap().iter();
                let snapshots: Vec<_> =
                    snapshots.map(|s| format!("{} {} {}", s["name"], s["size"], s["protected"])).collect();
                let digest = sh("sh", &["-c", &format!("rbd --id glance export --no-progress {path} - | sha256sum")]);
                (name.clone(), self.id(&name), snapshots.join(","), digest)
            })
            .collect();
        all.sort();
        all
    }
}

/// The journal that a plan has by default.
pub(crate) fn journal_of(plan: &Path) -> String {
    format!("{}.journal", plan.display())
}

/// The result of each step: `result`, or `result: why`.
pub(crate) fn results(applied: &Value) -> Vec<String> {
    let steps = applied["steps"].as_array().unwrap().iter();
    steps
        .map(|step| match step["why"].as_str() {
            Some(why) => format!("{}: {why}", step["result"].as_str().unwrap()),
            None => step["result"].as_str().unwrap().to_owned(),
        })
        .collect()
}

/// An `apply` that is held after it wrote down what it is about to do, until this is let go.
pub(crate) struct Held {
    child: Child,
    hold: PathBuf,
}

impl Held {
    /// Starts it, and waits until it has written so many intents.
    pub(crate) fn start(cloud: &Cloud, plan: &Path) -> Self {
        let hold = cloud.file(&format!("hold-{}", &uuid()[..8]));
        std::fs::write(&hold, "").unwrap();
        let child = cloud.applying(plan, &["--yes"]).env("GLANCE_RBD_TEST_HOLD", &hold).spawn().unwrap();
        let mut held = Self { child, hold };
        let journal = journal_of(plan);
        wait_for(|| {
            assert!(held.child.try_wait().unwrap().is_none(), "it ended before it began");
            std::fs::read_to_string(&journal).is_ok_and(|text| text.contains("\"intent\""))
        });
        held
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it go, and waits for its end.
    pub(crate) fn go(self) -> Ran {
        std::fs::remove_file(&self.hold).unwrap();
        self.child.wait_with_output().unwrap().into()
    }

    /// Kills it where it is.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Waits, patiently.
pub(crate) fn wait_for(mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(180), "in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}
