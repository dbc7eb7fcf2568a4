//! The store from the command line, beside Ceph's own tools and Glance's stock driver.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::lab::{MIB, TestPool, is_open, noise, program, rbd, repository, run, run_with_input, sh, uuid};

const GIB: usize = 1 << 30;

/// Runs Glance's stock driver by itself.
fn stock(pool: &TestPool, arguments: &[&str]) -> Command {
    let venv = std::env::var("GLANCE_LAB_VENV").map_or_else(|_| repository("target/glance-venv"), Into::into);
    let mut command = Command::new(venv.join("bin/python"));
    command.arg(repository("tests/glance/stock-store")).args(arguments).env("STOCK_POOL", &pool.0);
    command
}

fn same(mut a: impl Read, mut b: impl Read) -> bool {
    let (mut x, mut y) = (vec![0; MIB], vec![0; MIB]);
    loop {
        let read = a.read(&mut x).unwrap();
        if read == 0 {
            return b.read(&mut y).unwrap() == 0;
        }
        b.read_exact(&mut y[..read]).unwrap();
        if x[..read] != y[..read] {
            return false;
        }
    }
}

/// What a command writes to its standard output equals a file.
fn prints(mut command: Command, file: &std::path::Path) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    assert!(same(child.stdout.take().unwrap(), std::fs::File::open(file).unwrap()), "{command:?} differs");
    assert!(child.wait().unwrap().success(), "{command:?}");
}

/// A gibibyte goes in once and comes out the same by every way there is.
#[test]
fn a_gibibyte_stored_is_the_same_for_everybody() {
    let pool = TestPool::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image.raw");
    std::fs::write(&file, noise(42, GIB)).unwrap();
    let path = file.to_str().unwrap();

    let id = uuid();
    let arguments = ["image", "put", path, "--id", &id, "--pool", &pool.0, "--user", "glance", "--format", "json"];
    let put = run(&arguments).ok().json();
    assert_eq!(put["bytes"], GIB);
    assert_eq!(put["checksum"], sh("md5sum", &[path]).split(' ').next().unwrap());
    assert_eq!(put["os_hash_value"], sh("sha512sum", &[path]).split(' ').next().unwrap());
    assert_eq!(put["os_hash_algo"], "sha512");

    let location = put["location"].as_str().unwrap();
    let mut get = program();
    get.args(["image", "get", location, "--user", "glance"]);
    prints(get, &file);
    prints(stock(&pool, &["get", location, "-"]), &file);
    let mut export = Command::new("rbd");
    export.args(["--id", "glance", "export", &format!("{}/{id}@snap", pool.0), "-"]);
    prints(export, &file);

    let clone = format!("vms/{}", uuid());
    run(&["image", "clone", location, &clone, "--user", "glance"]).ok();
    let mut export = Command::new("rbd");
    export.args(["--id", "glance", "export", &clone, "-"]);
    prints(export, &file);
    rbd(&["rm", &clone]);
    assert!(stock(&pool, &["delete", location]).stdout(Stdio::null()).status().unwrap().success());
    assert!(pool.images().is_empty(), "the stock driver removes what this store stored");
}

#[test]
fn what_the_stock_driver_stored_is_served_and_removed() {
    let pool = TestPool::new();
    let (id, data) = (uuid(), noise(7, 9 * MIB + 12345));
    let mut child = stock(&pool, &["add", &id, "-", &data.len().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&data).unwrap();
    let output = child.wait_with_output().unwrap();
    let put: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let location = put["location"].as_str().unwrap();
    assert_eq!(run(&["image", "get", location, "--user", "glance"]).ok().stdout, data);
    let ours = pool.put(&uuid(), &data);
    assert_eq!((&ours["checksum"], &ours["os_hash_value"]), (&put["checksum"], &put["os_hash_value"]));
    run(&["image", "rm", location, "--user", "glance"]).ok();
    assert_eq!(pool.images().len(), 1);
}

#[test]
fn ranges_are_ranges() {
    let pool = TestPool::new();
    let (id, data) = (uuid(), noise(3, 20 * MIB + 77));
    pool.put(&id, &data);
    let get =
        |options: &[&str]| run(&[&["image", "get", &id, "--pool", &pool.0, "--user", "glance"], options].concat());
    assert_eq!(get(&["--offset", "8388600", "--length", "20"]).ok().stdout, data[8388600..8388620]);
    assert_eq!(get(&["--offset", "20M"]).ok().stdout, data[20 * MIB..]);
    assert_eq!(get(&["--length", "100G"]).ok().stdout, data);
    assert_eq!(get(&["--offset", "20971597"]).ok().stdout, b"", "at the very end");
    let ran = get(&["--offset", "1T"]);
    assert!(ran.code == 1 && ran.stderr.contains("Invalid"), "{ran:?}");

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out").display().to_string();
    get(&["-o", &path]).ok();
    assert_eq!(std::fs::read(&path).unwrap(), data);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no partial file");
}

#[test]
fn images_are_listed_shown_and_removed() {
    let pool = TestPool::new();
    let id = uuid();
    let location = pool.put(&id, &noise(1, 3 * MIB))["location"].as_str().unwrap().to_owned();
    let image = |command: &str, options: &[&str]| {
        run(&[&["image", command, "--pool", &pool.0, "--user", "glance", "--format", "json"], options].concat())
    };
    let list = image("list", &[]).ok().json();
    assert_eq!((&list[0]["name"], &list[0]["bytes"]), (&id.as_str().into(), &(3 * MIB).into()));
    let stat = image("stat", &[&id]).ok().json();
    assert_eq!((&stat["location"], &stat["used_bytes"]), (&location.as_str().into(), &(3 * MIB).into()));
    assert_eq!(stat["snapshots"][0]["protected"], true);
    assert_eq!(image("children", &[&id]).ok().json(), serde_json::json!([]));

    let clone = uuid();
    let target = format!("vms/{clone}");
    image("clone", &[&id, &target, "--size", "64M"]).ok();
    assert!(rbd(&["info", &target]).contains("size 64 MiB"));
    assert_eq!(image("children", &[&id]).ok().json()[0]["image"], clone.as_str());
    let smaller = image("clone", &[&id, &format!("vms/{}", uuid()), "--size", "1M"]);
    assert!(smaller.code == 1 && smaller.stderr.contains("Invalid"), "{smaller:?}");

    if rbd(&["info", &target]).contains("clone-child") {
        // Clones of the second kind keep it in the trash.
        image("rm", &[&id]).ok();
        assert!(pool.images().is_empty() && rbd(&["trash", "ls", &pool.0]).contains(&id));
    } else {
        // A refused removal changes nothing.
        let before = rbd(&["snap", "ls", &format!("{}/{id}", pool.0)]);
        let refused = image("rm", &[&id]);
        let why = &refused.stderr;
        assert!(refused.code == 1 && why.contains("InUse") && why.contains("clones"), "{refused:?}");
        assert_eq!(rbd(&["snap", "ls", &format!("{}/{id}", pool.0)]), before);
        assert_eq!(rbd(&["trash", "ls", &pool.0]), "");
    }

    image("flatten", &[&target]).ok();
    let again = image("flatten", &[&target]);
    assert!(again.code == 1 && again.stderr.contains("no clone"), "{again:?}");
    image("rm", &[&id]).ok();
    assert!(pool.images().is_empty() && rbd(&["trash", "ls", &pool.0]).is_empty());
    rbd(&["rm", &target]);
}

/// The stock driver takes the snapshot away, and only then learns that the image is in use.
#[test]
fn an_image_that_somebody_writes_to_is_not_removed() {
    let pool = TestPool::new();
    let id = uuid();
    pool.put(&id, &noise(1, MIB));
    let image = format!("{}/{id}", pool.0);
    let mut writer = Command::new("rbd")
        .args(["--id", "glance", "bench", "--io-type", "write", "--io-size", "4K", "--io-total", "100G", &image])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while is_open(&image) != Some(true) {
        assert!(started.elapsed() < Duration::from_secs(120));
    }
    let refused = run(&["image", "rm", &id, "--pool", &pool.0, "--user", "glance"]);
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert!(refused.code == 1 && refused.stderr.contains("InUse"), "{refused:?}");
    assert!(rbd(&["snap", "ls", &image]).contains("yes"), "protected still");
    assert_eq!(rbd(&["trash", "ls", &pool.0]), "");
}

#[test]
fn any_size_is_stored_whole() {
    let pool = TestPool::new();
    for length in [0, 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 41 * MIB + 5] {
        let (id, data) = (uuid(), noise(length as u64, length));
        for size in [None, Some(length.to_string())] {
            let mut arguments = vec!["image", "put", "-", "--id", &id, "--pool", &pool.0, "--user", "glance"];
            if let Some(size) = &size {
                arguments.extend(["--size", size]);
            }
            run_with_input(&arguments, &data).ok();
            assert!(run(&["image", "get", &id, "--pool", &pool.0, "--user", "glance"]).ok().stdout == data);
            assert!(
                rbd(&["info", &format!("{}/{id}", pool.0), "--format", "json"])
                    .contains(&format!("\"size\":{length},"))
            );
            run(&["image", "rm", &id, "--pool", &pool.0, "--user", "glance"]).ok();
        }
    }
}

/// Until then a signal has its default effect, or none: whoever started the tests may have had it ignored.
fn until_signals_are_caught(process: u32) {
    const HANGUP_INTERRUPT_TERMINATE: u64 = 1 << 0 | 1 << 1 | 1 << 14;
    let started = Instant::now();
    loop {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        if u64::from_str_radix(caught.trim(), 16).unwrap() & HANGUP_INTERRUPT_TERMINATE == HANGUP_INTERRUPT_TERMINATE {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Ctrl-C, or a signal of cron's or systemd's, at any moment of an upload leaves nothing in the pool.
#[test]
fn an_interrupted_upload_leaves_nothing() {
    let pool = TestPool::new();
    let signals = ["-INT", "-TERM", "-HUP"].into_iter().cycle();
    for (milliseconds, signal) in [0, 20, 50, 80, 120, 200, 300, 900].into_iter().zip(signals) {
        let mut writer = pool.begin_put(&uuid());
        let mut stdin = writer.stdin.take().unwrap();
        // More than could be written before the signal, but not for ever.
        let feeder = std::thread::spawn(move || {
            let data = noise(1, MIB);
            for _ in 0..2000 {
                if stdin.write_all(&data).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        until_signals_are_caught(writer.id());
        std::thread::sleep(Duration::from_millis(milliseconds));
        sh("kill", &[signal, &writer.id().to_string()]);
        assert_eq!(writer.wait().unwrap().code(), Some(130));
        feeder.join().unwrap();
        assert!(pool.images().is_empty(), "after {milliseconds} ms");
        assert_eq!(rbd(&["trash", "ls", &pool.0]), "");
    }
}

/// A source that gives nothing must not keep an interrupted upload: reading from it cannot be stopped.
#[test]
fn an_upload_that_waits_for_its_source_is_interrupted_too() {
    let pool = TestPool::new();
    let mut writer = pool.begin_put(&uuid());
    let started = Instant::now();
    while pool.images().is_empty() {
        assert!(started.elapsed() < Duration::from_secs(30));
    }
    sh("kill", &["-INT", &writer.id().to_string()]);
    while writer.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_secs(60), "still there");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(writer.wait().unwrap().code(), Some(130));
    assert!(pool.images().is_empty());
}

/// A full pool hangs the stock driver for ever, and leaves what was written.
#[test]
fn a_pool_over_its_quota_refuses_and_keeps_nothing() {
    let pool = TestPool::new();
    sh("ceph", &["osd", "pool", "set-quota", &pool.0, "max_bytes", "20971520"]);
    let mut stored = 0;
    let started = Instant::now();
    let refused = loop {
        let arguments = ["image", "put", "-", "--id", &uuid(), "--pool", &pool.0, "--user", "glance"];
        let ran = run_with_input(&arguments, &noise(stored, 8 * MIB));
        if ran.code != 0 {
            break ran;
        }
        stored += 1;
        assert!(started.elapsed() < Duration::from_secs(60), "the quota must bite some time");
    };
    assert!(refused.stderr.contains("StorageFull") && refused.stderr.contains("hint: see how full"), "{refused:?}");
    assert_eq!(pool.images().len() as u64, stored);
    assert_eq!(rbd(&["trash", "ls", &pool.0]), "");
}

/// With clones of the second kind the image goes to the trash, and the clones notice nothing.
#[test]
fn an_image_with_v2_clones_goes_to_the_trash() {
    let pool = TestPool::new();
    let (id, data) = (uuid(), noise(1, 9 * MIB));
    pool.put(&id, &data);
    let clone = format!("vms/{}", uuid());
    rbd(&["clone", "--rbd-default-clone-format", "2", &format!("{}/{id}@snap", pool.0), &clone]);
    let removed = run(&["image", "rm", &id, "--pool", &pool.0, "--user", "glance", "--format", "json"]).ok().json();
    assert_eq!(removed["in_trash"], true);
    assert!(pool.images().is_empty() && rbd(&["trash", "ls", &pool.0]).contains(&id));
    let mut export = Command::new("rbd");
    export.args(["--id", "glance", "export", &clone, "-"]);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("data"), &data).unwrap();
    prints(export, &directory.path().join("data"));
    rbd(&["rm", &clone]);
    rbd(&["trash", "purge", &pool.0]);
    assert_eq!(rbd(&["trash", "ls", &pool.0]), "", "and can be purged when they are gone");
}

/// What is no plain file is written to, not replaced.
#[test]
fn a_device_or_a_pipe_is_written_to() {
    let pool = TestPool::new();
    let (id, data) = (uuid(), noise(1, 9 * MIB));
    pool.put(&id, &data);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let get = |output: &str| run(&["image", "get", &id, "--pool", &pool.0, "--user", "glance", "-o", output]);
    sh("mkfifo", &[&path("pipe")]);
    let pipe = path("pipe");
    let reader = std::thread::spawn(move || std::fs::read(pipe).unwrap());
    get(&path("pipe")).ok();
    assert_eq!(reader.join().unwrap(), data);
    get("/dev/null").ok();
    assert_eq!(std::fs::read("/dev/null").unwrap(), b"");
    std::fs::write(path("target"), b"old").unwrap();
    std::os::unix::fs::symlink(path("target"), path("link")).unwrap();
    get(&path("link")).ok();
    assert!(std::fs::symlink_metadata(path("link")).unwrap().is_symlink());
    assert_eq!(std::fs::read(path("target")).unwrap(), data);
    // A download that fails leaves what was there, and nothing beside it.
    assert_eq!(run(&["image", "get", &uuid(), "--pool", &pool.0, "--user", "glance", "-o", &path("target")]).code, 1);
    assert_eq!(std::fs::read(path("target")).unwrap(), data);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3);
}

/// The stock driver serves zeroes, with success, from where a deletion has caught up with a download.
#[test]
fn a_download_of_an_image_that_is_removed_fails_or_is_whole() {
    let pool = TestPool::new();
    let data = noise(9, 160 * MIB);
    let mut failed = 0;
    for read_first in [0, MIB, 20 * MIB, 80 * MIB] {
        let id = uuid();
        pool.put(&id, &data);
        let mut get = program()
            .args(["image", "get", &id, "--pool", &pool.0, "--user", "glance"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = get.stdout.take().unwrap();
        let mut got = vec![0; read_first];
        stdout.read_exact(&mut got).unwrap();
        run(&["image", "rm", &id, "--pool", &pool.0, "--user", "glance"]).ok();
        stdout.read_to_end(&mut got).unwrap();
        let ended: crate::lab::Ran = get.wait_with_output().unwrap().into();
        assert!(got == data[..got.len()], "never wrong bytes");
        if ended.code == 0 {
            assert_eq!(got.len(), data.len(), "never less than all with success");
        } else {
            assert!(ended.stderr.contains("NotFound"), "{}", ended.stderr);
            failed += 1;
        }
    }
    assert!(failed > 0, "no removal caught up with its download; this test shows nothing");
}
