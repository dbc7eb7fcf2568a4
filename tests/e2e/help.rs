//! The command line as it presents itself. Its names are promises.

use crate::lab::run;

#[test]
fn the_commands_are_these() {
    insta::assert_snapshot!(help(&["--help"]));
}

#[test]
fn scan_says_what_it_needs() {
    insta::assert_snapshot!(help(&["scan", "--help"]));
}

#[test]
fn image_says_what_it_does() {
    insta::assert_snapshot!(help(&["image", "--help"]));
}

#[test]
fn completions_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = run(&["completions", shell]).ok();
        assert!(String::from_utf8(ran.stdout).unwrap().contains("glance-rbd"), "{shell}");
    }
}

fn help(arguments: &[&str]) -> String {
    String::from_utf8(run(arguments).ok().stdout).unwrap()
}
