//! Generates the bindings from the installed headers and says which package is missing when they are not there.
//!
//! Dependent crates learn librbd's version as `DEP_RBD_VERSION` (`1.16`).

use std::{env, path::PathBuf, process::exit};

use bindgen::callbacks::{IntKind, ParseCallbacks};

/// What `rbd` calls; nothing else of the two headers is bound.
const FUNCTIONS: &str = "rados_.*|rbd_.*";
const VARIABLES: &str =
    "LIBRBD_VER_.*|RBD_.*|LIBRADOS_OP_FLAG_.*|LIBRADOS_OPERATION_.*|LIBRADOS_LOCK_.*|LIBRADOS_CREATE_.*";

/// Catches the two version numbers as bindgen meets them.
#[derive(Debug)]
struct Version;

impl ParseCallbacks for Version {
    fn int_macro(&self, name: &str, value: i64) -> Option<IntKind> {
        match name {
            "LIBRBD_VER_MAJOR" => println!("cargo::metadata=MAJOR={value}"),
            "LIBRBD_VER_MINOR" => println!("cargo::metadata=MINOR={value}"),
            _ => {}
        }
        None
    }
}

fn main() {
    println!("cargo::rerun-if-changed=wrapper.h");
    println!("cargo::rerun-if-env-changed=LIBCLANG_PATH");
    println!("cargo::rerun-if-env-changed=BINDGEN_EXTRA_CLANG_ARGS");
    println!("cargo::rustc-link-lib=rbd");
    println!("cargo::rustc-link-lib=rados");

    // bindgen panics, rather than fails, where there is no libclang.
    std::panic::set_hook(Box::new(|panic| {
        fail(&format!("{panic}\nIs libclang installed? (Debian, Ubuntu: apt-get install clang libclang-dev)"))
    }));
    let bindings = bindgen::Builder::default()
        .header("wrapper.h")
        .allowlist_function(FUNCTIONS)
        .allowlist_var(VARIABLES)
        .parse_callbacks(Box::new(Version))
        .generate_comments(false)
        .layout_tests(false)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .generate()
        .unwrap_or_else(|error| fail(&error.to_string()));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("bindings.rs");
    bindings.write_to_file(&out).unwrap_or_else(|error| fail(&format!("cannot write {}: {error}", out.display())));
}

fn fail(why: &str) -> ! {
    for line in why.lines().filter(|line| !line.trim().is_empty()) {
        println!("cargo::error={line}");
    }
    println!(
        "cargo::error=glance-rbd builds against librbd 1.16 (Ceph 16) or later; `make deps` installs what is missing"
    );
    exit(1)
}
