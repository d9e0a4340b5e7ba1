//! Entries of `any`: one of several assertions must hold, and the weakest decides what is proven.

use std::process::Command;

use crate::{
    daemons::{Daemon, command, folder, free_port, need},
    support::{CommandResult, until, write},
};

/// nginx with two pages, each of which answers a word.
struct Pages {
    daemon: Daemon,
    port: u16,
}

impl Pages {
    /// Starts nginx; none if it is not installed.
    fn start() -> Option<Self> {
        if !(need("nginx") && need("curl")) {
            return None;
        }
        let (dir, port) = (folder(), free_port());
        let text = Self::text(dir.path(), port, ("one", "one"), "");
        let config = write(&dir.path().join("n.conf"), &text);
        let daemon = Daemon::spawn(dir, command("nginx").arg("-c").arg(config));
        let pages = Self { daemon, port };
        until("it answers", || {
            assert!(pages.daemon.runs(), "{}", pages.daemon.log());
            pages.page("a") == "one"
        });
        Some(pages)
    }

    fn text(dir: &std::path::Path, port: u16, (a, b): (&str, &str), more: &str) -> String {
        let dir = dir.display();
        format!(
            "daemon off;\nworker_processes 1;\npid {dir}/pid;\nerror_log {dir}/error.log;\n\
             events {{ }}\nhttp {{\n  access_log off;\n  server {{\n    listen 127.0.0.1:{port};\n\
             {more}    location /a {{ return 200 \"{a}\"; }}\n    location /b {{ return 200 \
             \"{b}\"; }}\n  }}\n}}\n"
        )
    }

    /// Returns what a page answers now.
    fn page(&self, name: &str) -> String {
        let url = format!("http://127.0.0.1:{}/{name}", self.port);
        let output = Command::new("curl").args(["-s", &url]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Installs a config with these words, proven by `facts`.
    fn change(&self, words: (&str, &str), more: &str, facts: &str) -> CommandResult {
        let config = self.daemon.path("n.conf");
        let dir = config.parent().unwrap();
        let text = format!(
            "version = 1\n[[group]]\nname = \"n\"\nmatch = {{ exe = \"nginx\", args = [\"{0}\"] }}\n\
             config = \"{0}\"\nreloads = true\ntimeout = \"5s\"\n{facts}\n",
            config.display()
        );
        self.daemon.write("fleet.toml", &text);
        let candidate = Self::text(dir, self.port, words, more);
        let candidate = self.daemon.write("new.conf", &candidate);
        self.daemon
            .broadcast(&["--config", candidate.to_str().unwrap()])
    }
}

/// Returns outcome and proof of the only instance.
fn proof(result: &CommandResult) -> (&str, &str) {
    let one = &result.json["instances"][0];
    let text = |key: &str| one[key].as_str().unwrap_or_default();
    (text("outcome"), text("proof"))
}

/// One of the pages answers anew.
const CHANGED: &str = "[[group.confirm]]\nany = [{ http = \"http://{listen}/a\", changed = true }, \
                       { http = \"http://{listen}/b\", changed = true }]";

#[test]
fn one_alternative_of_nginx_proves_a_change_that_the_other_does_not_show() {
    let Some(pages) = Pages::start() else { return };
    let result = pages.change(("one", "two"), "", CHANGED).expect(0);
    assert_eq!(proof(&result), ("confirmed", "content"));
    assert_eq!(pages.page("b"), "two");
}

#[test]
fn a_change_that_no_alternative_shows_is_never_claimed() {
    let Some(pages) = Pages::start() else { return };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let more = format!("    listen 127.0.0.1:{port};\n");
    // As with `changed` alone, nothing shows that the reload of the new config is over.
    let result = pages.change(("one", "two"), &more, CHANGED).expect(7);
    let one = &result.json["instances"][0];
    let text = one["failure"]["text"].as_str().unwrap();
    assert!(text.contains("/a") && text.contains("/b"), "{text}");
    assert_eq!(pages.page("b"), "one");
}

#[test]
fn an_alternative_that_held_before_leaves_the_entry_unproven() {
    let Some(pages) = Pages::start() else { return };
    let facts = "[[group.confirm]]\nany = [{ http = \"http://{listen}/a\", contains = \"o\" }, \
                 { http = \"http://{listen}/b\", contains = \"w\" }]";
    let result = pages.change(("one", "two"), "", facts).expect(12);
    assert_eq!(proof(&result), ("unconfirmed", "none"));
}

#[test]
fn each_entry_needs_one_of_its_alternatives() {
    let Some(pages) = Pages::start() else { return };
    let facts =
        format!("{CHANGED}\n[[group.confirm]]\nhttp = \"http://{{listen}}/a\"\nchanged = true");
    pages.change(("one", "two"), "", &facts).expect(6);
    assert_eq!(pages.page("b"), "one");
    pages.change(("three", "two"), "", &facts).expect(0);
}

#[test]
fn an_alternative_that_rejects_ends_the_wait() {
    let Some(pages) = Pages::start() else { return };
    let reject = "[[group.confirm]]\nhttp = \"http://{listen}/a\"\nequals = \"never\"\n\
                  [[group.reject]]\nany = [{ http = \"http://{listen}/a\", equals = \"bad\" }, \
                  { http = \"http://{listen}/b\", equals = \"BEFORE\" }]";
    // The other alternative held before, so that this one shows no refusal.
    let held = reject.replace("BEFORE", "one");
    let result = pages.change(("bad", "one"), "", &held);
    let kind = &result.json["instances"][0]["failure"]["kind"];
    assert_eq!(kind, "timed_out", "{:#}", result.json);
    let none_held = reject.replace("BEFORE", "none");
    let pages = Pages::start().unwrap();
    let result = pages.change(("bad", "one"), "", &none_held);
    let kind = &result.json["instances"][0]["failure"]["kind"];
    assert_eq!(kind, "rejected", "{:#}", result.json);
}
