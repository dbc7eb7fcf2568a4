//! Configuring, connecting, deleting, cloning, against a real cluster: `make test`, or `CEPH_CONF=… cargo test`.

mod connection;
mod scratch;
