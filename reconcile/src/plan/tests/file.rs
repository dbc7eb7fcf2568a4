//! The plan as a file: what is read back, and what is refused.

use serde_json::json;

use super::now;
use crate::plan::*;

/// A plan of one step, signed.
fn a_plan() -> Plan {
    let step = Step {
        n: 1,
        action: Action::Trash,
        kind: Kind::Orphan,
        pool: "images".into(),
        namespace: String::new(),
        image: "11111111-1111-4111-8111-111111111111".into(),
        image_id: "10a5".into(),
        glance_id: None,
        location: None,
        bytes: Some(4096),
        why: "nobody knows it".into(),
        evidence: Map::from_iter([("zeta".into(), json!(1)), ("alpha".into(), json!(["x"]))]),
        undo: "glance-rbd undo".into(),
        commands: Vec::new(),
    };
    let mut plan = Plan {
        schema: 1,
        created_at: now(),
        fsid: "9b1c0a54-7f0c-4b52-a8e3-1f6f4a3f1a11".into(),
        pools: vec![PlanPool { name: "images".into(), namespace: String::new(), id: 2 }],
        databases: vec!["sqlite:////glance.sqlite".into()],
        scan: PlanScan { started_at: now(), digest: "00".into() },
        policy: PlanPolicy::default(),
        refused: Vec::new(),
        left_out: Vec::new(),
        summary: PlanSummary::default(),
        steps: vec![step],
        digest: String::new(),
    };
    plan.digest = plan.compute_digest();
    plan
}

#[test]
fn a_plan_is_read_as_it_was_written() {
    let plan = a_plan();
    let text = plan.to_json();
    assert_eq!(Plan::read(text.as_bytes()).unwrap(), plan);
    assert!(plan.verify(&plan.fsid, now()).is_ok());
    assert!(text.contains(r#""grace": "1d"#) || text.contains(r#""grace": "24h""#), "for people too: {text}");
    let reordered: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(Plan::read(reordered.to_string().as_bytes()).unwrap(), plan, "space and order do not matter");
}

/// A plan is reviewed before it is applied: what was reviewed is what is applied.
#[test]
fn a_plan_edited_by_hand_is_refused() {
    let text = a_plan().to_json();
    let edits: [fn(&mut Value); 7] = [
        |plan| plan["steps"][0]["image_id"] = json!("10a6"),
        |plan| plan["steps"] = json!([]),
        |plan| plan["policy"]["max_images"] = json!(1000),
        |plan| plan["fsid"] = json!("another"),
        |plan| plan["created_at"] = json!("2026-06-02T12:00:00Z"),
        |plan| plan["steps"][0]["more"] = json!("a field that nobody knows"),
        |plan| plan["digest"] = json!(""),
    ];
    for edit in edits {
        let mut value: Value = serde_json::from_str(&text).unwrap();
        edit(&mut value);
        let result = Plan::read(value.to_string().as_bytes());
        assert!(matches!(result, Err(PlanError::Edited { .. })), "{result:?}");
    }
    let mut plan = a_plan();
    plan.steps[0].bytes = None;
    assert!(matches!(plan.verify(&plan.fsid, now()), Err(PlanError::Edited { .. })));
}

#[test]
fn what_is_no_plan_of_here_and_now_is_refused() {
    let text = a_plan().to_json();
    for end in [0, 1, text.len() / 2, text.len() - 3] {
        assert!(matches!(Plan::read(&text.as_bytes()[..end]), Err(PlanError::NotAPlan(_))), "cut off at {end}");
    }
    assert!(matches!(Plan::read(b"[]"), Err(PlanError::NotAPlan(_))));
    assert!(matches!(Plan::read(br#"{"schema":2}"#), Err(PlanError::Schema(2))));

    let plan = a_plan();
    let after = |hours: i64| plan.verify(&plan.fsid, now() + jiff::SignedDuration::from_hours(hours));
    assert!(matches!(plan.verify("another", now()), Err(PlanError::ForeignCluster { .. })));
    assert!(after(24).is_ok());
    assert!(matches!(after(25), Err(PlanError::TooOld { .. })));
    assert!(matches!(after(-1), Err(PlanError::FromTheFuture { .. })));
}
