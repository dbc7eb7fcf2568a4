//! How the cluster is, as far as it matters for removing things from it.

use rbd::Cluster;
use serde_json::Value;

/// Ceph's own health checks that speak against any change: data that is there may not be seen.
const CHECKS: &[&str] = &[
    "OSD_DOWN",
    "OSD_HOST_DOWN",
    "OSD_RACK_DOWN",
    "OSD_ROW_DOWN",
    "OSD_ROOT_DOWN",
    "OSD_ORPHAN",
    "PG_AVAILABILITY",
    "OBJECT_UNFOUND",
    "MGR_DOWN",
];

/// How the cluster is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// What speaks against changing anything: OSDs down, placement groups inactive. Empty in a healthy cluster.
    pub problems: Vec<String>,
}

impl Health {
    /// Asks the monitors. What they do not tell is a problem too: unknown is not healthy.
    pub async fn read(cluster: &Cluster) -> Self {
        match cluster.mon_command(r#"{"prefix":"status","format":"json"}"#).await {
            Ok(status) => Self::of(&status),
            Err(error) => Self::unknown(&error.to_string()),
        }
    }

    /// From what `ceph status --format json` prints.
    #[must_use]
    pub fn of(status: &[u8]) -> Self {
        let Ok(status) = serde_json::from_slice::<Value>(status) else {
            return Self::unknown("`ceph status` is no JSON");
        };
        let Some(checks) = status["health"]["checks"].as_object() else {
            return Self::unknown("`ceph status` has no health checks");
        };
        let (Some(there), Some(up)) =
            (status["osdmap"]["num_in_osds"].as_u64(), status["osdmap"]["num_up_osds"].as_u64())
        else {
            return Self::unknown("`ceph status` does not count the OSDs");
        };
        // Muted ones too: they are as true.
        let mut problems: Vec<String> = checks
            .iter()
            .filter(|(name, _)| CHECKS.contains(&name.as_str()))
            .map(|(name, check)| format!("{}: {name}", check["summary"]["message"].as_str().unwrap_or_default()))
            .collect();
        // The check comes some seconds after the fact.
        if up < there && !checks.contains_key("OSD_DOWN") {
            problems.push(format!("{} of {there} OSDs are down", there - up));
        }
        Self { problems }
    }

    fn unknown(why: &str) -> Self {
        Self { problems: vec![format!("its health is unknown: {why}")] }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(checks: &Value, up: u64) -> Health {
        let status = json!({
            "health": { "status": "HEALTH_WARN", "checks": checks, "mutes": [] },
            "osdmap": { "num_osds": 4, "num_up_osds": up, "num_in_osds": 3 },
        });
        Health::of(status.to_string().as_bytes())
    }

    fn check(message: &str) -> Value {
        json!({ "severity": "HEALTH_WARN", "summary": { "message": message, "count": 1 }, "muted": true })
    }

    #[test]
    fn what_hides_data_speaks_against_changes_and_nothing_else_does() {
        assert_eq!(status(&json!({}), 3), Health::default());
        assert_eq!(status(&json!({ "POOL_NO_REDUNDANCY": check("1 pool(s) have no replicas") }), 3), Health::default());
        assert_eq!(
            status(&json!({ "POOL_FULL": check("1 pool(s) full") }), 3),
            Health::default(),
            "space is to be won"
        );
        assert_eq!(status(&json!({ "OSD_DOWN": check("1 osds down") }), 2).problems, ["1 osds down: OSD_DOWN"]);
        assert_eq!(status(&json!({}), 2).problems, ["1 of 3 OSDs are down"]);
        let inactive = json!({ "PG_AVAILABILITY": check("Reduced data availability: 8 pgs inactive") });
        assert_eq!(status(&inactive, 3).problems, ["Reduced data availability: 8 pgs inactive: PG_AVAILABILITY"]);
    }

    #[test]
    fn what_is_not_told_is_not_healthy() {
        for status in ["", "{}", "[]", r#"{"health":{"checks":{}}}"#, r#"{"osdmap":{"num_up_osds":1,"num_in_osds":1}}"#]
        {
            assert_eq!(Health::of(status.as_bytes()).problems.len(), 1, "{status}");
        }
    }
}
