#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::os::unix::fs::symlink;

use super::*;

fn of(text: &str, directives: &[&str]) -> Vec<String> {
    values(
        text,
        &directives
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>(),
    )
}

#[test]
fn the_values_of_a_directive_are_found_in_every_grammar() {
    assert_eq!(
        of("http { include a/*; include \"b c\"; } # x", &["include"]),
        ["a/*", "b c"]
    );
    assert_eq!(
        of("# include no\nInclude /a/*.conf /b.conf", &["include"]),
        ["/a/*.conf", "/b.conf"]
    );
    assert_eq!(
        of(
            "include_dir = 'conf.d'\ninclude_if_exists 'x'",
            &["include_dir", "include_if_exists", "include"]
        ),
        ["conf.d", "x"]
    );
    assert_eq!(
        of(
            "rule_files:\n  - \"r/*.yml\"\n  - s.yml\nscrape:\n  - t.yml",
            &["rule_files"]
        ),
        ["r/*.yml", "s.yml"]
    );
    assert_eq!(
        of("rule_files: [a.yml, 'b.yml']", &["rule_files"]),
        ["a.yml", "b.yml"]
    );
    assert_eq!(of("bind :443 ssl crt /a.pem alpn h2", &["crt"]), ["/a.pem"]);
    assert!(of("my_include x; includes y;", &["include"]).is_empty());
}

#[test]
fn what_lies_behind_a_target_changes_its_digest_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let at = |name: &str| root.join(name);
    for name in ["enabled", "available/deep", "parts"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    fs::write(at("available/a"), "one").unwrap();
    fs::write(at("available/deep/b"), "one").unwrap();
    fs::write(at("enabled/own"), "one").unwrap();
    fs::write(at("main"), "include parts/*; include single;").unwrap();
    symlink("../available/a", at("enabled/a")).unwrap();
    symlink("../available/deep", at("enabled/deep")).unwrap();
    symlink("own", at("enabled/inner")).unwrap();
    symlink("nowhere", at("enabled/lost")).unwrap();
    let names = ["include".to_owned()];
    let both = || {
        (
            behind(&at("enabled"), &[], &[]).unwrap(),
            behind(&at("main"), &names, &[]).unwrap(),
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
    fs::write(at("available/a"), "two").unwrap();
    changed(true, false, "a file behind a link");
    fs::write(at("available/deep/b"), "two").unwrap();
    changed(true, false, "a file in a directory behind a link");
    fs::write(at("enabled/own"), "two").unwrap();
    changed(false, false, "the target's own file");
    fs::write(at("enabled/nowhere"), "two").unwrap();
    changed(true, false, "what a link leads to that led nowhere");
    fs::write(at("parts/x"), "include more").unwrap();
    changed(false, true, "a new file for a glob");
    fs::write(at("more"), "x").unwrap();
    changed(false, true, "what an included file includes");
    fs::write(at("single"), "x").unwrap();
    changed(false, true, "a file that was missing");
    fs::write(at("main"), "include parts/*; include single; # more").unwrap();
    changed(false, false, "the file itself");
    assert_eq!(behind(&at("main"), &[], &[]).as_deref(), Some(""));
}

/// Waits until the clock of the disk has gone on.
fn until_later(path: &Path) {
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
fn a_file_that_the_text_of_a_target_names_counts_whatever_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let at = |name: &str| root.join(name);
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
        fs::write(at(name), "one").unwrap();
    }
    let me = i32::try_from(std::process::id()).unwrap();
    let log = fs::OpenOptions::new().append(true).open(at("log")).unwrap();
    let text = format!(
        "use map(.{0}) {1};\n\"include\":\n  \"*.yml\"\n# unnamed.key\nssl = '{2}' log \
         {3}\ninclude users, list",
        "/map",
        at("ticket.key").display(),
        at("cert.pem").display(),
        at("log").display()
    );
    fs::write(at("main"), text).unwrap();
    let now = || behind(&at("main"), &[], &[me]).unwrap();
    for name in ["map", "ticket.key", "cert.pem", "rules.yml", "users"] {
        let before = now();
        fs::write(at(name), "two").unwrap();
        assert_ne!(now(), before, "{name}");
    }
    let list = fs::OpenOptions::new().write(true).open(at("list")).unwrap();
    let date = || newest(&at("main"), &[], &[me]).unwrap();
    let before = (now(), date());
    until_later(&at("unnamed"));
    fs::write(at("list"), "two").unwrap();
    assert_eq!(now(), before.0, "a file that the process writes to");
    assert!(date() > before.1, "a list that is held open for its lock");
    drop(list);
    let before = now();
    fs::write(at("unnamed"), "two").unwrap();
    fs::write(at("log"), "a line that the process writes").unwrap();
    assert_eq!(now(), before, "a log, and a file that nothing names");
    drop(log);
}
