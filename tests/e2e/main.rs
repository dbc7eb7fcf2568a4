//! The program against a real cluster (the one that `CEPH_CONF` names; `make test` starts it) and a real Glance.

mod bad_input;
mod churn;
mod cut_off;
mod findings;
mod glance_states;
mod help;
mod images;
mod lab;
mod options;
mod output;
mod planning;
mod reclaiming;
mod sources;
mod stock_glance;
