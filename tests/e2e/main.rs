//! The program against a real cluster (the one that `CEPH_CONF` names; `make test` starts it) and a real Glance.

mod bad_input;
mod findings;
mod help;
mod images;
mod lab;
mod stock_glance;
