//! The program itself. An integration test of this package, so that cargo builds the program together with all other tests,
//! from the same compiled dependencies; the end-to-end tests run it.

use std::process::Command;

#[test]
fn it_says_which_version_it_is() {
    let output = Command::new(env!("CARGO_BIN_EXE_palisade")).arg("--version").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), concat!("palisade ", env!("CARGO_PKG_VERSION"), "\n"));
}
