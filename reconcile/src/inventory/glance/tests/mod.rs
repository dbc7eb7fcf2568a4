//! Against real databases of all three kinds, with the tables of a real Glance. `tests/databases up` starts them.

mod facts;
mod faults;
mod lab;
mod refusals;
mod tls;
