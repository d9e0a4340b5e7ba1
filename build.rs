//! Tells the program what it was built from, for `hello --version --verbose`.

use std::{env, path::Path, process::Command};

/// Returns the output of a command that succeeds, as one line.
fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

/// Sets a variable that the source reads with `env!`.
fn set(name: &str, value: Option<String>) {
    let value = value.unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=HELLO_BUILD_{name}={value}");
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A package of the source has no repository: then both are unknown.
    let is_checkout = Path::new(".git").exists();
    let git = |args: &[&str]| output("git", args).filter(|_| is_checkout);
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    set("COMMIT", git(&["rev-parse", "--short=12", "HEAD"]));
    set("DATE", git(&["log", "-1", "--format=%cs"]));
    set("TARGET", env::var("TARGET").ok());
    set("PROFILE", env::var("PROFILE").ok());
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    set("RUSTC", output(&rustc, &["--version"]));
}
