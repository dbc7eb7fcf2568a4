//! What happens between the plan and the step, and between the look and the move.

use std::time::Duration;

use serde_json::json;

use super::cloud::{Cloud, Held, journal_of, results};
use crate::lab::{noise, rbd, run, sh, uuid};

/// Between the plan and its application: another image took the name. That one is nobody's business.
#[test]
fn re_uploaded_between_plan_and_apply() {
    let cloud = Cloud::new();
    let garbage = cloud.garbage(1);
    let plan = cloud.plan(&[]);
    run(&["image", "rm", &garbage, "--pool", &cloud.pool.0, "--user", "glance"]).ok();
    cloud.pool.put(&garbage, b"another image");
    let before = cloud.images();
    let ran = cloud.apply(&plan);
    assert_eq!(ran.code, 4);
    let result = &results(&ran.json())[0];
    assert!(result.starts_with("skipped: "), "{result}");
    assert_eq!((cloud.images(), cloud.trash()), (before, vec![]));
}

/// librbd moves by name: an image that takes the name between the look and the move is moved instead, and put back.
#[test]
fn re_uploaded_between_look_and_move() {
    let cloud = Cloud::new();
    let garbage = cloud.garbage(1);
    let plan = cloud.plan(&[]);
    let held = Held::start(&cloud, &plan);
    run(&["image", "rm", &garbage, "--pool", &cloud.pool.0, "--user", "glance"]).ok();
    cloud.pool.put(&garbage, b"another image");
    let before = cloud.images();
    let ran = held.go();
    assert_eq!(ran.code, 4);
    assert_eq!(results(&ran.json()), ["skipped: its name became another image's while it was being moved"]);
    assert_eq!((cloud.images(), cloud.trash()), (before, vec![]));
}

/// An image keeps its id when it is renamed, and what has another name may have another meaning.
#[test]
fn renamed_between_plan_and_apply() {
    let cloud = Cloud::new();
    let garbage = cloud.garbage(1);
    let plan = cloud.plan(&[]);
    rbd(&["rename", &cloud.path(&garbage), &cloud.path(&uuid())]);
    let before = cloud.images();
    let ran = cloud.apply(&plan);
    assert_eq!(results(&ran.json()), ["skipped: it is not there any more"]);
    assert_eq!((cloud.images(), cloud.trash()), (before, vec![]));
}

/// Ceph moves an image to the trash though it has clones; it is looked at once more there.
#[test]
fn cloned_between_look_and_move() {
    let cloud = Cloud::new();
    let garbage = cloud.garbage(1);
    let before = cloud.images();
    let plan = cloud.plan(&[]);
    let held = Held::start(&cloud, &plan);
    let clone = format!("vms/{}", uuid());
    rbd(&["clone", &format!("{}@snap", cloud.path(&garbage)), &clone]);
    let ran = held.go();
    assert_eq!(ran.code, 4);
    assert_eq!(results(&ran.json()), [format!("skipped: {clone} is its clone; it was put back")]);
    assert_eq!(cloud.trash(), []);
    sh("sh", &["-c", &format!("rbd --id glance export --no-progress {clone} - >/dev/null")]);
    // And a plan that is applied again finds it in use at the first look.
    let again = cloud.apply(&plan);
    assert_eq!(results(&again.json()), ["skipped: blocked by children"]);
    rbd(&["rm", "--no-progress", &clone]);
    assert_eq!(cloud.images(), before);
    assert_eq!(results(&cloud.apply(&plan).ok().json()), ["done"], "nobody needs it any more");
}

#[test]
fn opened_between_look_and_move() {
    let cloud = Cloud::new();
    let garbage = cloud.garbage(1);
    let plan = cloud.plan(&[]);
    let held = Held::start(&cloud, &plan);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let image = runtime.block_on(async {
        let options = rbd::ConnectOptions { user: Some("glance".into()), ..rbd::ConnectOptions::default() };
        let pool = rbd::Cluster::connect(options).await.unwrap().pool(&cloud.pool.0).await.unwrap();
        pool.open_image(&garbage, rbd::OpenOptions::default()).await.unwrap()
    });
    let ran = held.go();
    let result = results(&ran.json()).remove(0);
    assert!(result.starts_with("skipped: it is open for writing at") && result.ends_with("put back"), "{result}");
    assert_eq!((cloud.trash(), cloud.pool.images().contains(&garbage)), (vec![], true));
    runtime.block_on(async {
        image.close().await.unwrap();
        rbd::settled().await;
    });
}

/// A row that comes between the look and the move is found by the look after it.
#[test]
fn registered_between_look_and_move() {
    let cloud = Cloud::new();
    let garbage = cloud.garbage(1);
    let plan = cloud.plan(&[]);
    let held = Held::start(&cloud, &plan);
    cloud.database.sql(&format!("UPDATE images SET deleted = 0, status = 'active' WHERE id = '{garbage}'"));
    let fsid = sh("ceph", &["fsid"]);
    cloud.database.location(&garbage, &format!("rbd://{}/{}/{garbage}/snap", fsid.trim(), cloud.pool.0));
    let ran = held.go();
    let result = results(&ran.json()).remove(0);
    assert!(result.ends_with("names it by now; it was put back"), "{result}");
    assert_eq!((cloud.trash(), cloud.pool.images().contains(&garbage)), (vec![], true));
}

/// The row came back between the plan and its application.
#[test]
fn undeleted_between_plan_and_apply() {
    let cloud = Cloud::new();
    let (garbage, other) = (cloud.garbage(1), cloud.garbage(2));
    let plan = cloud.plan(&[]);
    cloud.database.sql(&format!("UPDATE images SET deleted = 0, status = 'queued' WHERE id = '{garbage}'"));
    let ran = cloud.apply(&plan);
    assert_eq!(ran.code, 4);
    assert_eq!((cloud.trash().len(), cloud.trash()[0].0.as_str()), (1, other.as_str()));
    let skipped = results(&ran.json()).into_iter().find(|result| result != "done").unwrap();
    assert!(skipped.starts_with("skipped: it is ") && skipped.ends_with("no longer orphan-deleted"), "{skipped}");
}

#[test]
fn two_applies_at_once() {
    let cloud = Cloud::new();
    cloud.garbage(1);
    cloud.garbage(2);
    let (first, second) = (cloud.plan(&[]), cloud.plan(&[]));
    let held = Held::start(&cloud, &first);
    let pid = format!("pid {}", held.pid());

    let refused = cloud.apply(&second);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("is being changed by") && refused.stderr.contains(&pid), "{}", refused.stderr);
    let refused = cloud.purge(&["--yes"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    let same = cloud.apply(&first);
    assert!(same.code == 1 && same.stderr.contains("in use by another"), "{same:?}");
    assert_eq!(cloud.undo(&first).code, 1);
    assert_eq!(cloud.trash(), []);
    assert_eq!(results(&held.go().ok().json()), ["done"; 2]);

    // A dead one's lock is still there for a while; who continues its journal knows that it is dead.
    cloud.undo(&first).ok();
    let third = cloud.plan(&[]);
    Held::start(&cloud, &third).kill();
    let refused = cloud.apply(&second);
    assert!(refused.code == 1 && refused.stderr.contains("would lapse within"), "{refused:?}");
    assert_eq!(results(&cloud.apply(&third).ok().json()), ["done"; 2]);
    if std::env::var_os("GLANCE_RBD_LONG").is_some() {
        cloud.undo(&third).ok();
        let fourth = cloud.plan(&[]);
        Held::start(&cloud, &fourth).kill();
        assert_eq!(cloud.apply(&second).code, 1);
        std::thread::sleep(Duration::from_secs(61));
        cloud.apply(&second).ok();
    }
}

/// Ctrl-C stops after the step that was begun; the same command finishes the plan.
#[test]
fn interrupted_it_stops_after_the_step() {
    let cloud = Cloud::new();
    for seed in 0..3 {
        cloud.garbage(seed);
    }
    let plan = cloud.plan(&[]);
    let held = Held::start(&cloud, &plan);
    sh("kill", &["-INT", &held.pid().to_string()]);
    let ran = held.go();
    let applied = ran.json();
    assert_eq!((ran.code, &applied["stopped"]), (130, &json!("interrupted")), "{ran:?}");
    assert_eq!((results(&applied), &applied["summary"]["left"]), (vec!["done".to_owned()], &json!(2)));
    assert_eq!(cloud.trash().len(), 1);
    assert_eq!(results(&cloud.apply(&plan).ok().json()), ["done-before", "done", "done"]);
    assert!(std::fs::read_to_string(journal_of(&plan)).unwrap().lines().count() >= 7);
}

/// An upload that is going on while a plan is applied is never touched.
#[test]
fn uploads_go_on_meanwhile() {
    use std::io::Write;
    let cloud = Cloud::new();
    cloud.garbage(1);
    let id = uuid();
    let mut upload = cloud.pool.begin_put(&id);
    let mut stdin = upload.stdin.take().unwrap();
    stdin.write_all(&noise(1, 12 << 20)).unwrap();
    super::cloud::wait_for(|| cloud.pool.images().contains(&id));
    let plan = cloud.plan(&[]);
    assert_eq!(results(&cloud.apply(&plan).ok().json()), ["done"]);
    drop(stdin);
    assert!(upload.wait().unwrap().success());
    assert!(cloud.pool.images().contains(&id));
}
