//! Reading images back, on a real cluster: the one that `CEPH_CONF` names (`make test` starts it).

mod concurrent;
mod deletions;
mod holes;
mod ranges;
mod scratch;
