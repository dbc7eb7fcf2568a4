//! The scan against a real cluster: the one that `CEPH_CONF` names (`make test` starts it).

mod blocks;
mod clones;
mod damage;
mod examine;
mod lab;
mod usage;
