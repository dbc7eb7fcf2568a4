//! Uploads, against a real cluster (`CEPH_CONF` names it; `make test` starts one).

mod adding;
mod child;
mod concurrent;
mod dropping;
mod lab;
mod retrying;
mod zeroes;
