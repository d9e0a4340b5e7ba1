#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::os::unix::fs::symlink;

use super::*;

fn values_of(text: &str, directives: &[&str]) -> Vec<String> {
    let directives: Vec<String> = directives.iter().map(|name| (*name).to_owned()).collect();
    values(text, &directives)
}

#[test]
fn the_values_of_a_directive_are_found_in_every_grammar() {
    assert_eq!(
        values_of("http { include a/*; include \"b c\"; } # x", &["include"]),
        ["a/*", "b c"]
    );
    assert_eq!(
        values_of("# include no\nInclude /a/*.conf /b.conf", &["include"]),
        ["/a/*.conf", "/b.conf"]
    );
    assert_eq!(
        values_of(
            "include_dir = 'conf.d'\ninclude_if_exists 'x'",
            &["include_dir", "include_if_exists", "include"]
        ),
        ["conf.d", "x"]
    );
    assert_eq!(
        values_of(
            "rule_files:\n  - \"r/*.yml\"\n  - s.yml\nscrape:\n  - t.yml",
            &["rule_files"]
        ),
        ["r/*.yml", "s.yml"]
    );
    assert_eq!(
        values_of("rule_files: [a.yml, 'b.yml']", &["rule_files"]),
        ["a.yml", "b.yml"]
    );
    assert_eq!(
        values_of("bind :443 ssl crt /a.pem alpn h2", &["crt"]),
        ["/a.pem"]
    );
    assert!(values_of("my_include x; includes y;", &["include"]).is_empty());
}

#[test]
fn only_content_that_is_read_through_a_target_changes_its_digest() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let path = |name: &str| root.join(name);
    for name in ["enabled", "available/deep", "parts"] {
        fs::create_dir_all(path(name)).unwrap();
    }
    fs::write(path("available/a"), "one").unwrap();
    fs::write(path("available/deep/b"), "one").unwrap();
    fs::write(path("enabled/own"), "one").unwrap();
    fs::write(path("main"), "include parts/*; include single;").unwrap();
    symlink("../available/a", path("enabled/a")).unwrap();
    symlink("../available/deep", path("enabled/deep")).unwrap();
    symlink("own", path("enabled/inner")).unwrap();
    symlink("nowhere", path("enabled/lost")).unwrap();
    let names = ["include".to_owned()];
    let both = || {
        (
            behind(&path("enabled"), &[], &[]).unwrap(),
            behind(&path("main"), &names, &[]).unwrap(),
        )
    };
    let mut last = both();
    assert!(!last.0.is_empty());
    let mut changed = |directory: bool, file: bool, what: &str| {
        let now = both();
        assert_eq!(
            (now.0 != last.0, now.1 != last.1),
            (directory, file),
            "{what}"
        );
        last = now;
    };
    changed(false, false, "nothing");
    fs::write(path("available/a"), "two").unwrap();
    changed(true, false, "a file behind a link");
    fs::write(path("available/deep/b"), "two").unwrap();
    changed(true, false, "a file in a directory behind a link");
    fs::write(path("enabled/own"), "two").unwrap();
    changed(false, false, "the target's own file");
    fs::write(path("enabled/nowhere"), "two").unwrap();
    changed(true, false, "the new target of a broken link");
    fs::write(path("parts/x"), "include more").unwrap();
    changed(false, true, "a new file for a glob");
    fs::write(path("more"), "x").unwrap();
    changed(false, true, "a file that an included file includes");
    fs::write(path("single"), "x").unwrap();
    changed(false, true, "a file that was missing");
    fs::write(path("main"), "include parts/*; include single; # more").unwrap();
    changed(false, false, "the file itself");
    assert_eq!(behind(&path("main"), &[], &[]).as_deref(), Some(""));
}

/// Waits until the clock of the filesystem has advanced.
fn wait_for_clock(path: &Path) {
    let stamp = || {
        fs::write(path, "one").unwrap();
        path.metadata()
            .map(|meta| (meta.ctime(), meta.ctime_nsec()))
            .unwrap()
    };
    let before = stamp();
    while stamp() <= before {}
}

#[test]
fn a_file_that_the_text_of_a_target_names_counts_unless_a_process_writes_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let path = |name: &str| root.join(name);
    for name in [
        "map",
        "ticket.key",
        "cert.pem",
        "rules.yml",
        "users",
        "list",
        "log",
        "unnamed",
    ] {
        fs::write(path(name), "one").unwrap();
    }
    let me = i32::try_from(std::process::id()).unwrap();
    let log = fs::OpenOptions::new()
        .append(true)
        .open(path("log"))
        .unwrap();
    let text = format!(
        "use map(.{0}) {1};\n\"include\":\n  \"*.yml\"\n# unnamed.key\nssl = '{2}' log \
         {3}\ninclude users, list",
        "/map",
        path("ticket.key").display(),
        path("cert.pem").display(),
        path("log").display()
    );
    fs::write(path("main"), text).unwrap();
    let now = || behind(&path("main"), &[], &[me]).unwrap();
    for name in ["map", "ticket.key", "cert.pem", "rules.yml", "users"] {
        let before = now();
        fs::write(path(name), "two").unwrap();
        assert_ne!(now(), before, "{name}");
    }
    let list = fs::OpenOptions::new()
        .write(true)
        .open(path("list"))
        .unwrap();
    let date = || newest(&path("main"), &[], &[me]).unwrap();
    let before = (now(), date());
    wait_for_clock(&path("unnamed"));
    fs::write(path("list"), "two").unwrap();
    assert_eq!(now(), before.0, "a file that the process writes to");
    assert!(date() > before.1, "a list that is open for its lock");
    drop(list);
    let before = now();
    fs::write(path("unnamed"), "two").unwrap();
    fs::write(path("log"), "a line that the process writes").unwrap();
    assert_eq!(now(), before, "a log, and a file that nothing names");
    drop(log);
}

#[test]
fn content_behind_a_target_that_cannot_be_read_is_not_known() {
    use std::os::unix::fs::PermissionsExt;

    use crate::tests::unprivileged::unprivileged;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    let main = root.join("main");
    fs::write(&main, "include parts/a;").unwrap();
    let includes = ["include".to_owned()];
    let digest = || unprivileged(|| behind(&main, &includes, &[]));
    assert!(digest().is_some(), "a missing file is a fact");
    fs::create_dir(root.join("parts")).unwrap();
    fs::write(root.join("parts/a"), "one").unwrap();
    assert!(digest().is_some());
    fs::set_permissions(root.join("parts"), fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(digest(), None);
    fs::write(&main, "include parts/*;").unwrap();
    assert_eq!(digest(), None, "a pattern");
}
