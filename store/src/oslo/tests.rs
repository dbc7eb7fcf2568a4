use proptest::prelude::*;

use super::*;

const FILE: &str = r#"
# a comment
; another
[DEFAULT]
enabled_backends = ceph:rbd, fast : rbd,
  cold:file
log_dir: /var/log
state = $log_dir/state
quoted = "a # b"
twice = one
twice = two
long = first
	second

[Database]
connection = mysql+pymysql://glance:pa$$ss\$word@db/glance?x=$DEFAULT.log_dir

[glance_store]
rbd_thin_provisioning = Yes
rados_connect_timeout = -1
list = a, b ,c,
empty =
file = ${DEFAULT.log_dir}/x and 5$ and ${
"#;

fn conf() -> OsloConf {
    OsloConf::parse(FILE, "glance-api.conf").unwrap()
}

#[test]
fn it_reads_what_oslo_reads() {
    let conf = conf();
    let get = |section: &str, key: &str| conf.get(section, key).unwrap();
    assert_eq!(get("DEFAULT", "log_dir").as_deref(), Some("/var/log"));
    assert_eq!(get("DEFAULT", "state").as_deref(), Some("/var/log/state"));
    assert_eq!(get("DEFAULT", "quoted").as_deref(), Some("a # b"));
    assert_eq!(get("DEFAULT", "twice").as_deref(), Some("two"));
    assert_eq!(conf.get_all("DEFAULT", "twice").unwrap(), ["one", "two"]);
    assert_eq!(get("DEFAULT", "long").as_deref(), Some("first\nsecond"));
    assert_eq!(
        get("database", "connection").as_deref(),
        Some("mysql+pymysql://glance:pa$ss$word@db/glance?x=/var/log")
    );
    assert_eq!(get("DATABASE", "connection"), get("database", "connection"));
    assert_eq!(get("default", "log_dir"), None, "DEFAULT alone knows its case");
    assert_eq!(get("glance_store", "file").as_deref(), Some("/var/log/x and 5$ and ${"));
    assert_eq!(get("glance_store", "empty").as_deref(), Some(""));
    assert_eq!(get("glance_store", "missing"), None);
    assert_eq!(conf.get_bool("glance_store", "rbd_thin_provisioning").unwrap(), Some(true));
    assert_eq!(conf.get_int("glance_store", "rados_connect_timeout").unwrap(), Some(-1));
    assert_eq!(conf.get_list("glance_store", "list").unwrap().unwrap(), ["a", "b", "c"]);
    let pairs = conf.get_dict("DEFAULT", "enabled_backends").unwrap().unwrap();
    let pairs: Vec<_> = pairs.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
    assert_eq!(pairs, [("ceph", "rbd"), ("fast", "rbd"), ("cold", "file")]);
    assert!(conf.has_section("database") && !conf.has_section("ceph"));
}

#[test]
fn an_error_names_file_and_line_and_shows_no_value() {
    let lines = [
        ("[DEFAULT]\nsecret", 2),
        ("secret = 1", 1),
        ("[DEFAULT\nsecret = 1", 1),
        ("[]", 1),
        ("[DEFAULT]\n\n= secret", 3),
        ("[DEFAULT]\na = b\n\n  secret", 4),
    ];
    for (text, line) in lines {
        let error = OsloConf::parse(text, "/etc/glance.conf").unwrap_err();
        assert_eq!((error.file.to_str(), error.line), (Some("/etc/glance.conf"), Some(line)), "{text}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let text = "[a]\nn = secret\nb = secret\nd = secret\nr = x$secret\nc = $c";
    let conf = OsloConf::parse(text, "f").unwrap();
    let errors = [
        conf.get_int("a", "n").unwrap_err(),
        conf.get_bool("a", "b").unwrap_err(),
        conf.get_dict("a", "d").unwrap_err(),
        conf.get("a", "r").unwrap_err(),
        conf.get("a", "c").unwrap_err(),
    ];
    for (error, line) in errors.iter().zip(2..) {
        assert_eq!(error.line, Some(line));
        assert!(!format!("{error} {error:?} {conf:?}").contains("secret"), "{error}");
    }
    let missing = OsloConf::read("/nonexistent/glance.conf").unwrap_err();
    assert!(missing.to_string().starts_with("/nonexistent/glance.conf: cannot be read"), "{missing}");
}

#[test]
fn a_later_file_counts() {
    let mut conf = OsloConf::parse("[a]\nx = 1\ny = 1", "first").unwrap();
    conf.lay("second".into(), "[a]\nx = 2").unwrap();
    assert_eq!(conf.get("a", "x").unwrap().as_deref(), Some("2"));
    assert_eq!(conf.get("a", "y").unwrap().as_deref(), Some("1"));
    assert_eq!(conf.wrong("a", "x", "is bad").to_string(), "second:2: [a] x is bad");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in r#"([\[\]a-z=:$\{\}"' \n\t\\#é.]|DEFAULT){0,80}"#) {
        if let Ok(conf) = OsloConf::parse(&text, "f") {
            for (section, keys) in &conf.sections {
                for key in keys.keys() {
                    let _ = (conf.get(section, key), conf.get_dict(section, key), conf.get_list(section, key));
                }
            }
        }
    }
}
