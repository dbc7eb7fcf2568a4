//! Clones of both versions, wherever they are, and those that cannot be known.

use reconcile::{Block, Kind};

use crate::lab::{Lab, sh, the, uuid, wait};

fn golden(lab: &Lab) -> String {
    let id = uuid();
    lab.create(&id, &[]);
    lab.write(&id, 0, 1);
    lab.snapshot(&id, "snap");
    id
}

fn clone(lab: &Lab, version: &str, parent: &str, child: &str) {
    let snapshot = format!("{}@snap", lab.at(parent));
    sh("rbd", &["clone", "--rbd-default-clone-format", version, &snapshot, child]);
}

#[test]
fn clones_of_both_versions_are_found_in_and_out_of_the_trash() {
    let lab = Lab::new();
    let [free, first, second, trashed, several] = std::array::from_fn(|_| golden(&lab));
    clone(&lab, "1", &first, &lab.vm("one"));
    clone(&lab, "2", &second, &lab.vm("two"));
    clone(&lab, "1", &trashed, &lab.vm("three"));
    sh("rbd", &["trash", "mv", &lab.vm("three")]);
    for n in 0..20 {
        clone(&lab, if n % 2 == 0 { "1" } else { "2" }, &several, &lab.vm(&format!("many{n}")));
    }
    wait(async {
        let scan = lab.scan(Some("scan")).await;
        assert!(scan.complete && scan.notes.is_empty(), "{:#?}", scan.problems);
        let orphan = |id: &str| the(&scan, Kind::Orphan, id);
        assert_eq!(orphan(&free).blocked_by, []);
        for (id, name) in [(&first, "one"), (&second, "two")] {
            assert_eq!(orphan(id).blocked_by, [Block::Children]);
            assert_eq!(orphan(id).evidence["children"], serde_json::json!([lab.vm(name)]));
        }
        assert_eq!(orphan(&trashed).blocked_by, [Block::Children], "a clone in the trash needs its parent too");
        assert_eq!(orphan(&several).evidence["children_count"], 20);
    });
}

/// A user who may read one pool only cannot know whether images have clones in others: unknown is not none. Whoever may call
/// the class method that librbd itself uses does know.
#[test]
fn clones_in_a_pool_that_may_not_be_read_are_unknown() {
    let lab = Lab::new();
    let [free, parent, unsnapped] = [golden(&lab), golden(&lab), uuid()];
    lab.create(&unsnapped, &[]);
    clone(&lab, "1", &parent, &lab.vm("one"));
    let user = lab.user("profile rbd-read-only pool=images");
    wait(async {
        let scan = lab.scan(Some(&user)).await;
        assert!(scan.complete, "{:#?}", scan.problems);
        for id in [&free, &parent] {
            assert_eq!(the(&scan, Kind::Orphan, id).blocked_by, [Block::Unknown]);
        }
        let reason = "an image without a protected snapshot has no clones of version 1";
        assert_eq!(the(&scan, Kind::Orphan, &unsnapped).blocked_by, [], "{reason}");
        assert!(scan.notes.iter().any(|note| note.what.contains("vms")), "{:#?}", scan.notes);
    });
    let caps = "profile rbd-read-only pool=images, allow class-read object_prefix rbd_children";
    sh("ceph", &["auth", "caps", &format!("client.{user}"), "mon", "profile rbd-read-only", "osd", caps]);
    wait(async {
        let scan = lab.scan(Some(&user)).await;
        assert!(scan.complete && scan.notes.is_empty(), "{scan:#?}");
        assert_eq!(the(&scan, Kind::Orphan, &free).blocked_by, []);
        assert_eq!(the(&scan, Kind::Orphan, &parent).blocked_by, [Block::Children]);
    });
}
