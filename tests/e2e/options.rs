//! The store's options as Glance's own libraries read them.

use std::process::Command;

use serde_json::{Value, json};

use crate::lab::repository;

/// What the stock driver makes of a file; `None` where it refuses it.
fn stock(path: &str) -> Option<Value> {
    let venv = std::env::var("GLANCE_LAB_VENV").map_or_else(|_| repository("target/glance-venv"), Into::into);
    let output =
        Command::new(venv.join("bin/python")).arg(repository("tests/glance/stock-config")).arg(path).output().unwrap();
    output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
}

fn ours(path: &str) -> store::Result<Value> {
    let backends = store::Config::backends(&store::OsloConf::read(path)?)?;
    let options = backends.into_iter().map(|config| {
        let options = json!({
            "rbd_store_chunk_size": config.chunk_size,
            "rbd_store_pool": config.pool,
            "rbd_store_user": config.user,
            "rbd_store_ceph_conf": config.ceph_conf.unwrap_or_default(),
            "rados_connect_timeout": config.timeout.map_or(-1, |timeout| timeout.as_secs().cast_signed()),
            "rbd_thin_provisioning": config.thin,
            "weight": config.weight,
            "store_description": config.description,
        });
        (config.backend.unwrap(), options)
    });
    Ok(options.collect::<serde_json::Map<_, _>>().into())
}

/// An operator changes drivers, not files: every oddity of the format means the same to both.
#[test]
fn options_are_read_as_oslo_config_reads_them() {
    const GOOD: [&str; 6] = [
        "[DEFAULT]\nenabled_backends = a:rbd\n[a]\n",
        "[DEFAULT]\n# none\n\n;enabled_backends = x:rbd\nenabled_backends = a:rbd , b: rbd,\n   c:file\n\
         [backend_defaults]\nrbd_store_user=glance\nrados_connect_timeout: 5\n\
         [a]\nrbd_store_pool = \"x y\"\nrbd_thin_provisioning = ON\n\
         [b]\nrbd_store_user = 'other'\nrbd_store_pool = ${a.rbd_store_pool}-$$b\\$c\nweight = -7\n\
         store_description = one\n  two\n\tthree\nrados_connect_timeout = -1\n",
        "[DEFAULT]\nenabled_backends = first:rbd\nenabled_backends = a:rbd\n[a]\nrbd_store_chunk_size = 4\n\
         rbd_store_chunk_size = 16 \n[a]\nrbd_store_pool = again\nrbd_store_pool: last = one\n",
        "[DEFAULT]\nuser = nobody\nenabled_backends = a:rbd\n[a]\nrbd_store_user = u # no comment\n\
         rbd_store_pool = p;q\nrbd_store_ceph_conf = /etc/ceph/${rbd_store_pool}.conf\n",
        "[DEFAULT]\r\nenabled_backends = a:rbd\r\n[a]\r\nrbd_store_pool = windows\r\nrbd_thin_provisioning = 0\r\n",
        "[DEFAULT]\nenabled_backends = a:rbd\n[a]\nrbd_store_pool = costs 5$ or ${\nstore_description = '\"\n",
    ];
    const BAD: [&str; 7] = [
        "enabled_backends = a:rbd\n",
        "[DEFAULT\nenabled_backends = a:rbd\n",
        "[DEFAULT]\nenabled_backends = a\n",
        "[DEFAULT]\nenabled_backends = a:rbd, a:rbd\n",
        "[DEFAULT]\n  enabled_backends = a:rbd\n",
        "[DEFAULT]\nenabled_backends = a:rbd\n[a]\nrbd_store_chunk_size = eight\n",
        "[DEFAULT]\nenabled_backends = a:rbd\n[a]\nrbd_thin_provisioning = perhaps\n",
    ];
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    for text in GOOD {
        std::fs::write(path, text).unwrap();
        assert_eq!(Some(ours(path).unwrap()), stock(path), "{text}");
    }
    for text in BAD {
        std::fs::write(path, text).unwrap();
        assert_eq!(stock(path), None, "{text}");
        let error = ours(path).unwrap_err();
        assert!(matches!(error, store::Error::BadConfiguration(_)), "{error}");
    }
}
