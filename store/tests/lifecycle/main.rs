//! Configuring, connecting, deleting, cloning, against a real cluster: `make test`, or `CEPH_CONF=… cargo test`.

mod cloning;
mod connection;
mod creating;
mod deleting;
mod resuming;
mod scratch;
