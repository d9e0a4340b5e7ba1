//! `hello --version --verbose`: what the program was built from.

use crate::{event::VERSION, screen};

/// Prints the version; with `verbose`, also what it was built from and what it reads and writes.
pub(super) fn print(verbose: bool) {
    let mut text = format!("hello {}", env!("CARGO_PKG_VERSION"));
    if verbose {
        let rows = [
            ("commit", env!("HELLO_BUILD_COMMIT").to_owned()),
            ("date", env!("HELLO_BUILD_DATE").to_owned()),
            ("target", env!("HELLO_BUILD_TARGET").to_owned()),
            ("profile", env!("HELLO_BUILD_PROFILE").to_owned()),
            ("compiler", env!("HELLO_BUILD_RUSTC").to_owned()),
            ("features", "none".to_owned()),
            ("fleet.toml", "version 1".to_owned()),
            ("journals, JSON", format!("v {VERSION}")),
        ];
        for (name, value) in rows {
            text.push_str(&format!("\n{name:>14}: {value}"));
        }
    }
    screen::answer([text]);
}
