//! The bindings against a real cluster: the one that `CEPH_CONF` names (`make test` starts it).

mod clones;
mod connect;
mod dropping;
mod images;
mod locks;
mod objects;
mod scratch;
mod snapshots;
mod trash;
