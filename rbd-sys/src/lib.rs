//! Raw FFI to librados and librbd, generated at build time from the installed headers. C enums are constants here.
//!
//! Nothing is added to what the headers say: `rbd` is the safe crate.

#![allow(
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    non_snake_case,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes,
    reason = "generated from C"
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
